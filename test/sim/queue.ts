/**
 * The queue of coming events: a binary heap over typed arrays, ordered by time and, within one time, by the
 * order of asking. Entries are slot numbers, so that nothing is allocated per event.
 */
import { assert } from "../../lib/core/assert.js";
import type { SimProcess } from "./world.js";

/** Whatever an event is delivered to. `code` and `tag` are the receiver's own. */
export interface EventTarget {
  simEvent(code: number, tag: number): void;
}

const CAPACITY_FIRST = 1024;

export class EventQueue {
  #time = new Float64Array(CAPACITY_FIRST);
  #order = new Float64Array(CAPACITY_FIRST);
  #code = new Int32Array(CAPACITY_FIRST);
  #tag = new Float64Array(CAPACITY_FIRST);
  readonly #target: (EventTarget | null)[] = [];
  readonly #owner: (SimProcess | null)[] = [];
  #heap = new Int32Array(CAPACITY_FIRST);
  #free = new Int32Array(CAPACITY_FIRST);
  #freeCount = 0;
  #size = 0;
  #asked = 0;

  /** What `pop` took, until the next one. */
  time = 0;
  target: EventTarget | null = null;
  owner: SimProcess | null = null;
  code = 0;
  tag = 0;

  constructor() {
    for (let i = CAPACITY_FIRST - 1; i >= 0; i--) this.#free[this.#freeCount++] = i;
  }

  get size(): number {
    return this.#size;
  }

  /** Time of the next event; Infinity when there is none. */
  get nextTime(): number {
    return this.#size === 0 ? Number.POSITIVE_INFINITY : this.#time[this.#heap[0]!]!;
  }

  /** `owner`: the process that the event dies with, or null for the world's own. */
  push(time: number, target: EventTarget, owner: SimProcess | null, code: number, tag: number): void {
    if (this.#freeCount === 0) this.#grow();
    const slot = this.#free[--this.#freeCount]!;
    this.#time[slot] = time;
    this.#order[slot] = this.#asked++;
    this.#code[slot] = code;
    this.#tag[slot] = tag;
    this.#target[slot] = target;
    this.#owner[slot] = owner;
    this.#siftUp(this.#size++, slot);
  }

  /** Moves the next event into the public fields; false when there is none. */
  pop(): boolean {
    if (this.#size === 0) return false;
    const slot = this.#heap[0]!;
    this.time = this.#time[slot]!;
    this.code = this.#code[slot]!;
    this.tag = this.#tag[slot]!;
    this.target = this.#target[slot]!;
    this.owner = this.#owner[slot]!;
    this.#target[slot] = null;
    this.#owner[slot] = null;
    this.#free[this.#freeCount++] = slot;
    this.#size--;
    if (this.#size > 0) this.#siftDown(this.#heap[this.#size]!);
    return true;
  }

  #before(a: number, b: number): boolean {
    const ta = this.#time[a]!;
    const tb = this.#time[b]!;
    return ta < tb || (ta === tb && this.#order[a]! < this.#order[b]!);
  }

  #siftUp(from: number, slot: number): void {
    const heap = this.#heap;
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const other = heap[parent]!;
      if (!this.#before(slot, other)) break;
      heap[at] = other;
      at = parent;
    }
    heap[at] = slot;
  }

  #siftDown(slot: number): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#size) break;
      if (child + 1 < this.#size && this.#before(heap[child + 1]!, heap[child]!)) child++;
      const other = heap[child]!;
      if (!this.#before(other, slot)) break;
      heap[at] = other;
      at = child;
    }
    heap[at] = slot;
  }

  #grow(): void {
    const old = this.#time.length;
    const wanted = old * 2;
    assert(wanted <= 1 << 22, "the event queue of a run stays bounded");
    this.#time = widened(this.#time, new Float64Array(wanted));
    this.#order = widened(this.#order, new Float64Array(wanted));
    this.#code = widened(this.#code, new Int32Array(wanted));
    this.#tag = widened(this.#tag, new Float64Array(wanted));
    this.#heap = widened(this.#heap, new Int32Array(wanted));
    this.#free = widened(this.#free, new Int32Array(wanted));
    for (let i = wanted - 1; i >= old; i--) this.#free[this.#freeCount++] = i;
  }
}

function widened<T extends Float64Array | Int32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
