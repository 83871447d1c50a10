/**
 * The operations of one volume that are open: changes go to every member that takes them, reads to one copy.
 *
 * Invariants
 *  1. An operation is answered once, when no session has any part of it: its memory is the asker's again.
 *  2. A change is answered Ok only when every required member has answered Ok under the present generation, and
 *     as many members are in sync as the volume asks for.
 *  3. A member never has two parts of one change at a time: one that is sent again was answered before.
 *  4. Nothing is sent about an extent while background work has it for itself.
 */
import { assert } from "../../core/assert.js";
import { ExtentFlag, type ExtentOp, ExtentOpKind } from "../../core/extent-io.js";
import { Status } from "../../core/status.js";
import { Flight, type FlightOwner, PartState } from "./flight.js";
import { Leaving, type Member } from "./member.js";
import { PassStage } from "./resync-pass.js";

export interface DeckHost {
  readonly members: readonly Member[];
  readonly volume: number;
  readonly epoch: number;
  readonly generation: number;
  /** As many in-sync members as changes need. */
  readonly enough: boolean;
  /** The owner is over: nothing is sent or answered. */
  readonly over: boolean;
  nextSequence(): number;
  /** It cannot be begun now: the owner lets go, or its extent is in doubt; asked for, that is settled sooner. */
  isBlocked(op: ExtentOp): boolean;
  changing(op: ExtentOp): void;
  answered(op: ExtentOp): void;
  leave(member: Member, why: Leaving): void;
  noLease(member: Member): void;
  /** The member's session is ending: nothing can be sent on it any more. */
  linkLost(member: Member): void;
  fencedBy(member: Member): void;
  endPass(member: Member, why: string): void;
  /** Its bad blocks are looked for and repaired; false: there are too many to keep in mind. */
  rotten(member: Member, extent: number): boolean;
  /** A session has given a part back after the owner's end. */
  returned(): void;
  /** Every member is full, or some are that cannot be taken out: try again later. */
  retryLater(): void;
  /** Members may differ in this extent. */
  doubt(extent: number): void;
  /** Members differ in a block of these, and none could be read when it was to be chosen. */
  isUndecided(op: ExtentOp): boolean;
}

export class FlightDeck implements FlightOwner {
  readonly #host: DeckHost;
  #first: Flight | null = null;
  #last: Flight | null = null;
  #pool: Flight | null = null;
  #open = 0;
  #drained: (() => void) | null = null;
  /** Extent that background work has for itself; −1: none. */
  exclusive = -1;

  constructor(host: DeckHost) {
    this.#host = host;
  }

  /** Operations that are not answered. */
  get open(): number {
    return this.#open;
  }

  submit(op: ExtentOp): void {
    const flight = this.#take();
    flight.begin(op);
    this.#link(flight);
    if (this.#host.over) return;
    if (this.#isBlocked(op)) flight.held = true;
    else this.#launch(flight);
  }

  /** Extents that open changes touch. */
  *openChanges(): Iterable<number> {
    for (let flight = this.#first; flight !== null; flight = flight.next) {
      if (!flight.isRead && flight.op.kind !== ExtentOpKind.Flush) yield flight.op.extent;
    }
  }

  /** Whether an answer waits for this member. */
  waitsFor(member: Member): boolean {
    for (let flight = this.#first; flight !== null; flight = flight.next) {
      if (flight.states[member.index] === PartState.Wait && member.required) return true;
      const waits = flight.isRead && !flight.held && !flight.healing && flight.inFlight === 0;
      if (waits && member.inSync && member.holds(flight.op.extent)) return true;
    }
    return false;
  }

  /** What can be sent is sent: a member can be used, or an extent is free again. */
  pumpAll(): void {
    for (let flight = this.#first; flight !== null; ) {
      const { next } = flight;
      if (flight.held && !this.#isBlocked(flight.op)) this.#launch(flight);
      else this.#pump(flight);
      flight = next;
    }
  }

  /** Full members are asked again. */
  retryFull(): void {
    for (let flight = this.#first; flight !== null; flight = flight.next) {
      for (let i = 0; i < this.#host.members.length; i++) {
        if (flight.states[i] === PartState.NoSpace) flight.states[i] = PartState.Wait;
      }
    }
  }

  /**
   * Another record is chosen. What is open is sent again under its generation to all that are in sync now: a
   * member that was taken out must find those extents among the ones that were changed without it.
   */
  recordChanged(): void {
    for (let flight = this.#first; flight !== null; ) {
      const { next } = flight;
      if (!flight.held && !flight.isRead) {
        this.#address(flight);
        this.#pump(flight);
        this.#settle(flight);
      }
      flight = next;
    }
    this.pumpAll();
  }

  /** The member takes changes of the extent from now on: those that are open too. */
  taken(member: Member, extent: number): void {
    for (let flight = this.#first; flight !== null; flight = flight.next) {
      if (flight.isRead || flight.held || flight.op.kind === ExtentOpKind.Flush) continue;
      if (flight.op.extent !== extent || flight.states[member.index] !== PartState.None) continue;
      flight.states[member.index] = PartState.Wait;
    }
  }

  /** The member is waited for from now on: flushes and changes that are open go to it too. */
  addressAll(member: Member): void {
    for (let flight = this.#first; flight !== null; flight = flight.next) {
      if (flight.isRead || flight.held || flight.states[member.index] !== PartState.None) continue;
      if (isAskedOf(flight.op, member)) flight.states[member.index] = PartState.Wait;
    }
    this.pumpAll();
  }

  /** A member's pass has ended: what only waited for it goes on. */
  passEnded(): void {
    for (let flight = this.#first; flight !== null; ) {
      const { next } = flight;
      if (!flight.held && !flight.isRead) this.#settle(flight);
      flight = next;
    }
  }

  /** The extent's bad blocks were repaired as far as possible: reads that met them try once more. */
  healed(extent: number): void {
    for (let flight = this.#first; flight !== null; flight = flight.next) {
      if (!flight.healing || flight.op.extent !== extent) continue;
      flight.healing = false;
      flight.healed = true;
      flight.badCopies = 0;
    }
    this.pumpAll();
  }

  /** Calls `then` when no session has anything about the exclusive extent; at once if so now. */
  whenDrained(then: () => void): void {
    assert(this.#drained === null, "one extent is drained at a time");
    if (this.#busy()) this.#drained = then;
    else then();
  }

  /** Gives back every operation with this status. No session may have any part any more. */
  abandon(status: Status): void {
    for (let flight = this.#first; flight !== null; flight = this.#first) {
      assert(flight.inFlight === 0, "abandoned while a session has a part");
      this.#answer(flight, status);
    }
  }

  /** Operations that were begun and are not answered. */
  get begun(): number {
    let count = 0;
    for (let flight = this.#first; flight !== null; flight = flight.next) if (!flight.held) count++;
    return count;
  }

  get inFlight(): number {
    let count = 0;
    for (let flight = this.#first; flight !== null; flight = flight.next) count += flight.inFlight;
    return count;
  }

  // ---- Sending -----------------------------------------------------------------------------------------

  #isBlocked(op: ExtentOp): boolean {
    const isTaken = op.kind !== ExtentOpKind.Flush && op.extent === this.exclusive;
    return isTaken || this.#host.isBlocked(op);
  }

  #launch(flight: Flight): void {
    flight.held = false;
    if (!flight.isRead) {
      flight.sequence = this.#host.nextSequence();
      this.#host.changing(flight.op);
      this.#address(flight);
    }
    this.#pump(flight);
  }

  /** Every member that takes the change is to get it, whether it had it before or not. */
  #address(flight: Flight): void {
    const { op, states } = flight;
    const isFlush = op.kind === ExtentOpKind.Flush;
    for (const member of this.#host.members) {
      const goes = isFlush ? member.required : member.takes(op.extent);
      // A part that a session has is looked at when it comes back.
      if (states[member.index] === PartState.Sent) continue;
      states[member.index] = goes ? PartState.Wait : PartState.None;
    }
  }

  #pump(flight: Flight): void {
    if (flight.held || this.#host.over) return;
    if (flight.op.kind !== ExtentOpKind.Flush && flight.op.extent === this.exclusive) return;
    if (flight.isRead) {
      if (flight.inFlight === 0 && !flight.healing) this.#read(flight);
      return;
    }
    for (const member of this.#host.members) {
      if (flight.states[member.index] === PartState.Wait && member.usable) this.#send(flight, member);
    }
  }

  #send(flight: Flight, member: Member): void {
    const { volume, epoch, generation } = this.#host;
    const part = flight.part(member.index);
    part.volume = volume;
    part.epoch = epoch;
    part.generation = generation;
    // The waiting for space is done here: it must not hold up a promise at the node.
    part.flags |= ExtentFlag.NoWait;
    flight.states[member.index] = PartState.Sent;
    flight.sentUnder[member.index] = generation;
    flight.inFlight++;
    member.outstanding++;
    member.session!.submit(part);
  }

  // ---- Answers to changes ------------------------------------------------------------------------------

  partDone(flight: Flight, part: ExtentOp): void {
    const member = this.#host.members[part.tag]!;
    member.outstanding--;
    flight.inFlight--;
    if (this.#host.over) {
      if (!flight.isRead) flight.states[member.index] = PartState.Wait;
    } else if (flight.isRead) this.#readDone(flight, member);
    else this.#changeDone(flight, member, part.status);
    if (this.#drained !== null && !this.#busy()) {
      const then = this.#drained;
      this.#drained = null;
      then();
    }
    if (this.#host.over) this.#host.returned();
  }

  #changeDone(flight: Flight, member: Member, status: Status): void {
    const { states } = flight;
    const { index } = member;
    const isFlush = flight.op.kind === ExtentOpKind.Flush;
    const goes = isFlush ? member.required : member.takes(flight.op.extent);
    const isPresent = flight.sentUnder[index] === this.#host.generation;
    states[index] = goes ? PartState.Wait : PartState.None;
    if (!goes && !isFlush) member.mayKeep(flight.op.extent);
    if (status === Status.Ok) {
      member.leaseLostAt = null;
      if (goes && isPresent) states[index] = PartState.Done;
    } else {
      this.#refused(flight, member, status, goes && isPresent);
    }
    if (this.#host.over) return;
    this.#pump(flight);
    this.#settle(flight);
  }

  #refused(flight: Flight, member: Member, status: Status, counts: boolean): void {
    const host = this.#host;
    if (status === Status.LinkLost) host.linkLost(member);
    if (status === Status.Fenced) {
      host.fencedBy(member);
    } else if (!member.inSync) {
      // Once a record that calls it in sync may be chosen, it is waited for like any other.
      if (member.pass !== null && member.pass.stage !== PassStage.Proposed)
        host.endPass(member, `a write failed (status ${status})`);
      else if (status === Status.Io) host.leave(member, Leaving.Failed);
    } else if (status === Status.NoLease) {
      host.noLease(member);
    } else if (status === Status.NoSpace) {
      if (counts) flight.states[member.index] = PartState.NoSpace;
    } else if (status !== Status.LinkLost && status !== Status.Outdated) {
      host.leave(member, Leaving.Failed);
    }
  }

  #settle(flight: Flight): void {
    if (flight.inFlight > 0 || flight.held) return;
    let full = 0;
    let done = 0;
    for (const member of this.#host.members) {
      if (!member.required || !isAskedOf(flight.op, member)) continue;
      const state = flight.states[member.index];
      if (state === PartState.Done && flight.sentUnder[member.index] === this.#host.generation) done++;
      else if (state === PartState.NoSpace) full++;
      else return;
    }
    if (full > 0) {
      this.#full(flight, done);
    } else if (this.#host.enough) {
      this.#noteMissed(flight);
      this.#answer(flight, Status.Ok);
    }
  }

  /** A member that is only being resynced, and could not be sent the change, has the extent to do again. */
  #noteMissed(flight: Flight): void {
    if (flight.op.kind === ExtentOpKind.Flush) return;
    for (const member of this.#host.members) {
      if (flight.states[member.index] === PartState.Wait) member.pass?.owed.add(flight.op.extent);
    }
  }

  /** The volume's policy decides where all are full; where some are, they go. */
  #full(flight: Flight, done: number): void {
    const host = this.#host;
    if (done === 0) {
      if ((flight.op.flags & ExtentFlag.NoWait) === 0) {
        host.retryLater();
        return;
      }
      // Each may have kept another part of what did not fit.
      host.doubt(flight.op.extent);
      this.#answer(flight, Status.NoSpace);
      return;
    }
    host.retryLater();
    for (const member of host.members) {
      if (flight.states[member.index] === PartState.NoSpace && member.required)
        host.leave(member, Leaving.Full);
    }
  }

  // ---- Reads -------------------------------------------------------------------------------------------

  /** The copy in this process, else the one with the least to do. */
  #read(flight: Flight): void {
    const { members } = this.#host;
    let best: Member | null = null;
    let sound = 0;
    for (const member of members) {
      if (!member.inSync || !member.holds(flight.op.extent)) continue;
      if ((flight.badCopies & (1 << member.index)) !== 0) continue;
      sound++;
      if (!member.usable) continue;
      if (best === null || isBetter(member, best)) best = member;
    }
    if (best !== null) this.#sendRead(flight, best);
    else if (sound === 0) this.#allBad(flight);
  }

  #sendRead(flight: Flight, member: Member): void {
    const { op } = flight;
    op.listener = flight;
    op.tag = member.index;
    op.volume = this.#host.volume;
    op.epoch = this.#host.epoch;
    op.generation = this.#host.generation;
    flight.inFlight++;
    member.outstanding++;
    member.session!.submit(op);
  }

  #readDone(flight: Flight, member: Member): void {
    const { op } = flight;
    const host = this.#host;
    if (op.status === Status.Ok) {
      member.leaseLostAt = null;
      if (host.isUndecided(op)) this.#holdForReconcile(flight);
      else this.#answer(flight, Status.Ok);
      return;
    }
    if (op.status === Status.Fenced) host.fencedBy(member);
    else if (op.status === Status.NoLease) host.noLease(member);
    else if (op.status === Status.LinkLost) host.linkLost(member);
    else if (op.status === Status.Io && op.badBlock >= 0) {
      flight.badCopies |= 1 << member.index;
      host.rotten(member, op.extent);
    } else if (op.status !== Status.Outdated) {
      host.leave(member, Leaving.Failed);
    }
    if (!host.over) this.#pump(flight);
  }

  /** One copy can be read again, and another one may be tomorrow: they are to be the same before anybody is told. */
  #holdForReconcile(flight: Flight): void {
    flight.held = true;
    flight.healed = false;
    flight.badCopies = 0;
    this.#host.doubt(flight.op.extent);
  }

  /**
   * Different blocks may be bad in different copies: the read has another chance once they are repaired. What was tried
   * before one of them left the in-sync ones does not count: it is tried again.
   */
  #allBad(flight: Flight): void {
    let isRepaired = false;
    if (!flight.healed) {
      for (const member of this.#host.members) {
        if (!member.inSync || !member.holds(flight.op.extent)) continue;
        isRepaired = this.#host.rotten(member, flight.op.extent) || isRepaired;
      }
    }
    if (isRepaired) flight.healing = true;
    else this.#answer(flight, Status.Io);
  }

  // ---- The list ----------------------------------------------------------------------------------------

  #busy(): boolean {
    for (let flight = this.#first; flight !== null; flight = flight.next) {
      if (flight.inFlight > 0 && flight.op.extent === this.exclusive) {
        if (flight.op.kind !== ExtentOpKind.Flush) return true;
      }
    }
    return false;
  }

  #answer(flight: Flight, status: Status): void {
    const op = flight.end();
    this.#unlink(flight);
    op.status = status;
    this.#host.answered(op);
  }

  #take(): Flight {
    const flight = this.#pool ?? new Flight(this);
    this.#pool = flight === this.#pool ? flight.next : null;
    return flight;
  }

  #link(flight: Flight): void {
    this.#open++;
    flight.next = null;
    flight.previous = this.#last;
    if (this.#last === null) this.#first = flight;
    else this.#last.next = flight;
    this.#last = flight;
  }

  #unlink(flight: Flight): void {
    this.#open--;
    if (flight.previous === null) this.#first = flight.next;
    else flight.previous.next = flight.next;
    if (flight.next === null) this.#last = flight.previous;
    else flight.next.previous = flight.previous;
    flight.previous = null;
    flight.next = this.#pool;
    this.#pool = flight;
  }
}

/** A flush is everybody's; everything else is about an extent. */
function isAskedOf(op: ExtentOp, member: Member): boolean {
  return op.kind === ExtentOpKind.Flush || member.holds(op.extent);
}

function isBetter(a: Member, b: Member): boolean {
  if (a.isLocal !== b.isLocal) return a.isLocal;
  return a.outstanding < b.outstanding;
}
