/**
 * Who may hold how much of the pool.
 *
 * Invariants
 *  1. The gateway holds at most `limitBytes` of the pool; what is beyond is for the rooms behind it.
 *  2. A connection gets more only while its own holding stays within what is left for everyone
 *     (`used + wanted ≤ left − wanted`). So n connections that take all they can leave a share of 1/(n + 1)
 *     for the next one, and give way as others come: there are no fixed quotas to configure.
 *  3. Nobody has to wait to make progress: each connection owns its home (limits.ts), which is outside of
 *     rule 2. Waiting is for better, not for any, service. So a wait never closes a circle.
 */
import { assert } from "../core/assert.js";
import type { Ticker, TickTask } from "../core/clock.js";
import { Pool, type PoolWaiter } from "../core/pool.js";
import { HOME_BYTES, HOMES_SHARE, POOL_SHARE } from "./limits.js";

/** One connection as memory sees it. `heldBytes` is kept by Memory alone. */
export interface MemoryUser {
  heldBytes: number;
  /** In the queue of those who wait; kept by Memory alone. */
  waitsForMemory: boolean;
  /** Something was freed. Told once per `wait`, at the end of a batch. */
  memoryHasRoom(): void;
}

export class Memory implements PoolWaiter, TickTask {
  readonly pool: Pool;
  readonly limitBytes: number;
  readonly #ticker: Ticker;
  #usedBytes = 0;
  #homeBytes = 0;
  #waiters: MemoryUser[] = [];
  #waking: MemoryUser[] = [];
  #poolWatched = false;
  #tickAsked = false;

  constructor(pool: Pool, ticker: Ticker) {
    this.pool = pool;
    this.#ticker = ticker;
    this.limitBytes = Math.floor(pool.capacityBytes * POOL_SHARE);
  }

  /** Bytes of the pool held or reserved by all connections. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  get waiting(): number {
    return this.#waiters.length;
  }

  /** A connection's home, or −1: refuse the connection. */
  takeHome(): number {
    if (this.#homeBytes + HOME_BYTES > this.limitBytes * HOMES_SHARE) return -1;
    const offset = this.pool.allocate(HOME_BYTES);
    if (offset < 0) return -1;
    this.#homeBytes += HOME_BYTES;
    this.#usedBytes += HOME_BYTES;
    return offset;
  }

  freeHome(offset: number): void {
    this.#homeBytes -= HOME_BYTES;
    this.#usedBytes -= HOME_BYTES;
    this.pool.free(offset);
  }

  /** A buffer of at least `length` bytes (1 … 1 MiB) within the user's share, or −1. */
  allocate(user: MemoryUser, length: number): number {
    const capacity = Pool.capacityOf(length);
    if (!this.#withinShare(user, capacity)) return -1;
    const offset = this.pool.allocate(length);
    if (offset >= 0) this.#hold(user, capacity);
    return offset;
  }

  /** Sets `bytes` aside within the user's share, to be allocated from by `allocateReserved`. */
  reserve(user: MemoryUser, bytes: number): boolean {
    if (!this.#withinShare(user, bytes)) return false;
    this.#hold(user, bytes);
    return true;
  }

  /** Whether `reserve` of that much could ever succeed. */
  couldReserve(bytes: number): boolean {
    return 2 * bytes <= this.limitBytes - this.#homeBytes;
  }

  /** A buffer out of what was reserved, or −1 when the pool itself has none of that size just now. */
  allocateReserved(length: number): number {
    return this.pool.allocate(length);
  }

  /** Gives back what was reserved and not allocated. */
  unreserve(user: MemoryUser, bytes: number): void {
    this.#release(user, bytes);
    if (this.#waiters.length > 0) this.#askTick();
  }

  /** Gives back a buffer that was allocated with `length`. */
  free(user: MemoryUser, offset: number, length: number): void {
    this.#release(user, Pool.capacityOf(length));
    this.pool.free(offset);
  }

  /** `user.memoryHasRoom` once, after something has been freed. */
  wait(user: MemoryUser): void {
    if (user.waitsForMemory) return;
    user.waitsForMemory = true;
    this.#waiters.push(user);
    if (!this.#poolWatched) {
      this.#poolWatched = true;
      this.pool.wait(this);
    }
  }

  /** Called from inside `Pool.free`: nothing is decided here, only noted for the end of the batch. */
  poolHasRoom(): void {
    this.#poolWatched = false;
    this.#askTick();
  }

  tick(): void {
    this.#tickAsked = false;
    const woken = this.#waiters;
    this.#waiters = this.#waking;
    this.#waking = woken;
    for (const user of woken) {
      user.waitsForMemory = false;
      user.memoryHasRoom();
    }
    woken.length = 0;
  }

  #askTick(): void {
    if (this.#tickAsked) return;
    this.#tickAsked = true;
    this.#ticker.atTickEnd(this);
  }

  #withinShare(user: MemoryUser, bytes: number): boolean {
    return user.heldBytes + bytes <= this.limitBytes - this.#usedBytes - bytes;
  }

  #hold(user: MemoryUser, bytes: number): void {
    user.heldBytes += bytes;
    this.#usedBytes += bytes;
  }

  #release(user: MemoryUser, bytes: number): void {
    user.heldBytes -= bytes;
    this.#usedBytes -= bytes;
    assert(user.heldBytes >= 0 && this.#usedBytes >= 0, "freed more memory than was held");
  }
}
