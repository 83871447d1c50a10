/**
 * Pool memory for the ciphertext of TLS connections.
 *
 * Invariants
 *  1. All connections together hold at most CIPHER_SHARE of the pool; one that finds no room is refused.
 *  2. Each has two small buffers, and takes large ones while it moves much: at most half of the share is growth, so that
 *     busy connections never keep others out.
 */
import { KIB } from "../core/limits.js";
import type { Pool } from "../core/pool.js";

/** Part of the pool that may be ciphertext buffers. At the bound a handshake ends its connection. */
const CIPHER_SHARE = 1 / 8;
/** A TLS record is at most 16 KiB and a little. */
const SMALL_BYTES = 32 * KIB;
/** What a connection takes in at once when it sends as fast as it can. */
export const RECEIVE_CIPHER_BYTES = 128 * KIB;
/** A reply of 128 KiB, with the headers of its records, in one send. */
export const SEND_CIPHER_BYTES = 256 * KIB;

/** Of all TLS connections of a thread: one of them for each pool, which clients and links share. */
export class CipherBudget {
  readonly pool: Pool;
  readonly #bytesMax: number;
  #smallBytes = 0;
  #growthBytes = 0;

  constructor(pool: Pool) {
    this.pool = pool;
    this.#bytesMax = pool.capacityBytes * CIPHER_SHARE;
  }

  /** Memory for one connection, or null. */
  take(): CipherMemory | null {
    if (this.#smallBytes + this.#growthBytes + 2 * SMALL_BYTES > this.#bytesMax) return null;
    const receive = this.pool.allocate(SMALL_BYTES);
    if (receive < 0) return null;
    const send = this.pool.allocate(SMALL_BYTES);
    if (send < 0) {
      this.pool.free(receive);
      return null;
    }
    this.#smallBytes += 2 * SMALL_BYTES;
    return new CipherMemory(this, receive, send);
  }

  /** A buffer of `bytes` in place of the small one at `offset`, which is given back; −1: there is none. */
  replace(offset: number, bytes: number): number {
    const growth = bytes - SMALL_BYTES;
    const used = this.#smallBytes + this.#growthBytes;
    if (this.#growthBytes + growth > this.#bytesMax / 2 || used + growth > this.#bytesMax) return -1;
    const larger = this.pool.allocate(bytes);
    if (larger < 0) return -1;
    this.#growthBytes += growth;
    this.pool.free(offset);
    return larger;
  }

  give(memory: CipherMemory): void {
    this.pool.free(memory.receiveAt);
    this.pool.free(memory.sendAt);
    this.#smallBytes -= 2 * SMALL_BYTES;
    this.#growthBytes -= memory.receiveBytes + memory.sendBytes - 2 * SMALL_BYTES;
  }
}

/** Two buffers, each in use by at most one request of the stream below. */
export class CipherMemory {
  readonly #budget: CipherBudget;
  receiveAt: number;
  receiveBytes = SMALL_BYTES;
  sendAt: number;
  sendBytes = SMALL_BYTES;

  constructor(budget: CipherBudget, receiveAt: number, sendAt: number) {
    this.#budget = budget;
    this.receiveAt = receiveAt;
    this.sendAt = sendAt;
  }

  /** While no receive is under way. What was received is lost. */
  growReceive(): void {
    const larger = this.#budget.replace(this.receiveAt, RECEIVE_CIPHER_BYTES);
    if (larger < 0) return;
    this.receiveAt = larger;
    this.receiveBytes = RECEIVE_CIPHER_BYTES;
  }

  /** While no send is under way. */
  growSend(): void {
    if (this.sendBytes === SEND_CIPHER_BYTES) return;
    const larger = this.#budget.replace(this.sendAt, SEND_CIPHER_BYTES);
    if (larger < 0) return;
    this.sendAt = larger;
    this.sendBytes = SEND_CIPHER_BYTES;
  }

  give(): void {
    this.#budget.give(this);
  }
}
