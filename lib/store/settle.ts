/**
 * Settling: deciding, after an opening, what the blocks of a hot slot hold (DESIGN §5 "Recovery").
 *
 * Invariants
 *  1. Candidates of a block are its entry in the table and the records after the table's position. The bytes
 *     decide between them; the records alone decide nothing.
 *  2. Bytes that match no candidate are adopted only while the device is LOSSY; otherwise they are bit rot,
 *     and the block keeps an entry that they fail, so that it can never be served.
 *  3. What was decided is in both copies of the table, durably, before the slot answers anything, unless
 *     both copies said it already.
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
  readonly #computed = new Uint32Array(SETTLE_BLOCKS);
  /** Per block: a candidate that is not "absent", kept for a block that rotted: its bytes fail them all. */
  readonly #fallback: Uint32Array;

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
    this.#fallback = new Uint32Array(extentBlocks);
  }

  /** Decides every block of a live slot; `entries` holds the result until the next call. */
  *settle(slot: number, lossy: boolean): Routine<Settled> {
    const alloc = this.#directory.alloc[slot]!;
    const image = yield* this.#tables.load(slot, alloc, this.entries, this.#tableBuffer, true);
    if (!image.found) return { slot, alloc, ...image, changed: false, lost: true, adopted: [], rotten: [] };
    const blocks = this.entries.length;
    // Without losses only blocks that the log speaks of can differ from the table.
    this.#decided.fill(lossy ? 0 : 1);
    this.#fallback.set(this.entries);
    let changed = !image.agree;
    this.#pending.visit(slot, image.position, (_sequence, block, entry) => {
      this.#decided[block] = 0;
      changed = true;
      if (entry !== ENTRY_ABSENT) this.#fallback[block] = entry;
    });
    const adopted: number[] = [];
    const rotten: number[] = [];
    for (let first = 0; first < blocks; first += SETTLE_BLOCKS) {
      const count = Math.min(SETTLE_BLOCKS, blocks - first);
      const from = this.#firstOpen(first, count);
      if (from < 0) continue;
      const to = this.#lastOpen(first, count);
      const readable = yield* this.#readBlocks(slot, from, to - from + 1);
      if (readable) this.#match(slot, image.position, from, to);
      for (let block = from; block <= to; block++) {
        if (this.#decided[block] !== 0) continue;
        changed = true;
        if (lossy && readable) {
          this.#adoptInto(this.entries, block, block - from);
          adopted.push(block);
        } else if (this.#fallback[block] !== ENTRY_ABSENT) {
          this.entries[block] = this.#fallback[block]!;
          rotten.push(block);
        }
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
      if (!(yield* this.#readBlocks(table.slot, block + done, step))) {
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
    entries[block] = this.#isZeroBlock(index) ? ENTRY_ABSENT : this.#computed[index]!;
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

  /** Reads the blocks and computes their entries; false when the device cannot read them. */
  *#readBlocks(slot: number, from: number, count: number): Routine<boolean> {
    const { layout, env, io } = this.#device;
    const offset = layout.slotsStart + slot * layout.slotBytes + from * BLOCK_BYTES;
    const result = yield* io.read(offset, this.#dataBuffer, count * BLOCK_BYTES);
    if (result < 0) return false;
    const seed = extentSeed(volumeSeed(this.#directory.volume[slot]!), this.#directory.extent[slot]!);
    env.checksums.blockEntries(this.#dataBuffer, count, seed, from, this.#computed, 0);
    return true;
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
    return entry === ENTRY_ABSENT ? this.#isZeroBlock(index) : entry === this.#computed[index];
  }

  #isZeroBlock(index: number): boolean {
    return isZero(this.#device.words, (this.#dataBuffer + index * BLOCK_BYTES) >>> 2, BLOCK_WORDS);
  }
}
