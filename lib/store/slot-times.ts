/** When each slot was last written, for cooling: by the clock, and by the count of syncs. */
import type { SyncService } from "./sync.js";

export class SlotTimes {
  readonly #lastWrite: Float64Array;
  readonly #syncs: Uint32Array;

  constructor(slots: number) {
    this.#lastWrite = new Float64Array(slots).fill(Number.NEGATIVE_INFINITY);
    this.#syncs = new Uint32Array(slots);
  }

  /** Bytes of the slot have changed. */
  wrote(slot: number, now: number, sync: SyncService): void {
    this.#lastWrite[slot] = now;
    this.#syncs[slot] = sync.submitted;
  }

  lastWrite(slot: number): number {
    return this.#lastWrite[slot]!;
  }

  /** Everything that was ever written to the slot is on stable storage. */
  isSynced(slot: number, sync: SyncService): boolean {
    return this.#lastWrite[slot] === Number.NEGATIVE_INFINITY || sync.completed > this.#syncs[slot]!;
  }
}
