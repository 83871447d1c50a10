/**
 * Payloads of background copies, compressed on their way (docs/architecture/replica.md "Wire format"). Never what clients
 * write: that is sent from where it lies.
 *
 * Invariant: what is unpacked is exactly as long as the message says that its blocks are, or nothing.
 */
import type { Codec } from "../core/codec.js";
import { BLOCK_BYTES, BLOCK_SHIFT } from "../core/limits.js";
import type { Pool } from "../core/pool.js";
import { PACKED_SHARE_MAX } from "./limits.js";

/** A payload that takes the place of a longer one. */
export interface Packed {
  /** Pool buffer, in whole blocks; the rest of the last one is zeros. */
  readonly memory: number;
  /** Without those zeros. */
  readonly bytes: number;
}

export class Packing {
  readonly #codec: Codec;
  /** Bytes that were not sent. */
  savedBytes = 0;

  constructor(codec: Codec) {
    this.#codec = codec;
  }

  /** Null: it does not shrink enough, or the pool has no room. The buffer is the caller's to free. */
  pack(pool: Pool, memory: number, blocks: number): Packed | null {
    // The payload is of whole blocks, too.
    if (blocks < 2) return null;
    const plain = pool.bytes.subarray(memory, memory + (blocks << BLOCK_SHIFT));
    const sample = this.#codec.pack(plain.subarray(0, BLOCK_BYTES));
    if (!isWorth(sample.length, BLOCK_BYTES)) return null;
    const packed = this.#codec.pack(plain);
    const length = wholeBlocks(packed.length);
    if (!isWorth(length, plain.length)) return null;
    const to = pool.allocate(length);
    if (to < 0) return null;
    pool.bytes.set(packed, to);
    pool.bytes.fill(0, to + packed.length, to + length);
    this.savedBytes += plain.length - length;
    return { memory: to, bytes: packed.length };
  }

  /** Replaces `bytes` packed bytes at `memory` by the blocks that they are of; false: they are of none such. */
  unpack(pool: Pool, memory: number, bytes: number, blocks: number): boolean {
    const packed = pool.bytes.subarray(memory, memory + bytes);
    const plain = this.#codec.unpack(packed, blocks << BLOCK_SHIFT);
    if (plain === null) return false;
    pool.bytes.set(plain, memory);
    return true;
  }
}

/** Length of a payload of so many packed bytes. */
export function wholeBlocks(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;
}

function isWorth(packed: number, plain: number): boolean {
  return packed <= plain * PACKED_SHARE_MAX;
}
