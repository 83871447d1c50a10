/**
 * The buffer pool: one stretch of memory, handed out by byte offset.
 *
 * Invariants
 *  1. Every buffer starts at a multiple of 4096 and its capacity is a power of two, 4 KiB … 1 MiB, so that
 *     O_DIRECT takes it as it is.
 *  2. A buffer has one owner from `allocate` to `free`; freeing what is not allocated is a broken
 *     invariant, found at once.
 *  3. free bytes + allocated bytes = all bytes.
 *
 * It is a binary buddy allocator over 1 MiB pieces. All state is in typed arrays: no allocation per call.
 */
import { assert } from "./assert.js";
import { BLOCK_BYTES, BLOCK_SHIFT, PIECE_BLOCKS, PIECE_BYTES, POOL_BYTES_MAX } from "./limits.js";

/** Orders 0 … 8: 4 KiB, 8 KiB … 1 MiB. */
const ORDER_MAX = 31 - Math.clz32(PIECE_BLOCKS);
const NONE = -1;
const STATE_INSIDE = 0;
const STATE_FREE = 0x40;
const STATE_USED = 0x80;

export class Pool {
  /** The memory itself. Offsets handed out are indexes into this. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly capacityBytes: number;
  #freeBytes: number;
  readonly #pages: number;
  /** Per page: what starts there (free or used, with its order), or that it lies inside a buffer. */
  readonly #state: Uint8Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #heads: Int32Array;
  readonly #waiters: PoolWaiter[] = [];
  #waking = false;

  /**
   * `bytes` starts at an address that is a multiple of 4096 and is a whole number of 1 MiB pieces long. A
   * thread that shares the memory with others hands out its part of it only: whole pieces `from` … `to`.
   */
  constructor(bytes: Uint8Array, from = 0, to = bytes.length) {
    assert(bytes.length % PIECE_BYTES === 0 && bytes.length > 0, "the pool is a whole number of pieces");
    assert(from % PIECE_BYTES === 0 && to % PIECE_BYTES === 0, "a part is a whole number of pieces");
    assert(0 <= from && from < to && to <= bytes.length, "a part lies inside the pool");
    assert(bytes.length <= POOL_BYTES_MAX, "pool offsets are u32");
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.capacityBytes = to - from;
    this.#freeBytes = to - from;
    this.#pages = bytes.length >>> BLOCK_SHIFT;
    this.#state = new Uint8Array(this.#pages);
    this.#next = new Int32Array(this.#pages).fill(NONE);
    this.#previous = new Int32Array(this.#pages).fill(NONE);
    this.#heads = new Int32Array(ORDER_MAX + 1).fill(NONE);
    const first = from >>> BLOCK_SHIFT;
    const last = (to >>> BLOCK_SHIFT) - PIECE_BLOCKS;
    for (let page = last; page >= first; page -= PIECE_BLOCKS) this.#push(page, ORDER_MAX);
  }

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /**
   * Offset of a buffer of at least `length` bytes (1 … 1 MiB), or −1 when there is none: then stop asking
   * for work and `wait`.
   */
  allocate(length: number): number {
    assert(length > 0 && length <= PIECE_BYTES, "a buffer is 1 byte to 1 MiB");
    const wanted = orderOf(length);
    let order = wanted;
    while (order <= ORDER_MAX && this.#heads[order] === NONE) order++;
    if (order > ORDER_MAX) return -1;
    const page = this.#heads[order]!;
    this.#unlink(page, order);
    while (order > wanted) {
      order--;
      this.#push(page + (1 << order), order);
    }
    this.#state[page] = STATE_USED | order;
    this.#freeBytes -= BLOCK_BYTES << order;
    return page * BLOCK_BYTES;
  }

  /** Gives back the buffer at `offset`. Whoever waits for room is told, in the order of asking. */
  free(offset: number): void {
    const at = offset >>> BLOCK_SHIFT;
    const state = this.#state[at];
    assert(
      offset % BLOCK_BYTES === 0 && state !== undefined && (state & STATE_USED) !== 0,
      "freed a pool buffer that was not allocated",
    );
    let order = state & 0x3f;
    let page = at;
    this.#state[page] = STATE_INSIDE;
    this.#freeBytes += BLOCK_BYTES << order;
    while (order < ORDER_MAX) {
      const buddy = page ^ (1 << order);
      if (this.#state[buddy] !== (STATE_FREE | order)) break;
      this.#unlink(buddy, order);
      this.#state[buddy] = STATE_INSIDE;
      page = Math.min(page, buddy);
      order++;
    }
    this.#push(page, order);
    if (this.#waiters.length > 0 && !this.#waking) this.#wake();
  }

  /** Bytes that `allocate(length)` really takes. */
  static capacityOf(length: number): number {
    return BLOCK_BYTES << orderOf(length);
  }

  /**
   * Tells `waiter` once, the next time something is freed. Waiters are told in the order of asking, each
   * once; one that still finds no room waits again.
   */
  wait(waiter: PoolWaiter): void {
    this.#waiters.push(waiter);
  }

  #wake(): void {
    this.#waking = true;
    // Only those who waited before this free: one that waits again must not be asked again now.
    const count = this.#waiters.length;
    for (let i = 0; i < count; i++) this.#waiters.shift()!.poolHasRoom();
    this.#waking = false;
  }

  #push(page: number, order: number): void {
    const head = this.#heads[order]!;
    this.#state[page] = STATE_FREE | order;
    this.#next[page] = head;
    this.#previous[page] = NONE;
    if (head !== NONE) this.#previous[head] = page;
    this.#heads[order] = page;
  }

  #unlink(page: number, order: number): void {
    const next = this.#next[page]!;
    const previous = this.#previous[page]!;
    if (previous === NONE) this.#heads[order] = next;
    else this.#next[previous] = next;
    if (next !== NONE) this.#previous[next] = previous;
  }
}

export interface PoolWaiter {
  poolHasRoom(): void;
}

function orderOf(length: number): number {
  const pages = (length + BLOCK_BYTES - 1) >>> BLOCK_SHIFT;
  return pages <= 1 ? 0 : 32 - Math.clz32(pages - 1);
}
