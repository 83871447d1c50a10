/**
 * Work on whole extents behind the volume's back, one extent at a time: reconcile (what is asked for first), repair
 * of bad blocks, resync of members that have come back, freeing of what has become another seat's.
 *
 * Invariants
 *  1. While an extent is worked on, nothing of the volume is in flight to it; what comes meanwhile waits.
 *  2. An extent counts as reconciled only when all members that are in sync at the end were equalised and
 *     stamped under the generation of the end. A member that left on the way would otherwise not find it.
 *  3. Of a block that differs, and that no copy can be read of, no copy is chosen: it stays undecided. It holds nothing else
 *     up; what one copy should be able to read of it again is answered only after all of them got that.
 *  4. Resync begins when nothing is left to reconcile; an extent that comes to be in doubt meanwhile is to do
 *     again.
 */
import { assert } from "../../core/assert.js";
import { type Routine, startRoutine } from "../../core/routine.js";
import { Status } from "../../core/status.js";
import type { InventoryEntry } from "../api.js";
import type { OwnerEnvironment, OwnerEvents } from "./api.js";
import { Copier, type CopyHost } from "./copy.js";
import type { FlightDeck } from "./flight-deck.js";
import { REPAIRS_MAX, RESYNC_PAUSE_MAX_MS, UNREADABLE_RETRY_MS } from "./limits.js";
import { Leaving, type Member } from "./member.js";
import { PassStage, ResyncPass } from "./resync-pass.js";
import { type RotHost, RotRounds } from "./rot-rounds.js";

export interface BackgroundHost extends Omit<CopyHost, "refused" | "absent" | "lost"> {
  readonly environment: OwnerEnvironment;
  readonly events: OwnerEvents;
  readonly members: readonly Member[];
  readonly deck: FlightDeck;
  /** A record is being proposed. */
  readonly changingRecord: boolean;
  /** Members that are enough to have a copy of every extent. */
  readonly membersForAll: number;
  leave(member: Member, why: Leaving): void;
  noLease(member: Member): void;
  linkLost(member: Member): void;
  fencedBy(member: Member): void;
  endPass(member: Member, why: string): void;
  touched(extent: number): void;
  /** The member has, flushed, what a power loss may have taken from it: its LOSSY can end. */
  putRight(member: Member): void;
  /** Look again at the end of the batch. */
  soon(): void;
  /** Work has ended after the owner's end. */
  returned(): void;
}

export class Background implements CopyHost, RotHost {
  readonly #host: BackgroundHost;
  readonly #reconcile = new Set<number>();
  readonly #demanded = new Set<number>();
  /** Blocks that differ and that no copy could be read of, by extent, of those that are otherwise reconciled. */
  readonly #undecided = new Map<number, ReadonlySet<number>>();
  /** By extent, the members that have bad blocks in it. */
  readonly #repairs = new Map<number, Set<Member>>();
  readonly #rounds: RotRounds;
  /** Members that have got back what a power loss may have taken, not flushed yet. */
  readonly #toPutRight = new Set<Member>();
  #copier: Copier | null = null;
  #busy = false;
  /** The last piece of work could not be done: the next one begins when time has passed or a member can be used. */
  #stalled = false;
  #pausedUntil = 0;

  constructor(host: BackgroundHost, reconcile: Iterable<number>) {
    this.#host = host;
    this.#rounds = new RotRounds(this);
    for (const extent of reconcile) this.#reconcile.add(extent);
  }

  /** Extents that wait for their reconcile. */
  get toReconcile(): number {
    return this.#reconcile.size;
  }

  /** All in-sync members are equal in every extent, once nothing of the volume is open. */
  get isSettled(): boolean {
    if (this.#undecided.size > 0) return false;
    return this.#reconcile.size === 0 && this.#inSync().every(({ lossy }) => !lossy);
  }

  isUnreconciled(extent: number): boolean {
    return this.#reconcile.has(extent);
  }

  /** Its copies may differ in some block: who comes next is to reconcile it, so it is not told to be stable. */
  isInDoubt(extent: number): boolean {
    return this.#reconcile.has(extent) || this.#undecided.has(extent);
  }

  /** No copy of one of these blocks was chosen yet. It may have been written since; the next reconcile sees that. */
  isUndecided(extent: number, block: number, blocks: number): boolean {
    if (this.#undecided.size === 0) return false;
    for (const one of this.#undecided.get(extent) ?? [])
      if (one >= block && one < block + blocks) return true;
    return false;
  }

  /** Somebody waits for this extent. */
  demand(extent: number): void {
    this.#demanded.add(extent);
  }

  /** Valid members may differ in the extent. */
  doubt(extent: number): void {
    this.#reconcile.add(extent);
    for (const member of this.#host.members) {
      const { pass } = member;
      if (pass === null || !member.holds(extent)) continue;
      if (pass.stage <= PassStage.Copying) pass.owed.add(extent);
      else if (pass.stage === PassStage.Final) this.#host.endPass(member, "members came to differ");
    }
    this.#host.soon();
  }

  /** False: too many extents wait for their repair. */
  rotten(member: Member, extent: number): boolean {
    let members = this.#repairs.get(extent);
    if (members === undefined) {
      if (this.#repairs.size >= REPAIRS_MAX) return false;
      members = new Set();
      this.#repairs.set(extent, members);
    }
    members.add(member);
    this.#host.soon();
    return true;
  }

  get isBusy(): boolean {
    return this.#busy;
  }

  /** What could not be done may be possible now. */
  unstall(): void {
    this.#stalled = false;
  }

  /** Some time has passed. */
  look(): void {
    this.unstall();
    this.#rounds.look();
  }

  /** Begins the next piece of work, if there is any that can be done now. */
  kick(): void {
    const host = this.#host;
    if (this.#busy || this.#stalled || host.over || host.changingRecord) return;
    if (this.#copier === null) {
      this.#copier = Copier.make(this, host.environment.pool);
      if (this.#copier === null) return;
    }
    const work = this.#next(this.#copier);
    if (work === null) return;
    this.#busy = true;
    startRoutine(work, (error) => {
      if (error !== null) throw error;
      this.#busy = false;
      if (host.over) host.returned();
      else host.soon();
    });
  }

  free(): void {
    assert(!this.#busy, "background work has ended");
    this.#copier?.end();
    this.#copier = null;
  }

  #next(copier: Copier): Routine<void> | null {
    for (const extent of this.#demanded) {
      this.#demanded.delete(extent);
      if (this.#reconcile.has(extent)) return this.#reconcileOne(copier, extent);
    }
    for (const [extent, members] of this.#repairs) return this.#repairOne(copier, extent, members);
    for (const extent of this.#reconcile) return this.#reconcileOne(copier, extent);
    for (const member of this.#toPutRight) {
      if (!member.inSync || !member.lossy) this.#toPutRight.delete(member);
      else if (member.usable) return this.#flushAndPutRight(copier, member);
    }
    if (this.#host.environment.clock.now() < this.#pausedUntil) return null;
    for (const member of this.#host.members) {
      const { pass } = member;
      if (pass === null || pass.stage !== PassStage.Copying || !member.usable) continue;
      for (const extent of pass.strange) return this.#freeStrange(copier, member, pass, extent);
      const extent = this.#owedNow(pass);
      if (extent >= 0) return this.#resyncOne(copier, member, pass, extent);
      if (pass.owed.size === 0) return this.#finalFlush(copier, member, pass);
    }
    for (const member of this.#host.members) {
      if (!member.inSync || !member.usable) continue;
      for (const extent of member.surplus ?? []) return this.#freeSurplus(copier, member, extent);
    }
    return null;
  }

  /** The next extent of a pass; −1: there is none, or none that can be read yet. */
  #owedNow({ owed, unreadable }: ResyncPass): number {
    const now = this.#host.environment.clock.now();
    for (const extent of owed) if ((unreadable.get(extent) ?? now) <= now) return extent;
    return -1;
  }

  #inSync(): Member[] {
    return this.#host.members.filter(({ inSync }) => inSync);
  }

  /** In-sync members that hold the extent. */
  #copiesOf(extent: number): Member[] {
    return this.#host.members.filter((member) => member.inSync && member.holds(extent));
  }

  *#alone(extent: number, work: Routine<void>): Routine<void> {
    const { deck } = this.#host;
    deck.exclusive = extent;
    yield (resume) => deck.whenDrained(() => resume(0));
    yield* work;
    deck.exclusive = -1;
    if (!this.#host.over) deck.pumpAll();
  }

  // ---- Reconcile ---------------------------------------------------------------------------------------

  *#reconcileOne(copier: Copier, extent: number): Routine<void> {
    // Behind the others until it is done, so that one that cannot be done does not hold them up.
    this.#reconcile.delete(extent);
    this.#reconcile.add(extent);
    yield* this.#alone(extent, this.#reconcileAlone(copier, extent));
    if (this.#reconcile.size === 0) this.reconciled();
  }

  /** Nothing is left to reconcile: in-sync members lack nothing of the volume. */
  reconciled(): void {
    for (const member of this.#inSync()) if (member.lossy) this.#toPutRight.add(member);
  }

  *#flushAndPutRight(copier: Copier, member: Member): Routine<void> {
    if (yield* copier.flush(member)) {
      this.#toPutRight.delete(member);
      this.#host.putRight(member);
    } else {
      this.#stalled = true;
    }
  }

  *#reconcileAlone(copier: Copier, extent: number): Routine<void> {
    const host = this.#host;
    const { generation } = host;
    const members = this.#copiesOf(extent);
    // Whole ones before those that a power loss may have taken something from.
    const sources = [...members].sort((a, b) => Number(a.lossy) - Number(b.lossy));
    const equal = yield* copier.equalise(extent, sources, sources.slice(1), members);
    if (!equal || host.over || host.generation !== generation) {
      this.#stalled = true;
      return;
    }
    this.#reconcile.delete(extent);
    if (copier.unreadable.size > 0) this.#undecided.set(extent, new Set(copier.unreadable));
    else this.#undecided.delete(extent);
    host.touched(extent);
  }

  // ---- Repair ------------------------------------------------------------------------------------------

  *#repairOne(copier: Copier, extent: number, members: Set<Member>): Routine<void> {
    this.#repairs.delete(extent);
    yield* this.#alone(extent, this.#repairAlone(copier, extent, members));
    if (!this.#host.over) this.#host.deck.healed(extent);
  }

  *#repairAlone(copier: Copier, extent: number, members: Set<Member>): Routine<void> {
    const host = this.#host;
    // What no copy is chosen of yet is not known to be good anywhere.
    if (this.#reconcile.has(extent)) return;
    for (const member of members) {
      if (!member.inSync || !member.holds(extent)) continue;
      const others = this.#copiesOf(extent).filter((other) => other !== member);
      const blocks = yield* copier.repair(extent, member, others);
      if (blocks > 0) host.events.repaired(member.node, extent, blocks);
      if (copier.unreadable.size > 0) this.#rounds.hopeless(member, extent);
    }
    host.touched(extent);
  }

  // ---- Resync ------------------------------------------------------------------------------------------

  /** Reads the lists that tell what a stale member has to get. */
  beginPass(member: Member): void {
    const host = this.#host;
    const sources = host.members.filter((one) => one.inSync && one.usable);
    if (sources.length < host.membersForAll || this.#reconcile.size > 0) return;
    const pass = new ResyncPass();
    member.pass = pass;
    for (const extent of host.deck.openChanges()) if (member.holds(extent)) pass.touched(extent);
    const valid: InventoryEntry[] = [];
    const own: InventoryEntry[] = [];
    let open = sources.length + 1;
    const listed = (complete: boolean): void => {
      if (member.pass !== pass) return;
      if (!complete) {
        host.endPass(member, "an inventory could not be read");
        return;
      }
      open--;
      if (open > 0) return;
      pass.listed(member.since, valid, own);
      // What is open changes extents that are to do, so nothing has to be sent to it now.
      host.soon();
    };
    const list = (of: Member, entries: InventoryEntry[]): void => {
      const visit = (entry: InventoryEntry): void => {
        // What a source has of extents that are others' now says nothing about them.
        if (!of.holds(entry.extent)) {
          if (of === member) pass.strange.add(entry.extent);
        } else if (member.holds(entry.extent)) entries.push(entry);
      };
      of.session!.inventory(host.volume, host.epoch, visit, listed);
    };
    for (const source of sources) list(source, valid);
    list(member, own);
  }

  *#resyncOne(copier: Copier, member: Member, pass: ResyncPass, extent: number): Routine<void> {
    yield* this.#inTurns(this.#alone(extent, this.#resyncAlone(copier, member, pass, extent)));
  }

  *#inTurns(work: Routine<void>): Routine<void> {
    const { clock } = this.#host.environment;
    const begun = clock.now();
    yield* work;
    // Half of the time is the volume's, while somebody uses it.
    if (this.#host.deck.open > 0) {
      const now = clock.now();
      this.#pausedUntil = now + Math.min(RESYNC_PAUSE_MAX_MS, now - begun);
      clock.setTimer(this.#pausedUntil - now, () => this.#host.soon());
    }
  }

  /** Nobody asks the member for this extent, so nothing of it is in flight there. */
  *#freeStrange(copier: Copier, member: Member, pass: ResyncPass, extent: number): Routine<void> {
    if (yield* copier.free(extent, member)) pass.strange.delete(extent);
    else this.#stalled = true;
  }

  *#freeSurplus(copier: Copier, member: Member, extent: number): Routine<void> {
    assert(!member.holds(extent), "only what is another seat's goes");
    yield* this.#inTurns(this.#freeDrained(copier, member, extent));
  }

  /** What was sent to the member before the seats changed is over first; it is sent nothing more of the extent. */
  *#freeDrained(copier: Copier, member: Member, extent: number): Routine<void> {
    yield* this.#alone(extent, nothing());
    if (yield* copier.free(extent, member)) member.surplus?.delete(extent);
    else this.#stalled = true;
  }

  *#resyncAlone(copier: Copier, member: Member, pass: ResyncPass, extent: number): Routine<void> {
    const host = this.#host;
    const sources = this.#copiesOf(extent).filter(({ usable }) => usable);
    this.#stalled = true;
    if (sources.length === 0 || member.pass !== pass || this.#reconcile.has(extent)) return;
    const { generation } = host;
    const equal = yield* copier.equalise(extent, sources, [member], [member]);
    if (!equal || host.over || member.pass !== pass || host.generation !== generation) return;
    this.#stalled = false;
    if (copier.unreadable.size > 0) {
      pass.unreadable.set(extent, host.environment.clock.now() + UNREADABLE_RETRY_MS);
      return;
    }
    pass.unreadable.delete(extent);
    pass.owed.delete(extent);
    host.deck.taken(member, extent);
    host.touched(extent);
  }

  *#finalFlush(copier: Copier, member: Member, pass: ResyncPass): Routine<void> {
    const host = this.#host;
    pass.stage = PassStage.Final;
    host.deck.addressAll(member);
    const flushed = yield* copier.flush(member);
    if (member.pass !== pass || host.over) return;
    pass.flushed = flushed;
    // The life that has everything. Another one that comes while the record is being chosen does not.
    member.bootId = member.session?.greeting?.bootId ?? null;
    if (flushed) host.soon();
    else host.endPass(member, "its final flush failed");
  }

  // ---- CopyHost, RotHost ----------------------------------------------------------------------------------------

  get members(): readonly Member[] {
    return this.#host.members;
  }
  now(): number {
    return this.#host.environment.clock.now();
  }
  get volume(): number {
    return this.#host.volume;
  }
  get epoch(): number {
    return this.#host.epoch;
  }
  get generation(): number {
    return this.#host.generation;
  }
  get extentBlocks(): number {
    return this.#host.extentBlocks;
  }
  get over(): boolean {
    return this.#host.over;
  }
  nextSequence(): number {
    return this.#host.nextSequence();
  }

  refused(member: Member, status: Status, badBlock: number): void {
    const host = this.#host;
    const isRot = status === Status.Io && badBlock >= 0;
    if (status === Status.LinkLost) host.linkLost(member);
    if (status === Status.Fenced) host.fencedBy(member);
    else if (status === Status.NoLease) host.noLease(member);
    else if (isRot) return;
    else if (!member.inSync) host.endPass(member, `status ${status}`);
    else if (status === Status.LinkLost) this.absent(member);
    else if (status === Status.NoSpace) host.leave(member, Leaving.Full);
    else if (status !== Status.Outdated) host.leave(member, Leaving.Failed);
  }

  /** Background work waits for it, or, if it is only being resynced, begins anew when it can be used again. */
  absent(member: Member): void {
    if (member.inSync) member.wanted = true;
    else this.#host.endPass(member, "it cannot be used");
  }

  lost(member: Member, extent: number, block: number): void {
    this.#host.events.unrepairable(member.node, extent, block);
  }
}

function* nothing(): Routine<void> {
  // Only what went before is waited for.
}
