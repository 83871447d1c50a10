/** When each slot was last used, for cooling: by the clock, and, of what changed its bytes, by the count of syncs. */
import type { SyncService } from "./sync.js";

export class SlotTimes {
  readonly #lastUse: Float64Array;
  readonly #syncs: Uint32Array;

  constructor(slots: number) {
    this.#lastUse = new Float64Array(slots).fill(Number.NEGATIVE_INFINITY);
    this.#syncs = new Uint32Array(slots);
  }

  /** Bytes of the slot have changed. */
  wrote(slot: number, now: number, sync: SyncService): void {
    this.#lastUse[slot] = now;
    this.#syncs[slot] = sync.submitted;
  }

  /**
   * The slot, which is cool, is made hot for a write that may come: it is idle from now on. None of its bytes has changed
   * since the sync that let it cool, or ever.
   */
  heated(slot: number, now: number): void {
    this.#lastUse[slot] = now;
  }

  /** Milliseconds of the clock; −∞ for what was not used since the opening. */
  lastUse(slot: number): number {
    return this.#lastUse[slot]!;
  }

  /** Everything that was ever written to the slot is on stable storage. */
  isSynced(slot: number, sync: SyncService): boolean {
    return this.#lastUse[slot] === Number.NEGATIVE_INFINITY || sync.completed > this.#syncs[slot]!;
  }
}
