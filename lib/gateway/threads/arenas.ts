/** How the pool is dealt to the owner and its connection threads: each allocates from its own part, without locks. */
import { assert } from "../../core/assert.js";
import { MIB, PIECE_BYTES, POOL_BYTES_DEFAULT } from "../../core/limits.js";
import { POOL_SHARE } from "../limits.js";

/** Connection threads of one server. */
export const THREADS_MAX = 16;
/** Smallest part of one thread: a few pieces, and homes for some hundred connections. */
export const ARENA_BYTES_MIN: number = 4 * MIB;
/** What a thread should have: a read of 32 MiB is set aside as a whole by one connection of several. */
const ARENA_BYTES_GOOD = 96 * MIB;

export interface Arenas {
  /** The owner's part, from the beginning. */
  readonly ownerBytes: number;
  readonly parts: readonly { readonly from: number; readonly to: number }[];
}

/** The owner keeps what connections never get on one thread either; the threads share the rest alike. */
export function dealPool(poolBytes: number, threads: number): Arenas {
  assert(poolBytes % PIECE_BYTES === 0, "the pool is a whole number of pieces");
  if (threads === 0) return { ownerBytes: poolBytes, parts: [] };
  const each = Math.floor((poolBytes * POOL_SHARE) / threads / PIECE_BYTES) * PIECE_BYTES;
  assert(each >= ARENA_BYTES_MIN, "each thread has memory to work with");
  const ownerBytes = poolBytes - threads * each;
  return {
    ownerBytes,
    parts: Array.from({ length: threads }, (_, i) => ({
      from: ownerBytes + i * each,
      to: ownerBytes + (i + 1) * each,
    })),
  };
}

/** Smallest pool that can be dealt to so many threads. */
export function poolBytesMin(threads: number): number {
  return Math.ceil((threads * ARENA_BYTES_MIN) / POOL_SHARE / MIB) * MIB;
}

/** A pool in which every thread has what it should. */
export function poolBytesDefault(threads: number): number {
  return Math.max(POOL_BYTES_DEFAULT, Math.ceil((threads * ARENA_BYTES_GOOD) / POOL_SHARE / MIB) * MIB);
}
