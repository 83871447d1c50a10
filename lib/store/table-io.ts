/**
 * Entry tables on the device: reading the copy that counts, writing both copies of many tables at once.
 *
 * Invariants
 *  1. Copy A is durable before copy B is written: one of them is whole at any moment.
 *  2. A table is written only after the log is synced up to every record that it reflects.
 *  3. A table whose ALLOC sequence is not the slot's belongs to an earlier life of the slot: all absent.
 */
import { assert } from "../core/assert.js";
import type { Routine } from "../core/routine.js";
import type { Device } from "./device.js";
import {
  getU64,
  PAGE_HEADER_WORDS,
  PageKind,
  putU64,
  TABLE_ALLOC_WORD,
  TABLE_HEADER_BYTES,
  TABLE_HEADER_WORDS,
} from "./format.js";
import type { Log } from "./log.js";
import { type PageHeader, PageState, type PageWrite } from "./metadata-io.js";
import type { SyncService } from "./sync.js";

/** What the two copies of a table say together. */
export interface TableImage {
  /** Entries were filled in; false: both copies are bad and the extent's checksums are lost. */
  readonly found: boolean;
  /** Records from here on are not reflected. 0 for a table that was never written in this life. */
  readonly position: number;
  /** Both copies are valid and equal, or neither belongs to this life. */
  readonly agree: boolean;
}

export class TableIo {
  readonly #device: Device;
  /** Counts the table writes of this opening. */
  #version = 0;

  constructor(device: Device) {
    this.#device = device;
  }

  offsetA(slot: number): number {
    return this.#device.layout.tablesA + slot * this.#device.layout.tableBytes;
  }

  offsetB(slot: number): number {
    return this.#device.layout.tablesB + slot * this.#device.layout.tableBytes;
  }

  /** Builds the table page at `memory`. Nothing before `position` is missing in `entries`. */
  encode(memory: number, slot: number, alloc: number, entries: Uint32Array, position: number): void {
    const { words, layout, io, incarnation } = this.#device;
    const at = memory >>> 2;
    words.fill(0, at, at + TABLE_HEADER_WORDS);
    putU64(words, at + TABLE_ALLOC_WORD, alloc);
    words.set(entries, at + TABLE_HEADER_WORDS);
    words.fill(0, at + TABLE_HEADER_WORDS + entries.length, at + layout.tableBytes / 4);
    this.#version++;
    const header: PageHeader = {
      kind: PageKind.Table,
      index: slot,
      incarnation,
      version: this.#version,
      position,
    };
    io.seal(memory, layout.tableBytes, header);
  }

  /**
   * The slot's entries, from copy A or, where that is not usable, from copy B. `both` reads B in any case and
   * compares. `memory` is a buffer of one table, or of two when `both`.
   */
  *load(
    slot: number,
    alloc: number,
    entries: Uint32Array,
    memory: number,
    both: boolean,
  ): Routine<TableImage> {
    const { io, layout } = this.#device;
    const length = layout.tableBytes;
    const a = yield* io.readPage(this.offsetA(slot), memory, length, PageKind.Table, slot);
    const aCurrent = a === PageState.Valid && this.#allocAt(memory) === alloc;
    if (aCurrent && !both) return this.#take(memory, entries, true);
    if (!isBad(a) && !aCurrent && !both) return blank(entries, true);
    const other = both ? memory + length : memory;
    const b = yield* io.readPage(this.offsetB(slot), other, length, PageKind.Table, slot);
    const bCurrent = b === PageState.Valid && this.#allocAt(other) === alloc;
    if (aCurrent) {
      const order = bCurrent ? io.compareAge(memory, other) : 1;
      return order < 0 ? this.#take(other, entries, false) : this.#take(memory, entries, order === 0);
    }
    if (bCurrent) return this.#take(other, entries, false);
    if (isBad(a) && isBad(b)) return { found: false, position: 0, agree: false };
    return blank(entries, !isBad(a) && !isBad(b));
  }

  /** Makes the tables that were encoded at `memory` (one after the other) durable in both copies. */
  *writeBoth(
    slots: readonly number[],
    memory: number,
    reflects: number,
    log: Log,
    sync: SyncService,
  ): Routine<void> {
    log.append();
    yield* sync.syncThrough(reflects);
    assert(log.syncedSequence >= reflects, "a table is never ahead of the log");
    for (const area of [this.#device.layout.tablesA, this.#device.layout.tablesB]) {
      yield* this.#device.io.writeAll(this.#writes(slots, memory, area));
      yield* sync.sync();
    }
  }

  #writes(slots: readonly number[], memory: number, area: number): PageWrite[] {
    const length = this.#device.layout.tableBytes;
    return slots.map((slot, i) => ({ offset: area + slot * length, memory: memory + i * length, length }));
  }

  #allocAt(memory: number): number {
    return getU64(this.#device.words, (memory >>> 2) + TABLE_ALLOC_WORD);
  }

  #take(memory: number, entries: Uint32Array, agree: boolean): TableImage {
    const at = (memory + TABLE_HEADER_BYTES) >>> 2;
    entries.set(this.#device.words.subarray(at, at + entries.length));
    return { found: true, position: this.#device.io.position(memory), agree };
  }
}

function isBad(state: PageState): boolean {
  return state === PageState.Bad || state === PageState.Unreadable;
}

function blank(entries: Uint32Array, agree: boolean): TableImage {
  entries.fill(0);
  return { found: true, position: 0, agree };
}

assert(TABLE_ALLOC_WORD >= PAGE_HEADER_WORDS, "the ALLOC sequence follows the page header");
