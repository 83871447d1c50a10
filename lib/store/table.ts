/**
 * Entry tables in memory: one u32 per block of an extent, in a bounded cache.
 *
 * Invariants
 *  1. A table with I/O in flight (`pins` > 0) or changes that are not durable (`dirtySince`) stays.
 *  2. Entries change only when their bytes have landed; `dirtySince` is set before, when the record is staged.
 *  3. The bound is never exceeded: an operation that finds no frame waits for a checkpoint.
 */
import { assert } from "../core/assert.js";
import { CLEAN } from "./directory.js";
import type { Job } from "./job.js";
import { OpList } from "./op-list.js";

export const TableState = { Unused: 0, Loading: 1, Ready: 2, Lost: 3 } as const;
export type TableState = (typeof TableState)[keyof typeof TableState];

export class Table {
  readonly frame: number;
  /** One per block (lib/core/checksum.ts). */
  readonly entries: Uint32Array;
  state: TableState = TableState.Unused;
  slot = -1;
  alloc = 0;
  /** Seed of the extent's checksums. */
  seed = 0;
  /** First record about this slot that its durable copies do not both reflect; CLEAN if there is none. */
  dirtySince = CLEAN;
  /** Jobs, copies and scrubs that rely on the table. */
  pins = 0;
  /** Counts entries that changed: a reader without the asker's lock compares it before and after. */
  changes = 0;
  /** Writes whose record is staged or appended and whose bytes have not landed. */
  inFlight: Job | null = null;
  referenced = false;
  /** The slot was freed: dropped as soon as nobody uses it. */
  doomed = false;
  /** Reads whose data was asked for together with the table. */
  earlyReads: Job | null = null;
  /** Operations that wait for the table to be loaded. */
  readonly waiters = new OpList();

  constructor(frame: number, blocks: number) {
    this.frame = frame;
    this.entries = new Uint32Array(blocks);
  }

  get dirty(): boolean {
    return this.dirtySince !== CLEAN;
  }

  /** First record whose bytes have not landed; `otherwise` when everything has. */
  oldestInFlight(otherwise: number): number {
    let oldest = otherwise;
    for (let job = this.inFlight; job !== null; job = job.nextInFlight) {
      if (job.sequence < oldest) oldest = job.sequence;
    }
    return oldest;
  }
}

const NO_FRAME = -1;
/** Fewer frames than this would make every operation wait for every other. */
const FRAMES_MIN = 8;
/** An operation that needs a frame looks at this many tables itself. */
const CLAIM_STEPS = 16;

export class TableCache {
  readonly #blocks: number;
  readonly #tables: Table[] = [];
  readonly #unused: Table[] = [];
  /** Frame of a slot's table, or NO_FRAME. */
  readonly #frameOf: Int32Array;
  readonly frames: number;
  /** Told when the table of a freed slot is finally gone. */
  onDiscarded: (slot: number) => void = () => undefined;
  /** Told when the last user of a table has gone: its frame may be claimed, at once or after a checkpoint. */
  onUnpinned: () => void = () => undefined;
  #hand = 0;
  #resident = 0;

  constructor(slots: number, extentBlocks: number, cacheBytes: number) {
    this.#blocks = extentBlocks;
    this.frames = Math.max(FRAMES_MIN, Math.floor(cacheBytes / (extentBlocks * 4)));
    this.#frameOf = new Int32Array(slots).fill(NO_FRAME);
  }

  get bytes(): number {
    return this.#resident * this.#blocks * 4;
  }
  /** Frames that can be claimed at once. */
  get unusedFrames(): number {
    return this.#unused.length;
  }
  get limitBytes(): number {
    return this.frames * this.#blocks * 4;
  }

  /** The slot's table if it is in memory, loading or ready. */
  get(slot: number): Table | null {
    const frame = this.#frameOf[slot]!;
    return frame === NO_FRAME ? null : this.#tables[frame]!;
  }

  /** A frame for the slot, its entries undefined; null when every frame is dirty or in use. */
  claim(slot: number, alloc: number, seed: number): Table | null {
    const table = this.#unused.pop() ?? this.#grow() ?? this.#evictClean();
    if (table === null) return null;
    assert(this.#frameOf[slot] === NO_FRAME, "a slot has one table");
    table.slot = slot;
    table.alloc = alloc;
    table.seed = seed;
    table.state = TableState.Loading;
    table.dirtySince = CLEAN;
    table.referenced = true;
    this.#frameOf[slot] = table.frame;
    this.#resident++;
    return table;
  }

  /** One user less. */
  unpin(table: Table): void {
    table.pins--;
    if (table.pins > 0) return;
    if (table.doomed) this.#dropDoomed(table);
    this.onUnpinned();
  }

  #dropDoomed(table: Table): void {
    const { slot } = table;
    this.drop(table);
    this.onDiscarded(slot);
  }

  /** The slot was freed: its table means nothing any more. */
  discard(slot: number): void {
    const table = this.get(slot);
    if (table === null) return;
    table.doomed = true;
    table.dirtySince = CLEAN;
    if (table.pins > 0) return;
    this.#dropDoomed(table);
    this.onUnpinned();
  }

  /** Forgets a table that nobody uses; what it held is durable or belongs to no extent any more. */
  drop(table: Table): void {
    assert(
      table.pins === 0 && table.inFlight === null && table.waiters.length === 0,
      "dropped a table in use",
    );
    this.#frameOf[table.slot] = NO_FRAME;
    table.slot = -1;
    table.doomed = false;
    table.state = TableState.Unused;
    table.dirtySince = CLEAN;
    table.changes++;
    this.#resident--;
    this.#unused.push(table);
  }

  forEachResident(visit: (table: Table) => void): void {
    for (const table of this.#tables) if (table.slot >= 0) visit(table);
  }

  #grow(): Table | null {
    if (this.#tables.length >= this.frames) return null;
    const table = new Table(this.#tables.length, this.#blocks);
    this.#tables.push(table);
    return table;
  }

  /** Looks a few steps around the clock for a table that nobody needs; a longer search is `reclaim`'s. */
  #evictClean(): Table | null {
    const steps = Math.min(CLAIM_STEPS, this.#tables.length);
    for (let step = 0; step < steps; step++) {
      const table = this.#turn();
      if (!isIdle(table) || table.dirty || isSpared(table)) continue;
      this.drop(table);
      return this.#unused.pop()!;
    }
    return null;
  }

  /**
   * Goes around the clock, at most twice (a table that was used since the hand passed is spared once), until
   * `count` frames are unused or dirty tables are found whose writing would make them so. Those are returned.
   */
  reclaim(count: number): Table[] {
    const dirty = new Set<Table>();
    for (let step = 0; step < 2 * this.#tables.length; step++) {
      if (this.#unused.length + dirty.size >= count) break;
      const table = this.#turn();
      if (!isIdle(table) || isSpared(table)) continue;
      if (table.dirty) dirty.add(table);
      else this.drop(table);
    }
    return [...dirty];
  }

  #turn(): Table {
    const table = this.#tables[this.#hand]!;
    this.#hand = (this.#hand + 1) % this.#tables.length;
    return table;
  }
}

/** Nobody uses it now, and it holds an extent's entries. */
function isIdle(table: Table): boolean {
  return table.state === TableState.Ready && table.pins === 0;
}

/** Whether the table was used since the hand passed; it counts as unused from now on. */
function isSpared(table: Table): boolean {
  const { referenced } = table;
  table.referenced = false;
  return referenced;
}
