/**
 * One attempt to bring a stale member back (docs/architecture/replica.md "Reconcile, return, resync").
 *
 * Invariants
 *  1. From Copying on, every extent in which the member may differ from the in-sync ones is in `owed`; a change
 *     of any other extent goes to the member too.
 *  2. From Final on nothing is to do, and whatever changes or flushes is answered only when the member has
 *     answered too.
 *  3. A failure before Proposed ends the pass, and the member is as stale as before.
 */
import { assert } from "../../core/assert.js";
import type { InventoryEntry } from "../api.js";

export const PassStage = {
  /** Inventories are read; what changes meanwhile is noted. */
  Listing: 0,
  Copying: 1,
  /** Its final flush is under way. */
  Final: 2,
  /** A record that calls it in sync was sent, and may be chosen: there is no way back but another record. */
  Proposed: 3,
} as const;
export type PassStage = (typeof PassStage)[keyof typeof PassStage];

export class ResyncPass {
  stage: PassStage = PassStage.Listing;
  readonly owed = new Set<number>();
  /** What it has of extents that its seat does not hold: it had another seat once. They are freed. */
  readonly strange = new Set<number>();
  /**
   * Those of `owed` that have blocks which no in-sync member can read, and the time of the next try. What the member has of
   * them may be older, so there is no final flush before somebody has written them, or freed the extent.
   */
  readonly unreadable = new Map<number, number>();
  /** Its final flush is done. */
  flushed = false;
  /** Size of `owed` at its making. */
  total = 0;

  takes(extent: number): boolean {
    return this.stage !== PassStage.Listing && !this.owed.has(extent);
  }

  get isWaitedFor(): boolean {
    return this.stage >= PassStage.Final;
  }

  /** The seat holds fewer extents than before: the others are not owed any more. */
  keep(holds: (extent: number) => boolean): void {
    for (const extent of this.owed) if (!holds(extent)) this.owed.delete(extent);
  }

  /** A change of the extent is being sent, or it may differ among the valid members. */
  touched(extent: number): void {
    if (this.stage === PassStage.Listing) this.owed.add(extent);
  }

  /**
   * Stamped since it left ∪ its own hot ones ∪ what it lacks ∪ what it has and no valid member has ∪ another life of
   * the extent (a power loss took its Free and Alloc, and the slot of the life before is cool) ∪ what was changed
   * while the lists were read. `valid` is what valid members list of the extents that the member is to hold, of each at
   * least one; `own` what it lists itself of them.
   */
  listed(since: number, valid: readonly InventoryEntry[], own: readonly InventoryEntry[]): void {
    assert(this.stage === PassStage.Listing, "a pass lists once");
    const theirs = new Set<number>();
    const its = new Map<number, number>();
    for (const { extent, created } of own) its.set(extent, created);
    for (const { extent, generation, created } of valid) {
      theirs.add(extent);
      if (generation >= since || its.get(extent) !== created) this.owed.add(extent);
    }
    for (const { extent, hot } of own) if (hot || !theirs.has(extent)) this.owed.add(extent);
    this.total = this.owed.size;
    this.stage = PassStage.Copying;
  }
}
