/**
 * Seats of a volume: one goes to another node, or a further one joins (docs/architecture/replica.md "Replacing a member",
 * "A further seat").
 *
 * Invariants
 *  1. A seat changes hands when nothing of its old node is open. Its new node is believed nothing: it is stale since 0.
 *  2. No member leaves for it that changes, or any extent, would be short of.
 *  3. One further seat joins at a time. It counts from the record on that calls it in sync, which is proposed when it has,
 *     flushed, everything that it is to hold. Until then it can be given up: nothing relies on it.
 */
import type { NodeId } from "../api.js";
import type { OwnerEnvironment } from "./api.js";
import { membersForChanges } from "./holders.js";
import { Leaving, type Member } from "./member.js";
import { type ClusterRecord, isJoining, MEMBERS_MAX, type MemberEntry, seatsOf } from "./record.js";
import { PassStage } from "./resync-pass.js";
import { isFlushed } from "./shrink.js";

/** What has become of a request of people. Null: the record says so; else why not, for people. */
export type SeatAnswer = (refusal: string | null) => void;

export interface SeatHost {
  readonly environment: OwnerEnvironment;
  readonly members: readonly Member[];
  readonly record: ClusterRecord;
  /** The owner is over, or lets go. */
  readonly ending: boolean;
  readonly changingRecord: boolean;
  /** Background work is under way. */
  readonly isBusy: boolean;
  leave(member: Member, why: Leaving): void;
  endPass(member: Member, why: string): void;
  /** Has the present record chosen with this change, under the next generation. */
  propose(change: Partial<ClusterRecord>, chosen: (record: ClusterRecord) => void): void;
  /** The member of this entry takes the seat, which is free. */
  seat(entry: MemberEntry, seat: number): void;
  unseat(member: Member): void;
  /** The present record has one seat less: the last one, which was joining. */
  seatGone(): void;
  /** The present record has the further seat count: extents are its own now that were others' before. */
  seatCounts(member: Member): void;
  soon(): void;
}

export const NO_OWNER = "the volume has no owner here any more";

interface Replacing {
  readonly member: Member;
  /** Null: the seat, which joins, is given up. */
  readonly next: NodeId | null;
  readonly done: SeatAnswer;
}

interface Growing {
  readonly next: NodeId;
  readonly done: SeatAnswer;
}

export class SeatChanges {
  readonly #host: SeatHost;
  #replacing: Replacing | null = null;
  #growing: Growing | null = null;

  constructor(host: SeatHost) {
    this.#host = host;
  }

  isReplacing(member: Member): boolean {
    return this.#replacing?.member === member;
  }

  /** The owner is over. */
  end(): void {
    this.#replacing?.done(NO_OWNER);
    this.#replacing = null;
    this.#growing?.done(NO_OWNER);
    this.#growing = null;
  }

  /** What can be done now is done. */
  proceed(): void {
    const host = this.#host;
    if (this.#replacing !== null && !host.changingRecord) this.#replaceNext(this.#replacing);
    if (this.#growing !== null && !host.changingRecord) this.#growNext(this.#growing);
    if (isJoining(host.record) && !host.ending && !host.changingRecord) this.#joinNext();
  }

  /**
   * Gives a member's seat to another node, which gets everything from the others: a disk is lost, or is to be emptied.
   * A member that is in sync leaves first, if there are enough without it. Without `next` a seat that joins is given up.
   * `done(null)`: the record says so, and resync goes on.
   */
  replace(old: NodeId, next: NodeId | null, done: SeatAnswer): void {
    const host = this.#host;
    const { nameOf } = host.environment;
    const member = host.members.find(({ node }) => node === old);
    if (host.ending) done(NO_OWNER);
    else if (this.#replacing !== null) done("another member is being replaced");
    else if (member === undefined) done(`${nameOf(old)} is no member`);
    else if (next === null && member.index < seatsOf(host.record)) done(`the seat of ${member.name} counts`);
    else if (next !== null && this.#isTaken(next)) done(`${nameOf(next)} is a member already`);
    else if (member.inSync && !this.#canSpare(member))
      done(`there are not enough copies without ${member.name}`);
    else {
      this.#replacing = { member, next, done };
      host.soon();
    }
  }

  /** Whether changes can be answered without the member, and without those that are going anyway. */
  #canSpare(member: Member): boolean {
    const { members, record } = this.#host;
    const staying = members.filter((one) => one.inSync && one.leaving === null && one !== member);
    return staying.length >= membersForChanges(record);
  }

  #replaceNext(replacing: Replacing): void {
    const host = this.#host;
    const { member, next } = replacing;
    if (member.inSync) {
      if (next !== null && this.#canSpare(member)) {
        host.leave(member, Leaving.Replaced);
        return;
      }
      // Somebody else went meanwhile: it is needed, and used again. Or a seat that joined has come to count.
      if (member.leaving === Leaving.Replaced) member.leaving = null;
      this.#replacing = null;
      replacing.done(
        next === null
          ? `the seat of ${member.name} counts`
          : `there are not enough copies without ${member.name}`,
      );
      return;
    }
    host.endPass(member, Leaving.Replaced);
    if (member.outstanding > 0 || host.isBusy) return;
    if (next === null) {
      this.#giveUpNext(replacing);
      return;
    }
    const entry: MemberEntry = { node: next, state: "stale", since: 0 };
    const members = host.record.members.map((one, seat) => (seat === member.index ? entry : one));
    host.propose({ members }, () => {
      host.unseat(member);
      this.#replacing = null;
      host.seat(entry, member.index);
      replacing.done(null);
    });
  }

  #giveUpNext({ member, done }: Replacing): void {
    const host = this.#host;
    const { members, domains } = host.record;
    const change = {
      members: members.slice(0, -1),
      seats: members.length - 1,
      ...(domains === undefined ? {} : { domains: domains.slice(0, -1) }),
    };
    host.propose(change, () => {
      host.unseat(member);
      this.#replacing = null;
      host.seatGone();
      done(null);
    });
  }

  /**
   * Gives the volume a further seat, for this node. `done(null)`: the record says so, and the node is given what it is to
   * hold; then the others give up what is not theirs any more.
   */
  grow(next: NodeId, done: SeatAnswer): void {
    const refusal = this.#growRefusal(next);
    if (refusal !== null) {
      done(refusal);
      return;
    }
    this.#growing = { next, done };
    this.#host.soon();
  }

  #growRefusal(next: NodeId): string | null {
    const { environment, ending, members, record } = this.#host;
    const { nameOf } = environment;
    if (ending) return NO_OWNER;
    if (this.#growing !== null || isJoining(record)) return "another seat is joining";
    if (this.#replacing !== null) return "a member is being replaced";
    if (members.length >= MEMBERS_MAX) return `it has ${MEMBERS_MAX} seats, and no volume has more`;
    return this.#isTaken(next) ? `${nameOf(next)} is a member already` : null;
  }

  #isTaken(next: NodeId): boolean {
    return this.#growing?.next === next || this.#host.members.some(({ node }) => node === next);
  }

  #growNext({ next, done }: Growing): void {
    const host = this.#host;
    const { members, domains } = host.record;
    const entry: MemberEntry = { node: next, state: "stale", since: 0 };
    const change = {
      members: [...members, entry],
      seats: members.length,
      ...(domains === undefined ? {} : { domains: [...domains, { zone: "", rack: "", host: next }] }),
    };
    host.propose(change, () => {
      this.#growing = null;
      host.seat(entry, members.length);
      done(null);
    });
  }

  /** The further seat has everything: it counts from the record on that says so. */
  #joinNext(): void {
    const host = this.#host;
    const { record } = host;
    const member = host.members[seatsOf(record)]!;
    if (!isFlushed(member)) return;
    member.pass!.stage = PassStage.Proposed;
    const entry: MemberEntry = { node: member.node, state: "insync", since: 0 };
    const members = [...record.members.slice(0, member.index), entry];
    host.propose({ members, seats: members.length }, () => host.seatCounts(member));
  }
}
