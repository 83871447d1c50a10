/**
 * Seats of a volume that go to other nodes (docs/architecture/replica.md "Replacing a member").
 *
 * Invariants
 *  1. A seat changes hands when nothing of its old node is open. Its new node is believed nothing: it is stale since 0.
 *  2. No member leaves for it that changes, or any extent, would be short of.
 */
import type { NodeId } from "../api.js";
import type { OwnerEnvironment } from "./api.js";
import { membersForChanges } from "./holders.js";
import { Leaving, type Member } from "./member.js";
import type { ClusterRecord, MemberEntry } from "./record.js";

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
  soon(): void;
}

export const NO_OWNER = "the volume has no owner here any more";

interface Replacing {
  readonly member: Member;
  readonly next: NodeId;
  readonly done: SeatAnswer;
}

export class SeatChanges {
  readonly #host: SeatHost;
  #replacing: Replacing | null = null;

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
  }

  /** What can be done now is done. */
  proceed(): void {
    if (this.#replacing !== null && !this.#host.changingRecord) this.#replaceNext(this.#replacing);
  }

  /**
   * Gives a member's seat to another node, which gets everything from the others: a disk is lost, or is to be emptied.
   * A member that is in sync leaves first, if there are enough without it. `done(null)`: the record says so, and
   * resync goes on.
   */
  replace(old: NodeId, next: NodeId, done: SeatAnswer): void {
    const host = this.#host;
    const { nameOf } = host.environment;
    const member = host.members.find(({ node }) => node === old);
    if (host.ending) done(NO_OWNER);
    else if (this.#replacing !== null) done("another member is being replaced");
    else if (member === undefined) done(`${nameOf(old)} is no member`);
    else if (host.members.some(({ node }) => node === next)) done(`${nameOf(next)} is a member already`);
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
    const { member } = replacing;
    if (member.inSync) {
      if (this.#canSpare(member)) {
        host.leave(member, Leaving.Replaced);
        return;
      }
      // Somebody else went meanwhile: it is needed, and used again.
      if (member.leaving === Leaving.Replaced) member.leaving = null;
      this.#replacing = null;
      replacing.done(`there are not enough copies without ${member.name}`);
      return;
    }
    host.endPass(member, Leaving.Replaced);
    if (member.outstanding > 0 || host.isBusy) return;
    const entry: MemberEntry = { node: replacing.next, state: "stale", since: 0 };
    const members = host.record.members.map((one, seat) => (seat === member.index ? entry : one));
    host.propose({ members }, () => {
      host.unseat(member);
      this.#replacing = null;
      host.seat(entry, member.index);
      replacing.done(null);
    });
  }
}
