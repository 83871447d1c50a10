/**
 * Pages of simulated devices: 4 KiB each, immutable once filled, counted by reference, so that the durable
 * image, the volatile one and every version between share what is equal. Page 0 is all zeros and free.
 */
import { assert } from "../../lib/core/assert.js";
import { BLOCK_BYTES } from "../../lib/core/limits.js";
import { simMemory } from "./memory.js";

export const ZERO_PAGE = 0;

class Arena {
  readonly #references: Uint32Array;
  readonly #free: Int32Array;
  #freeCount = 0;
  /** Pages above this were never used. */
  #fresh = 1;
  readonly #pages: number;

  constructor(pages: number) {
    this.#pages = pages;
    this.#references = new Uint32Array(pages);
    this.#free = new Int32Array(pages);
  }

  /** Forgets every page: a new run begins. */
  reset(): void {
    this.#references.fill(0, 0, this.#fresh);
    this.#freeCount = 0;
    this.#fresh = 1;
  }

  /** A page that the caller fills, held once. */
  take(): number {
    const page = this.#freeCount > 0 ? this.#free[--this.#freeCount]! : this.#fresh++;
    assert(page < this.#pages, "the simulated devices fit the arena");
    this.#references[page] = 1;
    return page;
  }

  hold(page: number): void {
    if (page !== ZERO_PAGE) this.#references[page] = this.#references[page]! + 1;
  }

  drop(page: number): void {
    if (page === ZERO_PAGE) return;
    const left = this.#references[page]! - 1;
    this.#references[page] = left;
    if (left === 0) this.#free[this.#freeCount++] = page;
  }

  /** Offset of a page in the simulation memory. */
  offsetOf(page: number): number {
    return simMemory().arenaStart + page * BLOCK_BYTES;
  }
}

let shared: Arena | null = null;

/** The arena of this process, emptied. */
export function freshArena(): Arena {
  if (shared === null) {
    const { arenaStart, arenaEnd } = simMemory();
    shared = new Arena(Math.floor((arenaEnd - arenaStart) / BLOCK_BYTES));
  }
  shared.reset();
  return shared;
}

export type { Arena };
