/**
 * Memory of a simulating process: one stretch, taken once and used by all runs, that holds the pool of the
 * program under test at its beginning and the pages of the simulated devices after it.
 *
 * SimPool watches what a real pool cannot: a buffer that is given back while the disk still works on it is a
 * violation, and a buffer that was given back is overwritten, so that late users see garbage.
 */
import { assert } from "../../lib/core/assert.js";
import { blockSeed, type Checksums, entryOfCrc } from "../../lib/core/checksum.js";
import { BLOCK_BYTES, BLOCK_SHIFT, MIB } from "../../lib/core/limits.js";
import { Pool } from "../../lib/core/pool.js";
import { crc32c } from "./crc32c.js";
import { Violation } from "./violation.js";

/** Pool of the program under test, of a run on one machine. */
export const SIM_POOL_BYTES = 16 * MIB;
/**
 * Pools of a simulated cluster, one part for each process; only what is used takes memory. At the beginning, because a
 * pool keeps account of every page before its end: with each life of a process that would be made anew.
 */
const CLUSTER_POOL_BYTES = 64 * MIB;
/** Runs on one machine have theirs in the same place. */
const POOLS_BYTES = Math.max(SIM_POOL_BYTES, CLUSTER_POOL_BYTES);
/** Pages of devices; only those that are used take memory. */
const ARENA_BYTES = 112 * MIB;

const POISON_FREED = 0xdb;
const POISON_FRESH = 0xa5;

export interface SimMemory {
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  /** The same bytes, to be compared. */
  readonly buffer: Buffer;
  readonly checksums: Checksums;
  /** First byte after the pools. */
  readonly arenaStart: number;
  readonly arenaEnd: number;
}

let memory: SimMemory | null = null;

/** The process's simulation memory. */
export function simMemory(): SimMemory {
  memory ??= plainMemory();
  return memory;
}

/** Uses `bytes` (page-aligned native memory that the addon's checksums can reach) instead of plain memory. */
export function useNativeMemory(bytes: Uint8Array, checksums: Checksums): void {
  memory = describe(bytes, checksums);
}

export const SIM_MEMORY_BYTES = POOLS_BYTES + ARENA_BYTES;

function plainMemory(): SimMemory {
  const bytes = new Uint8Array(SIM_MEMORY_BYTES);
  return describe(bytes, new PlainChecksums(bytes));
}

function describe(bytes: Uint8Array, checksums: Checksums): SimMemory {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { bytes, words, buffer, checksums, arenaStart: POOLS_BYTES, arenaEnd: SIM_MEMORY_BYTES };
}

class PlainChecksums implements Checksums {
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  crc32c(offset: number, length: number, seed: number): number {
    return crc32c(this.#bytes, offset, offset + length, seed);
  }

  crc32cBytes(bytes: Uint8Array, seed: number): number {
    return crc32c(bytes, 0, bytes.length, seed);
  }

  blockEntries(
    offset: number,
    count: number,
    extentSeed: number,
    firstBlock: number,
    out: Uint32Array,
    at: number,
  ): void {
    for (let i = 0; i < count; i++) {
      const start = offset + i * BLOCK_BYTES;
      const seed = blockSeed(extentSeed, firstBlock + i);
      out[at + i] = entryOfCrc(crc32c(this.#bytes, start, start + BLOCK_BYTES, seed));
    }
  }
}

export class SimPool extends Pool {
  readonly #firstPage: number;
  /** Per page of this part: requests of the disk that work on it. */
  readonly #busy: Uint8Array;
  /** Per page of this part: pages of the buffer that starts there. */
  readonly #pages: Uint16Array;

  /** `bytes` of the simulation memory from `start` on; both are multiples of 1 MiB. */
  constructor(bytes: number, start = 0) {
    const end = start + bytes;
    assert(end <= POOLS_BYTES, "pools lie before the pages of devices");
    super(simMemory().bytes.subarray(0, end), start, end);
    this.#firstPage = start >>> BLOCK_SHIFT;
    this.#busy = new Uint8Array(bytes >>> BLOCK_SHIFT);
    this.#pages = new Uint16Array(bytes >>> BLOCK_SHIFT);
  }

  override allocate(length: number): number {
    const offset = super.allocate(length);
    if (offset < 0) return offset;
    const capacity = Pool.capacityOf(length);
    this.#pages[(offset >>> BLOCK_SHIFT) - this.#firstPage] = capacity >>> BLOCK_SHIFT;
    // What a fresh buffer holds must not matter; the first and last bytes are enough to show that it does.
    this.bytes.fill(POISON_FRESH, offset, offset + 64);
    this.bytes.fill(POISON_FRESH, offset + capacity - 64, offset + capacity);
    return offset;
  }

  override free(offset: number): void {
    const first = (offset >>> BLOCK_SHIFT) - this.#firstPage;
    const pages = this.#pages[first] ?? 0;
    for (let page = first; page < first + pages; page++) {
      if (this.#busy[page] !== 0)
        throw new Violation("I19", `pool buffer at ${offset} was freed while the disk works on it`);
    }
    if (pages > 0) {
      this.bytes.fill(POISON_FREED, offset, offset + BLOCK_BYTES);
      this.bytes.fill(POISON_FREED, offset + (pages - 1) * BLOCK_BYTES, offset + pages * BLOCK_BYTES);
    }
    super.free(offset);
  }

  /** The disk begins (+1) or ends (−1) work on `length` bytes at `offset`. */
  busy(offset: number, length: number, change: 1 | -1): void {
    const last = ((offset + length - 1) >>> BLOCK_SHIFT) - this.#firstPage;
    for (let page = (offset >>> BLOCK_SHIFT) - this.#firstPage; page <= last; page++) {
      this.#busy[page] = this.#busy[page]! + change;
    }
  }
}
