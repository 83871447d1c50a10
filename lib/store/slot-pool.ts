/**
 * Free slots: those that are cool, and a few whose hot bit is durably set in advance, so that a first write
 * into an extent waits for nothing.
 *
 * Invariants
 *  1. Every slot in here is Free: durably zero, and nothing is in flight to it (invariant 17).
 *  2. A slot leaves only hot.
 *  3. What is in here is hot, or cool, or its bit was asked for here (`#heating`) and by nobody else: a slot whose bit is
 *     being set because somebody writes to it, or will, is live or on its way to being free, and comes here hot.
 */
import { assert } from "../core/assert.js";
import type { HotBits } from "./hot.js";

class SlotStack {
  readonly #slots: Int32Array;
  count = 0;

  constructor(capacity: number) {
    this.#slots = new Int32Array(capacity);
  }

  push(slot: number): void {
    this.#slots[this.count++] = slot;
  }

  pop(): number {
    this.count--;
    return this.#slots[this.count]!;
  }
}

export class SlotPool {
  readonly #hot: HotBits;
  readonly #target: number;
  readonly #cool: SlotStack;
  readonly #ready: SlotStack;
  /** Cool slots whose bit is being set. */
  #heating = 0;

  constructor(slots: number, hot: HotBits, target: number) {
    this.#hot = hot;
    this.#target = target;
    this.#cool = new SlotStack(slots);
    this.#ready = new SlotStack(slots);
  }

  /** Slots that may be taken now. */
  get ready(): number {
    return this.#ready.count;
  }

  /** A free slot, hot. Only when `ready` > 0. */
  take(): number {
    const slot = this.#ready.pop();
    if (this.#ready.count + this.#heating < this.#target / 2) this.refill();
    return slot;
  }

  /** A slot that has become free, hot or cool. */
  put(slot: number): void {
    if (!this.#hot.isHot(slot)) {
      assert(this.#hot.isCool(slot), "nobody is setting the bit of a slot that comes back");
      this.#cool.push(slot);
    } else if (this.#ready.count < this.#target) {
      this.#ready.push(slot);
    } else {
      this.#hot.clear(slot);
      this.#cool.push(slot);
    }
  }

  /** A slot of this pool has become hot. */
  heated(slot: number): void {
    assert(this.#heating > 0, "the bit of a free slot was asked for here");
    this.#heating--;
    this.#ready.push(slot);
  }

  /** Sets hot bits in advance. */
  refill(): void {
    while (this.#ready.count + this.#heating < this.#target && this.#cool.count > 0) {
      this.#heating++;
      this.#hot.request(this.#cool.pop());
    }
  }
}
