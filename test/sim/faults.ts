/**
 * The faults of a life: which rates the device has, and what happens to the process, its connections and its Redis now
 * and then. What each of them does is written down in the file that has it.
 */
import { MIB } from "../../lib/core/limits.js";
import type { FormatOptions, Store } from "../../lib/store/api.js";
import { FAULT_RATE, type Feature, type RunConfig } from "./config.js";
import type { DeviceFaults, SimDevice } from "./device.js";
import type { LifeFront } from "./fronts.js";
import { NbdFront } from "./nbd-front.js";
import type { Prng } from "./prng.js";
import type { EventTarget } from "./queue.js";
import type { SimRedis } from "./redis.js";
import type { Subject } from "./subject.js";
import type { VolumeTable } from "./volume-table.js";
import type { SimProcess, SimWorld } from "./world.js";

/** A fault, or a control operation, is drawn about this often. */
const FAULT_TICK_US = 2000;
const EVENT_FAULT = 11;

/** What a life has that can go wrong. */
export interface FaultHost {
  readonly world: SimWorld;
  readonly config: RunConfig;
  readonly device: SimDevice;
  readonly volumes: VolumeTable;
  readonly process: SimProcess;
  readonly store: Store | null;
  readonly front: LifeFront | null;
  readonly redis: SimRedis | null;
  /** Clients still begin operations. */
  readonly working: boolean;
}

export class Faults implements EventTarget {
  readonly #host: FaultHost;
  readonly #random: Prng;
  /** Which copy of the metadata rots in this run. */
  readonly #rotSecond: boolean;
  #on = true;

  constructor(host: FaultHost, random: Prng) {
    this.#host = host;
    this.#random = random;
    this.#rotSecond = random.chance(0.5);
  }

  #has(feature: Feature): boolean {
    return this.#host.config.features.has(feature);
  }

  start(): void {
    const { faults } = this.#host.device;
    const rate = (feature: Feature): number =>
      this.#has(feature) && this.#random.chance(0.5) ? (FAULT_RATE[feature] ?? 0) : 0;
    faults.readEio = rate("read-eio");
    faults.writeEio = rate("write-eio");
    faults.syncEio = rate("sync-eio");
    faults.misdirectedRead = rate("misdirected-read");
    faults.misdirectedWrite = rate("misdirected-write");
    faults.misdirectedPart = rate("misdirected-part");
    this.#on = true;
    this.#next();
  }

  end(): void {
    const { device, redis } = this.#host;
    this.#on = false;
    redis?.endFaults();
    device.slowUntilUs = 0;
    device.spacePages = Number.POSITIVE_INFINITY;
    for (const name of Object.keys(device.faults) as (keyof DeviceFaults)[]) device.faults[name] = 0;
  }

  /** Between two lives. Of metadata one copy, always the same side, so that the other one is whole. */
  rotAtRest(subject: Subject, format: FormatOptions, random: Prng): void {
    const { device } = this.#host;
    if (this.#has("rot") && random.chance(0.5)) device.rot();
    if (this.#has("rot-zeros")) device.rotZeros(device.provisionedBelow, device.options.sizeBytes);
    if (subject.copyRanges === undefined || !this.#has("rot-metadata") || random.chance(0.5)) return;
    device.rotIn(subject.copyRanges(format, this.#rotSecond));
  }

  #next(): void {
    const { world, process } = this.#host;
    world.at(1 + this.#random.below(2 * FAULT_TICK_US), this, process, EVENT_FAULT, 0);
  }

  simEvent(): void {
    const { device, redis, volumes, working } = this.#host;
    if (!this.#on || !working) {
      device.spacePages = Number.POSITIVE_INFINITY;
      return;
    }
    this.#next();
    this.#ofDevice();
    this.#ofProcess();
    redis?.maybeFault();
    volumes.maybeChange(this.#random);
  }

  #ofDevice(): void {
    const { world, device } = this.#host;
    const random = this.#random;
    if (this.#has("rot") && random.chance(0.1)) device.rot();
    if (this.#has("slow") && random.chance(0.01)) {
      world.coverage.count("fault:slow");
      device.slowUntilUs = world.nowUs + random.between(1000, 20_000);
    }
    if (this.#has("pause") && random.chance(0.02)) {
      world.coverage.count("fault:pause");
      this.#host.process.pausedUntilUs = world.nowUs + random.between(1000, 5_000_000);
    }
    if (this.#has("full") && random.chance(0.05)) {
      const room = random.chance(0.5) ? Number.POSITIVE_INFINITY : device.usedPages + random.below(8);
      device.spacePages = room;
    }
  }

  #ofProcess(): void {
    const { world, store, front } = this.#host;
    const random = this.#random;
    if (this.#has("scrub") && random.chance(0.01)) {
      world.coverage.count("op:scrub");
      store!.startScrub(random.pick([1, 100]) * MIB);
    }
    if (this.#has("disconnect") && front instanceof NbdFront && random.chance(0.1)) front.breakOne();
  }
}
