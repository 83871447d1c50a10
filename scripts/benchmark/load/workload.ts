/** What one connection asks for next. */
import { NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_WRITE } from "nbd-protocol-ts";

export interface Shape {
  readonly random: boolean;
  /** Percent of the requests that read; the others write. */
  readonly readPercent: number;
  readonly blockBytes: number;
  /** Requests in flight per connection. */
  readonly depth: number;
  /** A FLUSH after so many writes; 0: never. */
  readonly flushEvery: number;
  readonly sizeBytes: number;
}

export class Workload {
  readonly #shape: Shape;
  readonly #blocks: number;
  #seed: number;
  #cursor = 0;
  #unflushed = 0;
  type = NBD_CMD_READ;
  offset = 0;
  length = 0;

  /** `seed` tells connections apart; not 0. */
  constructor(shape: Shape, seed: number) {
    this.#shape = shape;
    this.#blocks = Math.floor(shape.sizeBytes / shape.blockBytes);
    this.#seed = seed | 0;
  }

  /** Sets `type`, `offset` and `length`. */
  next(): void {
    const { flushEvery, blockBytes, readPercent } = this.#shape;
    if (flushEvery > 0 && this.#unflushed === flushEvery) {
      this.#unflushed = 0;
      this.type = NBD_CMD_FLUSH;
      this.offset = 0;
      this.length = 0;
      return;
    }
    this.type = this.#below(100) < readPercent ? NBD_CMD_READ : NBD_CMD_WRITE;
    if (this.type === NBD_CMD_WRITE) this.#unflushed++;
    this.offset = this.#block() * blockBytes;
    this.length = blockBytes;
  }

  #block(): number {
    if (this.#shape.random) return this.#below(this.#blocks);
    const block = this.#cursor;
    this.#cursor = (block + 1) % this.#blocks;
    return block;
  }

  /** A whole number from 0 to `count` − 1 (xorshift). */
  #below(count: number): number {
    let x = this.#seed;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#seed = x;
    return Math.floor(((x >>> 0) / 2 ** 32) * count);
  }
}
