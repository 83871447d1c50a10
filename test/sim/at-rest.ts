/**
 * What is looked at, and done to a device, between two lives: checks of what a crash or a clean close has left, rot of a
 * synced record, and the way back to an older format.
 */
import { LaminaError } from "../../lib/core/errors.js";
import type { Routine } from "../../lib/core/routine.js";
import type { StoreEnvironment } from "../../lib/store/api.js";
import type { RunConfig } from "./config.js";
import type { Coverage } from "./coverage.js";
import type { SimDevice } from "./device.js";
import type { Prng } from "./prng.js";
import type { Finding, Subject } from "./subject.js";
import { Violation } from "./violation.js";

/** Faults that may leave blocks which fail their checksums. */
const DAMAGING = [
  "fault:rot",
  "fault:rot-zeros",
  "fault:misdirected-write",
  "fault:write-eio",
  "fault:zero-eio",
];
/** Rules of fsck that a power loss in the middle of a write may break: the other copy counts. */
const TORN_BY_CRASH = new Set(["superblock"]);

export interface AtRestHost {
  readonly config: RunConfig;
  readonly device: SimDevice;
  readonly coverage: Coverage;
  endFaults(): void;
  /** Runs `work` in a process of its own. */
  offline<T>(work: (environment: StoreEnvironment) => Routine<T>, what: string): Promise<T>;
}

export class AtRest {
  readonly #host: AtRestHost;
  readonly #subject: Subject;
  readonly #random: Prng;

  constructor(host: AtRestHost, subject: Subject, random: Prng) {
    this.#host = host;
    this.#subject = subject;
    this.#random = random;
  }

  /** Whether a fault has ever changed bytes at rest in this run. */
  get damaged(): boolean {
    return DAMAGING.some((fault) => this.#host.coverage.get(fault) > 0);
  }

  async #fsck(): Promise<readonly Finding[]> {
    const { fsck } = this.#subject;
    return fsck === undefined ? [] : this.#host.offline(fsck, "fsck");
  }

  async checkClosed(): Promise<void> {
    const found = await this.#fsck();
    const rotten = this.#host.coverage.get("fault:rot-metadata") > 0;
    if (found.length > 0 && !rotten && !this.damaged)
      throw new Violation("I7", `fsck after a clean close: ${found.map((one) => one.message).join("; ")}`);
  }

  /** What a crash has left must be in order too: copies of two ages, but never two bad ones, nor one ahead of the log. */
  async checkCrashed(): Promise<void> {
    const { coverage } = this.#host;
    if (this.damaged || coverage.get("fault:rot-metadata") > 0) return;
    this.#host.endFaults();
    const found = (await this.#fsck()).filter(({ rule }) => !TORN_BY_CRASH.has(rule));
    coverage.count("fsck:after-crash");
    if (found.length > 0)
      throw new Violation("I21", `fsck after a crash: ${found.map(({ message }) => message).join("; ")}`);
  }

  /**
   * A frame that was synced, and that a later one says was synced, rots: the device must not be opened as if the log
   * ended there. Then the bit is as it was.
   */
  async rotLog(): Promise<void> {
    const { config, device, coverage } = this.#host;
    const { logFrames, open } = this.#subject;
    if (logFrames === undefined) return;
    this.#host.endFaults();
    const frames = await this.#host.offline(logFrames, "the log to be read");
    const known = frames.filter(({ saidSynced }) => saidSynced);
    if (known.length === 0) return;
    const { offset, length } = this.#random.pick(known);
    const mend = device.rotAt(offset, length);
    if (mend === null) return;
    coverage.count("fault:rot-log");
    const options = { ...config.tunables, path: "sim", soleMember: true };
    const refused = await this.#host.offline(function* (environment) {
      try {
        yield* open(environment, options);
        return false;
      } catch (error) {
        return error instanceof LaminaError && error.code === "DEVICE_DAMAGED";
      }
    }, "the device to be refused");
    if (!refused)
      throw new Violation("I21", `the device was opened although a synced record at ${offset} has rotted`);
    const found = await this.#fsck();
    if (!found.some(({ rule }) => rule === "log"))
      throw new Violation("I21", `fsck does not see that a synced record at ${offset} has rotted`);
    mend();
  }

  /** In `share` of the lives the device becomes one that an older program has left so. */
  async takeBack(share: number): Promise<boolean> {
    const { takeBack } = this.#subject;
    const { config, coverage } = this.#host;
    if (takeBack === undefined || !config.features.has("old-format") || !this.#random.chance(share))
      return false;
    this.#host.endFaults();
    const taken = await this.#host.offline(takeBack, "the device to be taken back to an older format");
    coverage.count(taken ? "life:old-format" : "life:half-upgraded");
    return true;
  }
}
