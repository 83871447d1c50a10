/** A member of a volume as its owner sees it. */
import type { NodeId, ReplicaSession } from "../api.js";
import type { Holders } from "./holders.js";
import type { MemberEntry } from "./record.js";
import type { ResyncPass } from "./resync-pass.js";

/** Why a member is to be taken out of the in-sync ones. */
export const Leaving = {
  /** Connection gone for longer than the grace, and somebody waits. */
  Gone: "its connection is gone",
  Silent: "it does not answer",
  Failed: "its device fails",
  Full: "its device is full",
  Replaced: "another node takes its seat",
  NoLease: "it reaches no majority of the config nodes",
  /** It came back, but not whole: what it had not flushed may be gone. */
  Rebooted: "it came back without what it had not flushed",
} as const;
export type Leaving = (typeof Leaving)[keyof typeof Leaving];

export class Member {
  readonly node: NodeId;
  readonly name: string;
  /** Place in the record's list. */
  readonly index: number;
  /** In the owner's own process: read from first. */
  readonly isLocal: boolean;
  inSync: boolean;
  /** While stale: the generation it left at. */
  since: number;
  /** Of the life of the node in which it has what it was sent; null: none that counts. */
  bootId: string | null = null;
  /** Of the opening of its device that its last session was with; 0: there was none. */
  incarnation = 0;
  /** It may lack writes from before a power loss, until told that all is put right. */
  lossy = false;

  session: ReplicaSession | null = null;
  /** The session's node has promised this owner's epoch: operations may be sent. */
  ready = false;
  /** No more is sent before the next look. */
  paused = false;
  /** Operations that it has not answered. */
  outstanding = 0;
  /** Clock.now and wall clock of the end of its last session. */
  goneAt = 0;
  goneWall = 0;
  leaseLostAt: number | null = null;
  leaving: Leaving | null = null;
  /** Clock.now when `leaving` was said. */
  leavingAt = 0;
  /** Clock.now when it was last asked for its promise, and when it was asked for the last one that it gave. */
  askedAt = Number.NEGATIVE_INFINITY;
  heardAt = Number.NEGATIVE_INFINITY;
  /** Background work cannot go on without it. */
  wanted = false;
  pass: ResyncPass | null = null;
  /** What it has, in sync, of extents that its seat does not hold any more: they are freed. Null: that is not known. */
  surplus: Set<number> | null = null;
  /** What will be `surplus` when its list has been read; null: none is being read. */
  listing: Set<number> | null = null;

  readonly #holders: Holders;

  constructor(entry: MemberEntry, index: number, name: string, isLocal: boolean, holders: Holders) {
    this.#holders = holders;
    this.node = entry.node;
    this.name = name;
    this.index = index;
    this.isLocal = isLocal;
    this.inSync = entry.state === "insync";
    this.since = entry.since;
  }

  /** Operations may be sent to it now. */
  get usable(): boolean {
    return this.ready && this.leaving === null && !this.paused;
  }

  /** The others were not enough to go on without it. What was wrong with it may pass, and it is asked again. */
  tryAgain(): void {
    if (this.leaving !== Leaving.Full && this.leaving !== Leaving.NoLease) return;
    this.leaving = null;
    this.leaseLostAt = null;
  }

  /** Whether it is one of those that hold the extent, as well as it can. */
  holds(extent: number): boolean {
    return this.#holders.holds(this.index, extent);
  }

  /**
   * A change was answered that was sent before the extent became another seat's. It may have made the extent here after
   * the list was read that was to tell.
   */
  mayKeep(extent: number): void {
    if (!this.holds(extent)) (this.surplus ?? this.listing)?.add(extent);
  }

  /** Whether a change of this extent goes to it. */
  takes(extent: number): boolean {
    return (this.inSync || (this.pass?.takes(extent) ?? false)) && this.holds(extent);
  }

  /** Whether changes are answered only when it has answered. */
  get required(): boolean {
    return this.inSync || (this.pass?.isWaitedFor ?? false);
  }

  get entry(): MemberEntry {
    return this.inSync
      ? { node: this.node, state: "insync", since: 0 }
      : { node: this.node, state: "stale", since: this.since };
  }
}
