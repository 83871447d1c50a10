/**
 * Scrub: reads everything once in the background and verifies it, at a given pace.
 *
 * Invariants
 *  1. It holds no lock of the asker: a mismatch counts only if no write to the extent was in flight and none
 *     changed it while it was read (`Table.changes`).
 *  2. A slot is pinned while it is read, so it is not given away under the read (invariant 17).
 */
import { ENTRY_ABSENT, extentSeed, volumeSeed } from "../core/checksum.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { type Routine, startRoutine } from "../core/routine.js";
import type { StoreStats } from "./api.js";
import { DeviceFailure, pause } from "./device.js";
import { SlotState } from "./directory.js";
import type { Loader } from "./loader.js";
import type { Parts } from "./parts.js";
import { type Table, TableState } from "./table.js";

/** Blocks read at once. */
const PIECE_BLOCKS = 64;
/** A piece that is written to again and again is left for the next pass. */
const TRIES_MAX = 3;
/** Pause while no frame, or no memory, is to be had. */
const BUSY_PAUSE_MS = 50;
const REST_STEP_MS = 500;

export class Scrub {
  readonly #parts: Parts;
  readonly #loader: Loader;
  readonly #computed = new Uint32Array(PIECE_BLOCKS);
  #running = false;
  #stopped = false;
  #passes = 0;
  #lastPassEndedAt = 0;

  constructor(parts: Parts, loader: Loader) {
    this.#parts = parts;
    this.#loader = loader;
  }

  get running(): boolean {
    return this.#running;
  }

  stats(): StoreStats["scrub"] {
    return { running: this.#running, passes: this.#passes, lastPassEndedAt: this.#lastPassEndedAt };
  }

  /** One pass over all live slots, at most `pace` bytes per second. Harmless while one is running. */
  start(pace: number): void {
    if (this.#running || this.#stopped) return;
    this.#running = true;
    startRoutine(this.#pass(pace), (error) => {
      this.#running = false;
      if (error !== null && !(error instanceof DeviceFailure)) throw error;
      this.#parts.device.onIdle();
    });
  }

  stop(): void {
    this.#stopped = true;
  }

  *#pass(pace: number): Routine<void> {
    const { directory, device, unsettled } = this.#parts;
    const { pool, clock } = device.env;
    let memory = pool.allocate(PIECE_BLOCKS * BLOCK_BYTES);
    while (memory < 0) {
      yield* pause(device, BUSY_PAUSE_MS);
      if (this.#stopped) return;
      memory = pool.allocate(PIECE_BLOCKS * BLOCK_BYTES);
    }
    try {
      for (let slot = 0; slot < directory.slots && !this.#stopped; slot++) {
        if (directory.state[slot] !== SlotState.Live || unsettled.has(slot)) continue;
        const table = yield* this.#pin(slot);
        if (table === null) continue;
        try {
          yield* this.#scrubSlot(table, memory, pace);
        } finally {
          this.#parts.cache.unpin(table);
        }
      }
    } finally {
      pool.free(memory);
    }
    if (this.#stopped) return;
    this.#passes++;
    this.#lastPassEndedAt = clock.wall();
  }

  /** The slot's table, pinned; null when the slot is no longer there to be read. */
  *#pin(slot: number): Routine<Table | null> {
    const { cache, directory, unsettled, device } = this.#parts;
    for (;;) {
      device.check();
      if (this.#stopped || directory.state[slot] !== SlotState.Live || unsettled.has(slot)) return null;
      let table = cache.get(slot);
      if (table === null) {
        const seed = extentSeed(volumeSeed(directory.volume[slot]!), directory.extent[slot]!);
        table = cache.claim(slot, directory.alloc[slot]!, seed);
        if (table !== null) this.#loader.load(table);
      }
      if (table?.state === TableState.Lost) return null;
      if (table?.state === TableState.Ready) {
        table.pins++;
        return table;
      }
      yield* pause(device, table === null ? BUSY_PAUSE_MS : 1);
    }
  }

  *#scrubSlot(table: Table, memory: number, pace: number): Routine<void> {
    const blocks = table.entries.length;
    for (let first = 0; first < blocks && !this.#stopped && !table.doomed; first += PIECE_BLOCKS) {
      const count = Math.min(PIECE_BLOCKS, blocks - first);
      if (!hasEntries(table, first, count)) continue;
      yield* this.#scrubPiece(table, memory, first, count);
      yield* this.#rest(Math.ceil((count * BLOCK_BYTES * 1000) / pace));
    }
  }

  /** Pauses in short steps, so that a stop is noticed. */
  *#rest(ms: number): Routine<void> {
    for (let left = ms; left > 0 && !this.#stopped; left -= REST_STEP_MS) {
      yield* pause(this.#parts.device, Math.min(left, REST_STEP_MS));
    }
  }

  *#scrubPiece(table: Table, memory: number, first: number, count: number): Routine<void> {
    const { device, directory, bad } = this.#parts;
    const { layout, io, env } = device;
    for (let attempt = 0; attempt < TRIES_MAX && !table.doomed; attempt++) {
      const { changes, slot } = table;
      const quiet = table.inFlight === null;
      const offset = layout.slotsStart + slot * layout.slotBytes + first * BLOCK_BYTES;
      const result = yield* io.read(offset, memory, count * BLOCK_BYTES);
      if (!quiet || table.inFlight !== null || table.changes !== changes || table.doomed) continue;
      if (result >= 0) env.checksums.blockEntries(memory, count, table.seed, first, this.#computed, 0);
      for (let i = 0; i < count; i++) {
        const entry = table.entries[first + i]!;
        if (entry === ENTRY_ABSENT || (result >= 0 && entry === this.#computed[i])) continue;
        bad.add(directory.volume[slot]!, directory.layer[slot]!, directory.extent[slot]!, first + i);
      }
      return;
    }
  }
}

function hasEntries(table: Table, first: number, count: number): boolean {
  for (let block = first; block < first + count; block++)
    if (table.entries[block] !== ENTRY_ABSENT) return true;
  return false;
}
