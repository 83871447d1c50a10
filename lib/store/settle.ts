/**
 * Settling: deciding, after an opening, what the blocks of a hot slot hold (DESIGN §5 "Recovery").
 *
 * Invariants
 *  1. Candidates of a block are its entry in the table and the records after the table's position. The bytes
 *     decide between them; the records alone decide nothing.
 *  2. Bytes that match no candidate are adopted only while the device is LOSSY; otherwise they are bit rot,
 *     and the block keeps an entry that they fail, so that it can never be served.
 *     The entry is the newest candidate that is not that of zeros, if there is one: a read that goes astray finds
 *     zeros everywhere, and they must fail it too.
 *  3. What was decided is in both copies of the table, durably, before the slot answers anything, unless
 *     both copies said it already.
 *  4. Bytes that match a checksum are those that were written to this block: the read has reached it. Bytes that no
 *     checksum vouches for (bytes to be adopted, bytes to be called rotten, and zeros, which lie everywhere and match
 *     wherever zeros were written) are believed when two readings in succession agree: one read that went astray
 *     decides nothing. A block that is read READINGS_MAX times and never twice the same is unreadable, and so is one
 *     that the device cannot read: it gets an entry as a rotten one does, and fails it or not when it is read.
 */

import { ENTRY_ABSENT, extentSeed, volumeSeed } from "../core/checksum.js";
import { BLOCK_BYTES } from "../core/limits.js";
import type { Routine } from "../core/routine.js";
import { type Device, DeviceFailure } from "./device.js";
import type { Directory } from "./directory.js";
import { isZero } from "./metadata-io.js";
import type { PendingDeltas } from "./pending.js";
import type { Table } from "./table.js";
import type { TableIo } from "./table-io.js";

/** Data is read in pieces of this many blocks. */
export const SETTLE_BLOCKS = 64;
export const SETTLE_BYTES = SETTLE_BLOCKS * BLOCK_BYTES;
/** Readings of bytes that no checksum vouches for, at most: one more than it takes to outvote two strays. */
export const READINGS_MAX = 4;

export interface Settled {
  readonly slot: number;
  readonly alloc: number;
  /** The tables on the device do not say this yet. */
  readonly changed: boolean;
  /** Both copies of the table are bad: nothing can be said about any block. */
  readonly lost: boolean;
  /** The two copies of the table are one write. */
  readonly agree: boolean;
  /** Records from here on are not in the table. */
  readonly position: number;
  /** Blocks that got the entry of bytes which matched nothing. */
  readonly adopted: readonly number[];
  /** Blocks whose bytes match nothing. */
  readonly rotten: readonly number[];
}

const BLOCK_WORDS = BLOCK_BYTES / 4;

export class Settler {
  readonly #device: Device;
  readonly #directory: Directory;
  readonly #tables: TableIo;
  readonly #pending: PendingDeltas;
  readonly #dataBuffer: number;
  readonly #tableBuffer: number;
  /** Final entries of the slot that is being settled. */
  readonly entries: Uint32Array;
  readonly #decided: Uint8Array;
  /** Per block of the piece that is being read: its entry by the last reading, and whether it is all zeros. */
  readonly #computed = new Uint32Array(SETTLE_BLOCKS);
  readonly #zero = new Uint8Array(SETTLE_BLOCKS);
  /** 1: what the last reading brought is believed (invariant 4), or does not matter. */
  readonly #sure = new Uint8Array(SETTLE_BLOCKS);
  readonly #reading = new Uint32Array(SETTLE_BLOCKS);

  /** `dataBuffer`: SETTLE_BYTES; `tableBuffer`: two tables. */
  constructor(
    device: Device,
    directory: Directory,
    tables: TableIo,
    pending: PendingDeltas,
    dataBuffer: number,
    tableBuffer: number,
  ) {
    const { extentBlocks } = device.layout;
    this.#device = device;
    this.#directory = directory;
    this.#tables = tables;
    this.#pending = pending;
    this.#dataBuffer = dataBuffer;
    this.#tableBuffer = tableBuffer;
    this.entries = new Uint32Array(extentBlocks);
    this.#decided = new Uint8Array(extentBlocks);
  }

  /** Decides every block of a live slot; `entries` holds the result until the next call. */
  *settle(slot: number, lossy: boolean): Routine<Settled> {
    const alloc = this.#directory.alloc[slot]!;
    const image = yield* this.#tables.load(slot, alloc, this.entries, this.#tableBuffer, true);
    if (!image.found) return { slot, alloc, ...image, changed: false, lost: true, adopted: [], rotten: [] };
    const blocks = this.entries.length;
    // Without losses only blocks that the log speaks of can differ from the table.
    this.#decided.fill(lossy ? 0 : 1);
    let changed = !image.agree;
    this.#pending.visit(slot, image.position, (_sequence, block) => {
      this.#decided[block] = 0;
      changed = true;
    });
    const adopted: number[] = [];
    const rotten: number[] = [];
    for (let first = 0; first < blocks; first += SETTLE_BLOCKS) {
      const count = Math.min(SETTLE_BLOCKS, blocks - first);
      const from = this.#firstOpen(first, count);
      if (from < 0) continue;
      const to = this.#lastOpen(first, count);
      this.#sure.fill(1);
      this.#sure.set(this.#decided.subarray(from, to + 1));
      yield* this.#observe(slot, from, () => this.#vouchByCandidates(slot, image.position, from, to));
      this.#match(slot, image.position, from, to);
      for (let block = from; block <= to; block++) {
        if (this.#decided[block] !== 0) continue;
        changed = true;
        if (lossy && this.#sure[block - from] !== 0) {
          this.#adoptInto(this.entries, block, block - from);
          adopted.push(block);
          continue;
        }
        this.entries[block] = this.#entryOfRot(slot, image.position, block);
        if (this.entries[block] !== ENTRY_ABSENT) rotten.push(block);
      }
    }
    return { slot, alloc, ...image, changed, lost: false, adopted, rotten };
  }

  /**
   * Compares `count` blocks of a table with their bytes after a write that failed in part: a block whose bytes
   * are what was `wanted` gets that entry, one that was absent gets what is there, any other keeps its own.
   */
  *compare(
    table: Table,
    block: number,
    count: number,
    wanted: Uint32Array,
  ): Routine<{ complete: boolean; mixed: boolean }> {
    let complete = true;
    let mixed = false;
    for (let done = 0; done < count; done += SETTLE_BLOCKS) {
      const step = Math.min(SETTLE_BLOCKS, count - done);
      this.#sure.fill(1);
      this.#sure.fill(0, 0, step);
      yield* this.#observe(table.slot, block + done, () => {
        for (let i = 0; i < step; i++) {
          this.#vouch(i, wanted[done + i]!);
          this.#vouch(i, table.entries[block + done + i]!);
        }
      });
      if (this.#sure.includes(0)) {
        throw new DeviceFailure("a write failed and its blocks cannot be read back");
      }
      for (let i = 0; i < step; i++) {
        const at = block + done + i;
        const want = wanted[done + i]!;
        if (this.#matches(i, want)) {
          table.entries[at] = want;
          continue;
        }
        complete = false;
        if (this.#matches(i, table.entries[at]!)) continue;
        // Had it rotted before, its new bytes must not be taken for its content: it keeps the entry that they fail.
        if (table.entries[at] !== ENTRY_ABSENT) continue;
        mixed = true;
        this.#adoptInto(table.entries, at, i);
      }
    }
    return { complete, mixed };
  }

  #adoptInto(entries: Uint32Array, block: number, index: number): void {
    entries[block] = this.#zero[index] !== 0 ? ENTRY_ABSENT : this.#computed[index]!;
  }

  /** Invariant 2: of the candidates, all of which the block's bytes fail. Overwrites the first block of the data buffer. */
  #entryOfRot(slot: number, position: number, block: number): number {
    const zeros = this.#entryOfZeros(slot, block);
    let chosen: number = ENTRY_ABSENT;
    const consider = (entry: number): void => {
      if (entry !== ENTRY_ABSENT && (chosen === ENTRY_ABSENT || chosen === zeros)) chosen = entry;
    };
    this.#pending.visit(slot, position, (_sequence, of, entry) => {
      if (of === block) consider(entry);
    });
    consider(this.entries[block]!);
    return chosen;
  }

  #entryOfZeros(slot: number, block: number): number {
    const { env, words } = this.#device;
    words.fill(0, this.#dataBuffer >>> 2, (this.#dataBuffer + BLOCK_BYTES) >>> 2);
    env.checksums.blockEntries(this.#dataBuffer, 1, this.#seedOf(slot), block, this.#reading, 0);
    return this.#reading[0]!;
  }

  #seedOf(slot: number): number {
    return extentSeed(volumeSeed(this.#directory.volume[slot]!), this.#directory.extent[slot]!);
  }

  #firstOpen(first: number, count: number): number {
    for (let block = first; block < first + count; block++) if (this.#decided[block] === 0) return block;
    return -1;
  }

  #lastOpen(first: number, count: number): number {
    let block = first + count - 1;
    while (this.#decided[block] !== 0) block--;
    return block;
  }

  /**
   * Reads the blocks from `from` on that are not sure, until they are or are given up. `vouch` is called after each
   * reading and marks those that match the checksum of a candidate.
   */
  *#observe(slot: number, from: number, vouch: () => void): Routine<void> {
    const { layout, env, io } = this.#device;
    const start = layout.slotsStart + slot * layout.slotBytes + from * BLOCK_BYTES;
    const seed = this.#seedOf(slot);
    for (let readings = 1; readings <= READINGS_MAX; readings++) {
      const first = this.#sure.indexOf(0);
      if (first < 0) return;
      const count = this.#sure.lastIndexOf(0) + 1 - first;
      const skipped = first * BLOCK_BYTES;
      const memory = this.#dataBuffer + skipped;
      if ((yield* io.read(start + skipped, memory, count * BLOCK_BYTES)) < 0) return;
      env.checksums.blockEntries(memory, count, seed, from + first, this.#reading, first);
      for (let i = first; i < first + count; i++) if (this.#sure[i] === 0) this.#take(i, readings > 1);
      vouch();
    }
  }

  /** A reading of a block; `again`: it is sure if the reading before was the same. */
  #take(index: number, again: boolean): void {
    const entry = this.#reading[index]!;
    if (again && entry === this.#computed[index]) this.#sure[index] = 1;
    this.#computed[index] = entry;
    this.#zero[index] = this.#isZeroBlock(index) ? 1 : 0;
  }

  #vouch(index: number, entry: number): void {
    // Zeros have the right checksum wherever they were read.
    if (entry !== ENTRY_ABSENT && this.#zero[index] === 0 && this.#computed[index] === entry)
      this.#sure[index] = 1;
  }

  #vouchByCandidates(slot: number, position: number, from: number, to: number): void {
    this.#pending.visit(slot, position, (_sequence, block, entry) => {
      if (block >= from && block <= to) this.#vouch(block - from, entry);
    });
    for (let block = from; block <= to; block++) this.#vouch(block - from, this.entries[block]!);
  }

  /** Decides the blocks whose bytes match a candidate, newest first. */
  #match(slot: number, position: number, from: number, to: number): void {
    this.#pending.visit(slot, position, (_sequence, block, entry) => {
      if (block < from || block > to || this.#decided[block] !== 0) return;
      if (!this.#matches(block - from, entry)) return;
      this.entries[block] = entry;
      this.#decided[block] = 1;
    });
    for (let block = from; block <= to; block++) {
      if (this.#decided[block] === 0 && this.#matches(block - from, this.entries[block]!))
        this.#decided[block] = 1;
    }
  }

  #matches(index: number, entry: number): boolean {
    if (this.#sure[index] === 0) return false;
    return entry === ENTRY_ABSENT ? this.#zero[index] !== 0 : entry === this.#computed[index];
  }

  #isZeroBlock(index: number): boolean {
    return isZero(this.#device.words, (this.#dataBuffer + index * BLOCK_BYTES) >>> 2, BLOCK_WORDS);
  }
}
