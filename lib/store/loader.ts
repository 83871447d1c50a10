/** Loading of entry tables into the cache, a few at a time. */
import { type Routine, startRoutine } from "../core/routine.js";
import type { Parts } from "./parts.js";
import { type Table, TableState } from "./table.js";

/** Tables that are read at once, and their buffers. */
export const LOADS_MAX = 16;

export class Loader {
  readonly #parts: Parts;
  readonly #onLoaded: (table: Table) => void;
  readonly #buffers: number[];
  readonly #queue: Table[] = [];
  misses = 0;

  /** `buffers` are pool offsets of one table each. */
  constructor(parts: Parts, buffers: readonly number[], onLoaded: (table: Table) => void) {
    this.#parts = parts;
    this.#buffers = [...buffers];
    this.#onLoaded = onLoaded;
  }

  get busy(): boolean {
    return this.#buffers.length < LOADS_MAX;
  }

  /** Fills in the table that was just claimed; `onLoaded` follows, from the engine's batch. */
  load(table: Table): void {
    this.misses++;
    table.pins++;
    this.#queue.push(table);
    this.#startSome();
  }

  #startSome(): void {
    while (this.#queue.length > 0 && this.#buffers.length > 0) {
      const table = this.#queue.shift()!;
      const buffer = this.#buffers.pop()!;
      startRoutine(this.#loadOne(table, buffer), (error) => {
        this.#buffers.push(buffer);
        if (error !== null) this.#parts.device.failWith(error);
        this.#startSome();
        this.#parts.device.onIdle();
      });
    }
  }

  *#loadOne(table: Table, buffer: number): Routine<void> {
    const { tables, log, cache } = this.#parts;
    const image = yield* tables.load(table.slot, table.alloc, table.entries, buffer, false);
    table.state = image.found ? TableState.Ready : TableState.Lost;
    // A copy that was not usable is written anew with the next checkpoint.
    if (image.found && !image.agree && !table.doomed) table.dirtySince = log.nextSequence;
    this.#onLoaded(table);
    cache.unpin(table);
  }
}
