/**
 * Becoming the owner of a volume (docs/architecture/replica.md "Owner: activation").
 *
 * Invariants
 *  1. Nothing is served before a majority has accepted a record under the new epoch, in which exactly those members
 *     are in sync that were so before and have promised it.
 *  2. That is proposed only when nobody can answer for an older epoch any more, when as many valid members were
 *     heard as changes need (or all there are), and when one of them is whole or all of them were heard.
 *  3. A wait ends by what it waits for, never by giving up.
 */
import { assert } from "../../core/assert.js";
import type { Timer } from "../../core/clock.js";
import { epoch as epochOf, generation as generationOf } from "../../core/ids.js";
import type { Ballot, InventoryEntry, NodeId, ReplicaSession, SessionListener } from "../api.js";
import { LEASE_WAIT_MS } from "../limits.js";
import type { Asking, PromiseOutcome } from "../register.js";
import type { OwnerEnvironment } from "./api.js";
import { Holders, membersForAll, membersForChanges } from "./holders.js";
import {
  ACTIVATION_PAUSE_MAX_MS,
  ACTIVATION_PAUSE_MS,
  PROMISE_RETRY_MS,
  RECONNECT_GRACE_MS,
  SILENCE_MAX_MS,
  SUPERVISE_MS,
} from "./limits.js";
import type { Activated, MemberLife } from "./owned-record.js";
import {
  absenceMeansZeros,
  type ClusterRecord,
  decodeClusterRecord,
  encodeClusterRecord,
  inSyncOf,
} from "./record.js";

export type ActivationOutcome =
  | { readonly kind: "activated"; readonly activated: Activated }
  /** There is no such volume, or its record cannot be read, or its name is taken. */
  | { readonly kind: "impossible"; readonly why: string };

/** What one in-sync member has said. */
interface Heard extends MemberLife {
  readonly entries: readonly InventoryEntry[];
}

export class Activation implements SessionListener {
  readonly #environment: OwnerEnvironment;
  readonly #volume: number;
  readonly #done: (outcome: ActivationOutcome) => void;
  #ballot: Ballot;
  /** Clock.now of the promise that made the majority. */
  #promisedAt = 0;
  #record: ClusterRecord | null = null;
  #asking: Asking | null = null;
  #proposal: Asking | null = null;
  /** In-sync members of the record, those that have said everything with it. */
  readonly #members = new Map<NodeId, Heard | null>();
  readonly #timers = new Set<Timer>();
  #over = false;
  #pauseMs = ACTIVATION_PAUSE_MS;

  /** Tries epochs from `epoch` on. `done` is called once, never from inside a call, unless it is cancelled before. */
  constructor(
    environment: OwnerEnvironment,
    volume: number,
    epoch: number,
    done: (outcome: ActivationOutcome) => void,
  ) {
    assert(epoch > 0, "an epoch to begin with");
    this.#environment = environment;
    this.#volume = volume;
    this.#done = done;
    this.#ballot = { epoch, owner: environment.self.peer };
    this.#promise();
    this.#supervise();
  }

  /** Nothing is asked or told any more. Who has promised has done so. */
  cancel(): void {
    this.#over = true;
    this.#forget();
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }

  /** What the activation waits for, for people. */
  get waiting(): string {
    const { nameOf } = this.#environment;
    const record = this.#record;
    if (record === null || this.#proposal !== null) {
      const asking = record === null ? this.#asking : this.#proposal;
      const silent = (asking?.waitingFor ?? []).map(nameOf);
      const name = record === null ? `volume ${this.#volume}` : `volume ${record.name}`;
      return `${name} waits: a majority of the config nodes has to answer; not yet heard: ${silent.join(", ")}`;
    }
    const missing = [...this.#members].filter(([, heard]) => heard === null).map(([node]) => nameOf(node));
    const reasons = missing.length > 0 ? [`not heard of ${missing.join(", ")}`] : [];
    const left = this.#leaseWaitEnd(record) - this.#environment.clock.now();
    if (left > 0) reasons.push(`leases of its last owner end in ${Math.ceil(left)} ms`);
    return `volume ${record.name} waits: ${reasons.join("; ")}`;
  }

  // ---- 1, 2: promises and the record -------------------------------------------------------------------

  #promise(): void {
    this.#asking = this.#environment.register.promise(this.#volume, this.#ballot, (outcome) => {
      if (!this.#over) this.#promised(outcome);
    });
  }

  #promised(outcome: PromiseOutcome): void {
    if (outcome.kind === "refused") {
      this.#again(outcome.promised.epoch);
      return;
    }
    if (outcome.highest === null) {
      this.#finish({ kind: "impossible", why: "there is no record of it" });
      return;
    }
    let record: ClusterRecord;
    try {
      record = decodeClusterRecord(outcome.highest.bytes);
    } catch (error) {
      this.#finish({ kind: "impossible", why: `its record cannot be read: ${(error as Error).message}` });
      return;
    }
    assert(record.generation === outcome.highest.generation, "a record says its generation");
    this.#promisedAt = this.#environment.clock.now();
    this.#record = record;
    const { links } = this.#environment;
    for (const { node } of inSyncOf(record)) this.#members.set(node, null);
    // All members are fenced; only what the in-sync ones have to say is waited for.
    for (const { node } of record.members) {
      links.watch(node, this);
      const session = links.session(node);
      if (session !== null) this.#ask(session);
    }
    this.#proceed();
  }

  /** Somebody is ahead: another epoch, after a pause that two of them do not choose alike. */
  #again(seen: number): void {
    this.#forget();
    this.#ballot = { epoch: Math.max(seen, this.#ballot.epoch) + 1, owner: this.#ballot.owner };
    const pause = this.#pauseMs + (this.#environment.random.u32() % this.#pauseMs);
    this.#pauseMs = Math.min(2 * this.#pauseMs, ACTIVATION_PAUSE_MAX_MS);
    this.#later(pause, () => this.#promise());
  }

  #forget(): void {
    this.#asking?.cancel();
    this.#proposal?.cancel();
    this.#asking = null;
    this.#proposal = null;
    for (const { node } of this.#record?.members ?? []) this.#environment.links.unwatch(node, this);
    this.#record = null;
    this.#members.clear();
  }

  // ---- 4: promises and inventories of the members ------------------------------------------------------

  sessionOpened(session: ReplicaSession): void {
    if (!this.#over) this.#ask(session);
  }

  sessionLost(): void {
    // What it has promised and said stays so; what it has not said ends with an answer of its own.
  }

  #isCurrent(session: ReplicaSession, ballot: Ballot): boolean {
    return (
      !this.#over &&
      this.#ballot === ballot &&
      this.#record !== null &&
      this.#environment.links.session(session.node) === session
    );
  }

  #ask(session: ReplicaSession): void {
    const ballot = this.#ballot;
    session.promise(this.#volume, ballot, (answer) => {
      if (!this.#isCurrent(session, ballot)) return;
      if (answer.kind === "refused") this.#again(answer.promised.epoch);
      else if (answer.kind === "unknown") this.#askLater(session, ballot);
      else if (this.#members.get(session.node) === null) this.#list(session, ballot);
    });
  }

  #askLater(session: ReplicaSession, ballot: Ballot): void {
    this.#later(PROMISE_RETRY_MS, () => {
      if (this.#isCurrent(session, ballot)) this.#ask(session);
    });
  }

  #list(session: ReplicaSession, ballot: Ballot): void {
    const entries: InventoryEntry[] = [];
    session.inventory(
      this.#volume,
      ballot.epoch,
      (entry) => entries.push(entry),
      (complete, isWhole) => {
        if (!this.#isCurrent(session, ballot)) return;
        if (!complete) {
          this.#askLater(session, ballot);
          return;
        }
        const { bootId, incarnation, lossy } = session.greeting!;
        // The greeting is of the session's begin. What was lost then may have been put right since, by another owner.
        const life = { bootId, incarnation, lossy: lossy && !isWhole };
        this.#members.set(session.node, { ...life, entries });
        this.#proceed();
      },
    );
  }

  // ---- 3, 5, 6: the conditions, and the record ---------------------------------------------------------

  #supervise(): void {
    this.#later(SUPERVISE_MS, () => {
      this.#supervise();
      const now = this.#environment.clock.now();
      for (const [node, heard] of this.#members) {
        const session = this.#environment.links.session(node);
        if (heard !== null || session === null || session.silentSince === null) continue;
        if (now - session.silentSince >= SILENCE_MAX_MS) session.close();
      }
      this.#proceed();
    });
  }

  #proceed(): void {
    const record = this.#record;
    if (this.#over || record === null || this.#proposal !== null) return;
    if (!this.#isEveryoneHeardOrGone() || !this.#isEnough(record)) return;
    const left = this.#leaseWaitEnd(record) - this.#environment.clock.now();
    if (left > 0) return;
    this.#accept(record);
  }

  /** A member that can be reached is waited for; one that cannot, for the grace. */
  #isEveryoneHeardOrGone(): boolean {
    const { links, clock } = this.#environment;
    const isGraceOver = clock.now() - this.#promisedAt >= RECONNECT_GRACE_MS;
    for (const [node, heard] of this.#members) {
      if (heard === null && (!isGraceOver || links.session(node) !== null)) return false;
    }
    return true;
  }

  #isEnough(record: ClusterRecord): boolean {
    const heard = [...this.#members.values()].filter((one) => one !== null);
    const isAll = heard.length === this.#members.size;
    if (!isAll && heard.length < membersForChanges(record)) return false;
    // All copies of an extent that were heard may lack something that only another one has.
    if (!isAll && heard.filter(({ lossy }) => !lossy).length < membersForAll(record)) return false;
    return absenceMeansZeros(record, this.#heardNodes());
  }

  #heardNodes(): ReadonlySet<NodeId> {
    return new Set([...this.#members].filter(([, heard]) => heard !== null).map(([node]) => node));
  }

  /** Clock.now from which on nobody answers for an older epoch. */
  #leaseWaitEnd(record: ClusterRecord): number {
    const { owner } = record;
    if (owner.released) return 0;
    if (owner.node !== null) {
      // Its device was opened again, so the process that held it is gone.
      const greeting = this.#environment.links.session(owner.node)?.greeting ?? null;
      if (greeting !== null && greeting.incarnation > owner.incarnation) return 0;
    }
    return this.#promisedAt + LEASE_WAIT_MS;
  }

  #accept(last: ClusterRecord): void {
    const generation = generationOf(last.generation + 1);
    const heard = this.#heardNodes();
    const record: ClusterRecord = {
      ...last,
      epoch: epochOf(this.#ballot.epoch),
      generation,
      version: last.version + 1,
      owner: { ...this.#environment.self, released: false },
      members: last.members.map((entry) =>
        entry.state === "insync" && !heard.has(entry.node)
          ? { node: entry.node, state: "stale", since: generation }
          : entry,
      ),
    };
    const bytes = encodeClusterRecord(record);
    const accepted = { ballot: this.#ballot, generation, bytes };
    this.#proposal = this.#environment.register.accept(this.#volume, accepted, (outcome) => {
      if (this.#over) return;
      if (outcome.kind === "refused") this.#again(outcome.promised.epoch);
      else if (outcome.kind === "name-taken") this.#finish({ kind: "impossible", why: "its name is taken" });
      else this.#activated(record, this.#isSettled(last));
    });
  }

  /**
   * No in-sync member can differ from another one: the last owner has said so, all of them are here, and none has lost
   * power since, because that leaves it LOSSY until an owner of this volume has put it right.
   */
  #isSettled({ owner }: ClusterRecord): boolean {
    if (owner.settled !== true) return false;
    for (const heard of this.#members.values()) if (heard === null || heard.lossy) return false;
    return true;
  }

  // ---- 7 -----------------------------------------------------------------------------------------------

  #activated(record: ClusterRecord, isSettled: boolean): void {
    const lives = new Map<NodeId, Heard>();
    for (const [node, heard] of this.#members) if (heard !== null) lives.set(node, heard);
    const lists = [...lives.values()].map(({ entries }) => entries);
    const seats = new Map<number, readonly InventoryEntry[]>();
    record.members.forEach(({ node }, seat) => {
      const heard = lives.get(node);
      if (heard !== undefined) seats.set(seat, heard.entries);
    });
    const holders = new Holders(record);
    const activated: Activated = {
      ballot: this.#ballot,
      record,
      lives,
      reconcile: extentsInDoubt(seats, holders, isSettled),
      extents: extentsHeld(seats, holders),
      sequence: highestCreated(lists),
    };
    this.#finish({ kind: "activated", activated });
  }

  #finish(outcome: ActivationOutcome): void {
    this.cancel();
    this.#done(outcome);
  }

  #later(delayMs: number, run: () => void): void {
    const timer = this.#environment.clock.setTimer(delayMs, () => {
      this.#timers.delete(timer);
      if (!this.#over) run();
    });
    this.#timers.add(timer);
  }
}

/**
 * Extents that are hot with any valid member, or that not all of those have that hold them, or of which they have
 * different lives. `lists`: by seat, what the member in it has. `isSettled`: hot ones are equal all the same.
 */
export function extentsInDoubt(
  lists: ReadonlyMap<number, readonly InventoryEntry[]>,
  holders: Holders,
  isSettled = false,
): Set<number> {
  let heard = 0;
  const copies = new Map<number, { seats: number; readonly created: number }>();
  const doubt = new Set<number>();
  for (const [seat, entries] of lists) {
    heard |= 1 << seat;
    for (const { extent, hot: isHot, created } of entries) {
      if (!holders.holds(seat, extent)) continue;
      const hot = isHot && !isSettled;
      const known = copies.get(extent);
      if (known === undefined) copies.set(extent, { seats: 1 << seat, created });
      else known.seats |= 1 << seat;
      if (hot || (known !== undefined && known.created !== created)) doubt.add(extent);
    }
  }
  for (const [extent, { seats }] of copies) if (seats !== (holders.mask(extent) & heard)) doubt.add(extent);
  return doubt;
}

/** What a member has of extents that are others' now does not count. */
function extentsHeld(lists: ReadonlyMap<number, readonly InventoryEntry[]>, holders: Holders): Set<number> {
  const held = new Set<number>();
  for (const [seat, entries] of lists) {
    for (const { extent } of entries) if (holders.holds(seat, extent)) held.add(extent);
  }
  return held;
}

function highestCreated(lists: readonly (readonly InventoryEntry[])[]): number {
  let highest = 0;
  for (const entries of lists) for (const { created } of entries) highest = Math.max(highest, created);
  return highest;
}
