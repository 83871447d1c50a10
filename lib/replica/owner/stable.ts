/**
 * Which extents were changed and are idle again, so that the members can be told that they are stable: every write
 * of them is complete on all in-sync members (DESIGN "Stable").
 *
 * Invariant: an extent is named only while no change of it is open and no copy of it is in doubt.
 */
import { STABLE_MAX } from "../limits.js";
import type { FlightDeck } from "./flight-deck.js";
import { STABLE_AFTER_LOOKS } from "./limits.js";

export class StableTracker {
  /** By extent, the look at which it was last seen changing. */
  readonly #changed = new Map<number, number>();
  #look = 0;

  touched(extent: number): void {
    this.#changed.set(extent, this.#look);
  }

  get size(): number {
    return this.#changed.size;
  }

  /** The next look: extents that have been idle long enough, at most STABLE_MAX, which are then forgotten. */
  idle(deck: FlightDeck, isInDoubt: (extent: number) => boolean): number[] {
    this.#look++;
    const idle: number[] = [];
    if (this.#changed.size === 0) return idle;
    const open = new Set(deck.openChanges());
    for (const [extent, look] of this.#changed) {
      if (idle.length === STABLE_MAX) break;
      if (this.#look - look <= STABLE_AFTER_LOOKS || open.has(extent) || isInDoubt(extent)) continue;
      idle.push(extent);
      this.#changed.delete(extent);
    }
    return idle;
  }
}
