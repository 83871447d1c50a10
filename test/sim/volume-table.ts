/**
 * The volumes of a run and the control operations on them: dropped and made anew, grown, their records changed.
 * Each knows what it may be after a crash in the middle.
 */
import type { Store } from "../../lib/store/api.js";
import type { Volume } from "../../lib/volume/api.js";
import type { DeviceRegistry } from "../../lib/volume/registry.js";
import type { RunConfig } from "./config.js";
import type { History } from "./history.js";
import type { Prng } from "./prng.js";
import { Violation } from "./violation.js";
import type { SimProcess, SimWorld } from "./world.js";

/** Volume ids of the store front: number of the volume plus this times its reincarnation. */
const ID_STEP = 100;
/** Ids of the records that are written for their own sake; no volume has them. */
const RECORD_ID_FIRST = 1_000_000;
const RECORDS = 4;

export interface VolumeHost {
  readonly world: SimWorld;
  readonly history: History;
  readonly granulesPerVolume: number;
  readonly store: Store | null;
  readonly process: SimProcess;
  busyOn(volume: number): boolean;
  asyncBegin(): void;
  asyncEnd(): void;
}

export class VolumeTable {
  readonly #host: VolumeHost;
  readonly #config: RunConfig;
  /** Store front: VolumeId now. */
  readonly ids: number[];
  /** Being dropped: no operation may use it. */
  readonly #dropping: boolean[];
  /** Blocks that the volume has for certain. */
  readonly #blocks: number[];
  /** Per record id, what it may be; null for none. One entry means that it is known. */
  readonly #records = new Map<number, (string | null)[]>();
  #pending = 0;
  /** Volumes with a control operation in progress. */
  readonly #busy = new Set<number>();
  #recordNumber = 0;
  /** Registry of this life; null on the store front. */
  registry: DeviceRegistry | null = null;
  /** Volume front of this life: its open volumes. */
  open: (Volume | null)[] | null = null;
  readonly #releases: (() => void)[] = [];
  /** What has to be closed before the registry can be. */
  beforeClose: ((then: () => void) => void) | null = null;

  constructor(host: VolumeHost, config: RunConfig) {
    this.#host = host;
    this.#config = config;
    this.ids = Array.from({ length: config.volumes }, (_, volume) => volume + 1);
    this.#dropping = this.ids.map(() => false);
    const full = config.extentsPerVolume * config.extentBlocks;
    const small = config.front !== "store" && config.features.has("grow") ? Math.ceil(full / 2) : full;
    this.#blocks = this.ids.map(() => small);
  }

  get idle(): boolean {
    return this.#pending === 0;
  }

  blocks(volume: number): number {
    return this.#blocks[volume]!;
  }

  usable(volume: number): boolean {
    return this.#dropping[volume] === false;
  }

  nameOf(volume: number): string {
    return `volume-${volume}`;
  }

  /** A volume was found with this size after opening, or has it now. */
  sized(volume: number, blocks: number): void {
    if (blocks < this.#blocks[volume]!)
      throw new Violation("I2", `volume ${volume} had ${this.#blocks[volume]} blocks and has ${blocks} now`);
    this.#blocks[volume] = blocks;
  }

  holdRelease(volume: number, release: () => void): void {
    this.#releases[volume] = release;
  }

  isDropping(volume: number): boolean {
    return this.#dropping[volume]!;
  }

  /** Everything about the volume begins anew: zeros, and another identity. */
  reborn(volume: number): void {
    const { history, granulesPerVolume } = this.#host;
    this.ids[volume]! += ID_STEP;
    const first = volume * granulesPerVolume;
    for (let i = 0; i < granulesPerVolume; i++) history.create(first + i);
    this.#dropping[volume] = false;
  }

  crashed(): void {
    this.#pending = 0;
    this.#busy.clear();
    this.registry = null;
    this.open = null;
    this.beforeClose = null;
    this.#releases.length = 0;
  }

  /** Goes on with what the last life did not finish. */
  resume(): void {
    for (let volume = 0; volume < this.ids.length; volume++) {
      if (this.#dropping[volume] === true && this.registry === null) this.#drop(volume);
    }
  }

  /** One control operation, perhaps. */
  maybeChange(random: Prng): void {
    const { features, front } = this.#config;
    if (features.has("records") && front === "store" && random.chance(0.1)) this.#putRecord(random);
    const volume = random.below(this.ids.length);
    if (this.#host.busyOn(volume) || !this.usable(volume) || this.#busy.has(volume)) return;
    if (features.has("drop") && front !== "nbd" && random.chance(0.03)) this.#drop(volume);
    else if (features.has("grow") && front !== "store" && random.chance(0.05)) this.#grow(volume, random);
  }

  #drop(volume: number): void {
    this.#host.world.coverage.count("op:drop");
    this.#dropping[volume] = true;
    if (this.registry !== null) {
      this.#recreate(volume);
      return;
    }
    this.#pending++;
    const { process, world } = this.#host;
    if (world.trace !== null) world.say(`control: drop volume ${volume} (id ${this.ids[volume]})`);
    this.#host.store!.dropVolume(this.ids[volume]!, (error) => {
      if (!process.alive) return;
      this.#pending--;
      if (error !== null) return;
      if (world.trace !== null) world.say(`control: dropped volume ${volume}`);
      this.reborn(volume);
    });
  }

  /** Removes the volume and makes one of the same name. */
  #recreate(volume: number): void {
    const name = this.nameOf(volume);
    const registry = this.registry!;
    const size = this.#blocks[volume]! * 4096;
    this.open![volume] = null;
    this.#control(volume, async () => {
      this.#releases[volume]!();
      await registry.remove(name);
      await this.make(registry, volume, size);
      this.reborn(volume);
    });
  }

  /** Creates and opens a volume. */
  async make(registry: DeviceRegistry, volume: number, size: number): Promise<void> {
    const { stripeCount, stripeUnitBlocks, onFull } = this.#config;
    const policy = { stripeCount, stripeUnit: stripeUnitBlocks * 4096, onFull };
    await registry.create({ name: this.nameOf(volume), size, policy });
    await this.openOne(registry, volume);
  }

  async openOne(registry: DeviceRegistry, volume: number): Promise<void> {
    if (this.open === null) {
      this.sized(volume, registry.byName(this.nameOf(volume))!.size / 4096);
      return;
    }
    const opened = await registry.open(this.nameOf(volume));
    this.open[volume] = opened.volume;
    this.holdRelease(volume, () => opened.release());
    this.sized(volume, opened.volume.sizeBytes / 4096);
  }

  #grow(volume: number, random: Prng): void {
    const full = this.#config.extentsPerVolume * this.#config.extentBlocks;
    const blocks = Math.min(full, this.#blocks[volume]! + random.between(1, 20));
    if (blocks === this.#blocks[volume]) return;
    this.#host.world.coverage.count("op:grow");
    this.#control(volume, async () => {
      await this.registry!.resize(this.nameOf(volume), blocks * 4096);
      this.sized(volume, blocks);
    });
  }

  /** Runs a control operation of the registry; what it does after the process's death is ignored. */
  #control(volume: number, work: () => Promise<void>): void {
    const { process } = this.#host;
    this.#busy.add(volume);
    this.#pending++;
    this.#host.asyncBegin();
    work().then(
      () => this.#controlEnded(process, volume),
      (error: unknown) => {
        if (!process.alive) return;
        this.#host.world.coverage.count("control:failed");
        Violation.raised ??=
          error instanceof Violation
            ? error
            : new Violation("I23", `a control operation failed: ${String(error)}`, error);
        this.#controlEnded(process, volume);
      },
    );
  }

  #controlEnded(process: SimProcess, volume: number): void {
    if (!process.alive) return;
    this.#busy.delete(volume);
    this.#pending--;
    this.#host.asyncEnd();
  }

  /** Releases volumes and closes the registry, where there is one. */
  close(then: () => void): void {
    const { registry, beforeClose } = this;
    if (registry === null) then();
    else if (beforeClose === null) this.#closeRegistry(registry, then);
    else beforeClose(() => this.#closeRegistry(registry, then));
  }

  #closeRegistry(registry: DeviceRegistry, then: () => void): void {
    const { process } = this.#host;
    for (const release of this.#releases) release();
    registry.close().then(
      () => {
        if (process.alive) then();
      },
      (error: unknown) => {
        Violation.raised ??= new Violation("I23", `the registry does not close: ${String(error)}`, error);
      },
    );
  }

  // --- records -------------------------------------------------------------------------------------------

  #putRecord(random: Prng): void {
    const id = RECORD_ID_FIRST + random.below(RECORDS);
    const possible = this.#records.get(id) ?? [null];
    if (possible.length > 1) return;
    const text = random.chance(0.2) ? null : `${++this.#recordNumber}:${"x".repeat(random.below(3000))}`;
    this.#records.set(id, [...possible, text]);
    this.#pending++;
    const { process, world } = this.#host;
    world.coverage.count("op:put-record");
    this.#host.store!.putRecord(id, text === null ? null : new TextEncoder().encode(text), (error) => {
      if (!process.alive) return;
      this.#pending--;
      if (error === null) this.#records.set(id, [text]);
    });
  }

  /** After opening: records are what was acknowledged, or what was being written. */
  checkRecords(store: Store): void {
    if (this.#config.front !== "store") return;
    const found = store.records();
    for (const [id, possible] of this.#records) {
      const bytes = found.get(id);
      const text = bytes === undefined ? null : new TextDecoder().decode(bytes);
      if (!possible.includes(text)) {
        const expected = possible.map((one) => one?.slice(0, 12) ?? "none").join(" or ");
        throw new Violation("I2", `record ${id} is ${text?.slice(0, 12) ?? "none"}, should be ${expected}`);
      }
      this.#records.set(id, [text]);
    }
  }
}
