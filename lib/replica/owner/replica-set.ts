/**
 * One volume as its owner holds it on several nodes: what an activation has made, until it is released, fenced or
 * lost (docs/architecture/replica.md "Owner: write, shrink, stable").
 *
 * Invariants
 *  1. Nothing is answered without a lease, or after the end.
 *  2. A member gets operations only in a session in which it has promised this epoch, and only while it is the life
 *     of the node that has what it was sent before.
 *  3. Every change of the member list is a chosen record before any answer relies on it. One is proposed at a time,
 *     each under the next generation.
 *  4. The last in-sync copy of an extent is never taken out. Below minReplicas only one is that is not whole any more,
 *     and no change is answered before there are enough again.
 */
import { assert } from "../../core/assert.js";
import type { Ticker, TickTask, Timer } from "../../core/clock.js";
import { type ExtentIo, type ExtentOp, ExtentOpKind } from "../../core/extent-io.js";
import { generation as generationOf } from "../../core/ids.js";
import { Status } from "../../core/status.js";
import type { Ballot, NodeId, ReplicaSession, SessionListener } from "../api.js";
import type { Asking } from "../register.js";
import type { OwnerEnvironment, OwnerEvents } from "./api.js";
import { Background, type BackgroundHost } from "./background.js";
import { type DeckHost, FlightDeck } from "./flight-deck.js";
import { Holders, membersForAll, membersForChanges } from "./holders.js";
import {
  PROMISE_RETRY_MS,
  RECONNECT_GRACE_MS,
  SEQUENCES_PER_EPOCH,
  SILENCE_MAX_MS,
  SUPERVISE_MS,
} from "./limits.js";
import { Leaving, Member } from "./member.js";
import { type Activated, type Amendment, changeOf, type MemberLife } from "./owned-record.js";
import { type ClusterRecord, encodeClusterRecord, type MemberEntry, seatsOf } from "./record.js";
import { PassStage } from "./resync-pass.js";
import { type SeatAnswer, SeatChanges, type SeatHost } from "./seat-changes.js";
import { type MemberChange, planRecord } from "./shrink.js";
import { StableTracker } from "./stable.js";
import { listSurplus } from "./surplus.js";
import { waitText } from "./wait-text.js";

export class ReplicaSet implements ExtentIo, SessionListener, DeckHost, BackgroundHost, SeatHost, TickTask {
  readonly environment: OwnerEnvironment;
  readonly events: OwnerEvents;
  readonly volume: number;
  readonly epoch: number;
  readonly extentBlocks: number;
  readonly members: Member[];
  readonly deck: FlightDeck;
  readonly #ticker: Ticker;
  readonly #ballot: Ballot;
  readonly #background: Background;
  readonly #stable = new StableTracker();
  readonly #leaseMark: number;
  readonly #holders: Holders;
  readonly #seats: SeatChanges;
  #record: ClusterRecord;
  #sequence: number;
  #proposal: Asking | null = null;
  /** Members are to be taken out when those that stay have said that they are there. */
  #hearing = false;
  #over = false;
  #supervisor: Timer | null = null;
  readonly #timers = new Set<Timer>();
  #tickAsked = false;
  #passesEnded = false;
  #fullAt: number | null = null;
  /** Answers that wait for the lease, linked through `next`. */
  #firstLate: ExtentOp | null = null;
  #lastLate: ExtentOp | null = null;
  readonly #amendments: Amendment[] = [];
  #releasing: ((released: boolean) => void) | null = null;
  /** A record that says so was sent, and may be chosen. */
  #letGo = false;
  #closed: (() => void) | null = null;

  constructor(environment: OwnerEnvironment, ticker: Ticker, activated: Activated, events: OwnerEvents) {
    const { record, ballot } = activated;
    assert(record.epoch === ballot.epoch, "the record was chosen under the owner's ballot");
    this.environment = environment;
    this.events = events;
    this.#ticker = ticker;
    this.#ballot = ballot;
    this.#record = record;
    this.volume = record.id;
    this.epoch = ballot.epoch;
    this.extentBlocks = environment.extentBlocks;
    this.#sequence = Math.max(ballot.epoch * SEQUENCES_PER_EPOCH, activated.sequence);
    this.#holders = new Holders(record);
    this.#seats = new SeatChanges(this);
    this.members = record.members.map((entry, seat) => this.#seated(entry, seat));
    this.deck = new FlightDeck(this);
    this.#background = new Background(this, activated.reconcile);
    this.#leaseMark = environment.lease.mark();
    for (const member of this.members) this.#meet(member, activated.lives.get(member.node) ?? null);
    this.#supervise();
    if (activated.reconcile.size === 0) this.#background.reconciled();
    this.soon();
  }

  get record(): ClusterRecord {
    return this.#record;
  }

  get generation(): number {
    return this.#record.generation;
  }

  get over(): boolean {
    return this.#over;
  }

  get ending(): boolean {
    return this.#over || this.#releasing !== null;
  }

  /**
   * What it says needs the lease: also what no copy has to be asked for, like a hole. From the proposal on that says
   * that it let go the next owner does not wait for the lease any more, whether this one has heard of it or not.
   */
  get mayAnswer(): boolean {
    return !this.#over && !this.#letGo && this.environment.lease.holds(this.#leaseMark);
  }

  get changingRecord(): boolean {
    return this.#proposal !== null;
  }

  get isBusy(): boolean {
    return this.#background.isBusy;
  }

  get enough(): boolean {
    return this.#inSync >= membersForChanges(this.#record);
  }

  get membersForAll(): number {
    return membersForAll(this.#record);
  }

  get #inSync(): number {
    let count = 0;
    for (const member of this.members) if (member.inSync) count++;
    return count;
  }

  /** Extents that wait for their reconcile, that members are owed, and that members have though they are others' now. */
  get work(): { readonly reconcile: number; readonly resync: number; readonly surplus: number } {
    let resync = 0;
    let surplus = 0;
    for (const member of this.members) {
      resync += member.pass?.owed.size ?? 0;
      // What is not known is at least something to do.
      if (member.inSync) surplus += member.surplus?.size ?? 1;
    }
    return { reconcile: this.#background.toReconcile, resync, surplus };
  }

  /** What the volume waits for, for people; null: nothing. */
  get waiting(): string | null {
    return waitText(this, this.#record, this.environment.lease.holds(this.#leaseMark), this.changingRecord);
  }

  // ---- Operations --------------------------------------------------------------------------------------

  submit(op: ExtentOp): void {
    op.next = null;
    this.deck.submit(op);
  }

  nextSequence(): number {
    return ++this.#sequence;
  }

  isBlocked(op: ExtentOp): boolean {
    if (this.#releasing !== null) return true;
    // What a member that is LOSSY lacks it cannot flush: it must have got it back.
    if (op.kind === ExtentOpKind.Flush)
      return this.#background.toReconcile > 0 && this.members.some(({ inSync, lossy }) => inSync && lossy);
    if (!this.#background.isUnreconciled(op.extent)) return false;
    this.#background.demand(op.extent);
    this.soon();
    return true;
  }

  changing(op: ExtentOp): void {
    this.touched(op.extent);
    for (const member of this.members) if (member.holds(op.extent)) member.pass?.touched(op.extent);
  }

  touched(extent: number): void {
    this.#stable.touched(extent);
  }

  answered(op: ExtentOp): void {
    op.next = null;
    if (this.#firstLate === null && this.environment.lease.holds(this.#leaseMark)) {
      op.listener.extentDone(op);
    } else {
      if (this.#lastLate === null) this.#firstLate = op;
      else this.#lastLate.next = op;
      this.#lastLate = op;
    }
    if (this.#releasing !== null) this.soon();
  }

  #answerLate(): void {
    while (this.#firstLate !== null && !this.#over && this.environment.lease.holds(this.#leaseMark)) {
      const op = this.#firstLate;
      this.#firstLate = op.next;
      if (this.#firstLate === null) this.#lastLate = null;
      op.next = null;
      op.listener.extentDone(op);
    }
  }

  doubt(extent: number): void {
    this.#background.doubt(extent);
  }

  isUndecided({ extent, block, blocks }: ExtentOp): boolean {
    return this.#background.isUndecided(extent, block, blocks);
  }

  rotten(member: Member, extent: number): boolean {
    return this.#background.rotten(member, extent);
  }

  retryLater(): void {
    this.#fullAt ??= this.environment.clock.now();
  }

  putRight(member: Member): void {
    const { session } = member;
    session?.reconciled(this.volume, this.epoch, (done) => {
      if (member.session !== session || this.#over) return;
      if (done) member.lossy = false;
      else this.#later(PROMISE_RETRY_MS, () => this.#background.reconciled());
    });
  }

  // ---- Members -----------------------------------------------------------------------------------------

  #seated(entry: MemberEntry, seat: number): Member {
    const { environment } = this;
    const isLocal = entry.node === environment.self.node;
    return new Member(entry, seat, environment.nameOf(entry.node), isLocal, this.#holders);
  }

  /** `life`: in which it has what it was sent; null: none. */
  #meet(member: Member, life: MemberLife | null): void {
    if (life !== null) {
      member.bootId = life.bootId;
      member.incarnation = life.incarnation;
      member.lossy = life.lossy;
    }
    const { links, clock } = this.environment;
    links.watch(member.node, this);
    member.goneAt = clock.now();
    member.goneWall = clock.wall();
    const session = links.session(member.node);
    if (session !== null) this.#opened(member, session);
  }

  seat(entry: MemberEntry, seat: number): void {
    this.#holders.follow(this.#record);
    const fresh = this.#seated(entry, seat);
    this.members[seat] = fresh;
    this.deck.recordChanged();
    this.#meet(fresh, null);
  }

  unseat(member: Member): void {
    this.environment.links.unwatch(member.node, this);
    member.session = null;
    member.ready = false;
  }

  seatGone(): void {
    this.#holders.follow(this.#record);
    this.members.pop();
    this.deck.recordChanged();
  }

  seatCounts(member: Member): void {
    this.#holders.follow(this.#record);
    for (const { pass, index } of this.members) {
      if (pass === null || index === member.index) continue;
      // What it lists is chosen by what it was to hold.
      if (pass.stage === PassStage.Listing) this.endPass(this.members[index]!, "another seat has joined");
      else pass.keep((extent) => this.#holders.holds(index, extent));
    }
    this.#joined(member);
    this.deck.recordChanged();
    for (const one of this.members) if (one.inSync && one !== member) this.#list(one);
  }

  #memberOf(session: ReplicaSession): Member {
    return this.members.find(({ node }) => node === session.node)!;
  }

  sessionOpened(session: ReplicaSession): void {
    if (!this.#over) this.#opened(this.#memberOf(session), session);
  }

  #opened(member: Member, session: ReplicaSession): void {
    const greeting = session.greeting!;
    member.session = session;
    member.ready = false;
    member.leaseLostAt = null;
    if (member.inSync || member.pass?.stage === PassStage.Proposed) {
      // The same process may be LOSSY still, because of other volumes.
      const isExpected = member.lossy || !greeting.lossy || member.incarnation === greeting.incarnation;
      const isSameLife = member.bootId === greeting.bootId && isExpected;
      // Whatever it was to leave for is over; that it is not whole is not, until a record says so.
      if (member.leaving !== Leaving.Rebooted) member.leaving = null;
      if (!isSameLife) this.leave(member, Leaving.Rebooted);
    }
    member.incarnation = greeting.incarnation;
    this.#askPromise(member, session);
  }

  #askPromise(member: Member, session: ReplicaSession): void {
    this.#ask(member, session, () => this.#promised(member, session));
  }

  /** Also asked of one that has promised: its answer says that it is there, in the same life. */
  #ask(member: Member, session: ReplicaSession, promised: () => void): void {
    if (member.session !== session || this.#over) return;
    const askedAt = this.environment.clock.now();
    member.askedAt = askedAt;
    session.promise(this.volume, this.#ballot, (answer) => {
      if (member.session !== session || this.#over) return;
      if (answer.kind === "promised") {
        member.heardAt = askedAt;
        promised();
      } else if (answer.kind === "refused") this.#end(`epoch ${answer.promised.epoch} has taken over`);
      else this.#later(PROMISE_RETRY_MS, () => this.#ask(member, session, promised));
    });
  }

  #promised(member: Member, session: ReplicaSession): void {
    member.ready = true;
    member.wanted = false;
    this.#background.unstall();
    member.surplus = null;
    member.listing = null;
    if (member.inSync && member.leaving === null) {
      this.#list(member);
    } else if (!member.inSync && member.pass === null) {
      member.lossy = session.greeting!.lossy;
      member.leaving = null;
    }
    this.deck.pumpAll();
    this.soon();
  }

  #list(member: Member): void {
    listSurplus(this, member, ({ extent, hot }, surplus) => {
      if (!member.holds(extent)) surplus.add(extent);
      else if (hot) this.touched(extent);
    });
  }

  sessionLost(session: ReplicaSession): void {
    const member = this.#memberOf(session);
    if (member.session !== session) return;
    member.session = null;
    member.ready = false;
    member.goneAt = this.environment.clock.now();
    member.goneWall = this.environment.clock.wall();
    if (member.pass !== null && member.pass.stage !== PassStage.Proposed)
      this.endPass(member, "its connection is gone");
    // In time to come back before the grace is over, or not.
    this.#later(RECONNECT_GRACE_MS, () => this.#look());
    if (this.#over) this.returned();
  }

  leave(member: Member, why: Leaving): void {
    const { leaving } = member;
    if (leaving !== null && (why !== Leaving.Replaced || leaving === why || leaving === Leaving.Rebooted))
      return;
    member.leaving = why;
    member.leavingAt = this.environment.clock.now();
    this.soon();
  }

  noLease(member: Member): void {
    member.paused = true;
    member.leaseLostAt ??= this.environment.clock.now();
  }

  /** Operations are answered LinkLost before the end of the session is told: none may be sent on it between. */
  linkLost(member: Member): void {
    member.ready = false;
  }

  /** A node that was started anew, or heard of a newer owner, refuses until it is asked for its promise. */
  fencedBy(member: Member): void {
    const { session } = member;
    if (session !== null && session.fencedBy > this.epoch) {
      this.#end(`epoch ${session.fencedBy} has taken over`);
    } else if (session !== null && member.ready) {
      member.ready = false;
      this.#askPromise(member, session);
    }
  }

  endPass(member: Member, _why: string): void {
    if (member.pass === null) return;
    member.pass = null;
    this.#passesEnded = true;
    this.soon();
  }

  // ---- The record --------------------------------------------------------------------------------------

  #propose(): void {
    if (this.#over || this.#proposal !== null) return;
    const plan = planRecord(this.members.slice(0, seatsOf(this.#record)), {
      forChanges: membersForChanges(this.#record),
      forAll: this.membersForAll,
      isInDoubt: this.#background.toReconcile > 0,
    });
    if (plan.kind === "lost") this.#end("every copy came back without what it had not flushed");
    else if (plan.kind === "none") this.#amendNext();
    else if (plan.kind === "change") this.#proposeMembers(plan);
    this.#hearing = plan.kind === "ask";
    if (plan.kind === "ask") for (const member of plan.members) this.#hear(member, plan.since);
  }

  /** It is to say that it is there. One without a session, or that is to promise anyway, is heard then. */
  #hear(member: Member, since: number): void {
    if (member.session === null || !member.ready || member.askedAt >= since) return;
    this.#ask(member, member.session, () => this.soon());
  }

  #proposeMembers(plan: MemberChange): void {
    const next = generationOf(this.#record.generation + 1);
    for (const member of plan.joining) member.pass!.stage = PassStage.Proposed;
    const members = this.members.map((member): MemberEntry => {
      if (plan.leaving.includes(member)) return { node: member.node, state: "stale", since: next };
      if (plan.joining.includes(member)) return { node: member.node, state: "insync", since: 0 };
      return member.entry;
    });
    this.propose({ members }, () => {
      for (const member of plan.leaving) this.#left(member, next);
      for (const member of plan.joining) this.#joined(member);
      this.deck.recordChanged();
    });
  }

  /** Changes the record between two changes of the member list; Amendment says what `done` is told. */
  amend(edit: Amendment["edit"], done: Amendment["done"]): void {
    if (this.ending) done(null);
    else this.#amendments.push({ edit, done });
    this.soon();
  }

  #amendNext(): void {
    const amendment = this.#amendments[0];
    if (amendment === undefined) return;
    const change = changeOf(amendment, this.#record);
    if (change === null) {
      this.#amendments.shift();
      this.soon();
      return;
    }
    this.propose(change, (record) => {
      this.#amendments.shift();
      this.deck.recordChanged();
      amendment.done(record);
    });
  }

  /** A config node has promised `epoch`: who is not its owner says nothing more. */
  learn(epoch: number): void {
    if (epoch > this.epoch) this.#end(`epoch ${epoch} has taken over`);
  }

  /** Gives a member's seat to another node, or up while it joins (SeatChanges.replace). */
  replace(old: NodeId, next: NodeId | null, done: SeatAnswer): void {
    this.#seats.replace(old, next, done);
  }

  /** Gives the volume a further seat (SeatChanges.grow). */
  grow(next: NodeId, done: SeatAnswer): void {
    this.#seats.grow(next, done);
  }

  /** Has the present record chosen with this change, under the next generation. One is proposed at a time. */
  propose(change: Partial<ClusterRecord>, chosen: (record: ClusterRecord) => void): void {
    const record: ClusterRecord = {
      ...this.#record,
      ...change,
      generation: generationOf(this.#record.generation + 1),
      version: this.#record.version + 1,
    };
    const accepted = {
      ballot: this.#ballot,
      generation: record.generation,
      bytes: encodeClusterRecord(record),
    };
    this.#proposal = this.environment.register.accept(this.volume, accepted, (outcome) => {
      this.#proposal = null;
      if (this.#over) return;
      if (outcome.kind !== "chosen") {
        const why =
          outcome.kind === "refused" ? `epoch ${outcome.promised.epoch} has taken over` : "its name is taken";
        this.#end(why);
        return;
      }
      this.#record = record;
      chosen(record);
      this.soon();
    });
  }

  #left(member: Member, since: number): void {
    member.inSync = false;
    member.since = since;
    this.events.left(member.node, member.leaving ?? Leaving.Gone);
    // A session that promised can be resynced over; one that failed or was full is asked again later.
    if (member.leaving === Leaving.Failed) member.ready = false;
    if (member.session !== null) member.lossy = member.session.greeting!.lossy;
    member.leaving = null;
    member.leaseLostAt = null;
    member.bootId = null;
    member.surplus = null;
    member.listing = null;
  }

  #joined(member: Member): void {
    member.inSync = true;
    member.pass = null;
    this.events.joined(member.node);
    if (member.session === null || !member.ready) return;
    if (member.lossy) this.putRight(member);
    this.#list(member);
  }

  // ---- Looking after it --------------------------------------------------------------------------------

  #supervise(): void {
    this.#supervisor = this.environment.clock.setTimer(SUPERVISE_MS, () => {
      if (this.#over) return;
      this.#supervise();
      this.#look();
    });
  }

  #look(): void {
    if (this.#over) return;
    const now = this.environment.clock.now();
    this.#answerLate();
    for (const member of this.members) this.#lookAt(member, now);
    this.#tellStable();
    if (this.#fullAt !== null) {
      this.#fullAt = null;
      for (const member of this.members) if (member.leaving === Leaving.Full) member.leaving = null;
      this.deck.retryFull();
    }
    this.#background.look();
    this.deck.pumpAll();
    this.soon();
  }

  #lookAt(member: Member, now: number): void {
    const { session } = member;
    member.paused = false;
    if (this.#proposal === null && !this.#hearing && member.inSync) member.tryAgain();
    if (session !== null && session.silentSince !== null && now - session.silentSince >= SILENCE_MAX_MS) {
      if (member.inSync) this.leave(member, Leaving.Silent);
      session.close();
      return;
    }
    const isAwaited = member.wanted || this.deck.waitsFor(member);
    if (session === null && member.inSync && isAwaited && now - member.goneAt >= RECONNECT_GRACE_MS)
      this.leave(member, Leaving.Gone);
    if (member.leaseLostAt !== null && now - member.leaseLostAt >= SILENCE_MAX_MS && member.inSync)
      this.leave(member, Leaving.NoLease);
    if (member.inSync && member.usable && member.surplus === null && member.listing === null)
      this.#list(member);
    const isStaying = !this.#seats.isReplacing(member);
    if (!member.inSync && member.usable && member.pass === null && isStaying)
      this.#background.beginPass(member);
  }

  #tellStable(): void {
    const idle = this.#stable.idle(this.deck, (extent) => this.#background.isInDoubt(extent));
    if (idle.length === 0) return;
    const sequences = idle.map(() => this.#sequence);
    for (const member of this.members) {
      if (member.inSync && member.usable) member.session!.stable(this.volume, this.epoch, 0, idle, sequences);
    }
  }

  /** Looks at the end of the batch at what has changed. */
  soon(): void {
    if (this.#tickAsked || this.#over) return;
    this.#tickAsked = true;
    this.#ticker.atTickEnd(this);
  }

  tick(): void {
    this.#tickAsked = false;
    if (this.#over) return;
    if (this.#passesEnded) {
      this.#passesEnded = false;
      this.deck.passEnded();
    }
    this.#propose();
    this.#seats.proceed();
    this.#proceedRelease();
    this.#background.kick();
  }

  #later(delayMs: number, run: () => void): void {
    const timer = this.environment.clock.setTimer(delayMs, () => {
      this.#timers.delete(timer);
      run();
    });
    this.#timers.add(timer);
  }

  // ---- The end -----------------------------------------------------------------------------------------

  /**
   * Lets the volume go in order: no further operation is begun; when all are answered, a record says that nobody
   * owns it, and the next owner need not wait. `done(false)`: the owner was over before.
   */
  release(done: (released: boolean) => void): void {
    assert(this.#releasing === null, "released once");
    if (this.#over) {
      done(false);
      return;
    }
    this.#releasing = done;
    this.soon();
  }

  #proceedRelease(): void {
    const done = this.#releasing;
    if (done === null || this.deck.begun > 0 || this.#firstLate !== null) return;
    if (this.#proposal !== null || this.#background.isBusy || this.#amendments.length > 0) return;
    this.#letGo = true;
    const owner = { ...this.#record.owner, released: true, settled: this.#background.isSettled };
    this.propose({ owner }, () => {
      this.#stop();
      done(true);
    });
  }

  #end(reason: string): void {
    if (this.#over) return;
    this.#stop();
    this.events.ended(reason);
    this.#releasing?.(false);
  }

  #stop(): void {
    this.#over = true;
    this.#supervisor?.cancel();
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#proposal?.cancel();
    this.#seats.end();
    for (const { done } of this.#amendments.splice(0)) done(null);
  }

  /**
   * Gives every operation back with Shutdown, when no session has any part of it, and then the memory. For the
   * volume's own books: nobody outside may be told.
   */
  close(done: () => void): void {
    this.#stop();
    this.#closed = done;
    this.returned();
  }

  returned(): void {
    const done = this.#closed;
    if (done === null || this.deck.inFlight > 0 || this.#background.isBusy) return;
    this.#closed = null;
    for (const member of this.members) this.environment.links.unwatch(member.node, this);
    this.deck.abandon(Status.Shutdown);
    for (let op = this.#firstLate; op !== null; op = this.#firstLate) {
      this.#firstLate = op.next;
      op.next = null;
      op.status = Status.Shutdown;
      op.listener.extentDone(op);
    }
    this.#background.free();
    done();
  }
}
