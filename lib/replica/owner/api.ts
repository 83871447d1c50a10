/** What an owner of volumes takes from outside, and what it tells. */
import type { Clock, Random } from "../../core/clock.js";
import type { Pool } from "../../core/pool.js";
import type {
  AcceptedRecord,
  Ballot,
  LeaseView,
  NodeId,
  PeerId,
  ReplicaSession,
  SessionListener,
} from "../api.js";
import type { AcceptOutcome, Asking, PromiseOutcome } from "../register.js";

/** One session to each node, kept open and shared by all volumes of a process. */
export interface NodeLinks {
  /** The open session, or null. */
  session(node: NodeId): ReplicaSession | null;
  /** Tells of every session that opens or ends from now on. */
  watch(node: NodeId, listener: SessionListener): void;
  unwatch(node: NodeId, listener: SessionListener): void;
}

/** The proposer of records (register.ts). */
export interface VolumeRegister {
  promise(volume: number, ballot: Ballot, done: (outcome: PromiseOutcome) => void): Asking;
  accept(volume: number, record: AcceptedRecord, done: (outcome: AcceptOutcome) => void): Asking;
}

export interface OwnerEnvironment {
  readonly pool: Pool;
  readonly clock: Clock;
  readonly random: Random;
  readonly links: NodeLinks;
  readonly register: VolumeRegister;
  readonly lease: LeaseView;
  /** This life of the process; the node in it, if there is one, is read from first. */
  readonly self: { readonly peer: PeerId; readonly node: NodeId | null; readonly incarnation: number };
  readonly extentBlocks: number;
  /** What people call a node. */
  nameOf(node: NodeId): string;
}

/** What an owner tells of one volume. Never from inside a call of the asker's. */
export interface OwnerEvents {
  /** A newer owner has fenced this one, or no copy is whole any more: nothing is answered from now on. */
  ended(reason: string): void;
  /** A member was taken out of the record, or is in it again. */
  left(node: NodeId, reason: string): void;
  joined(node: NodeId): void;
  /** Blocks of a member that failed their checksum: rewritten from another, or without a good copy. */
  repaired(node: NodeId, extent: number, blocks: number): void;
  unrepairable(node: NodeId, extent: number, block: number): void;
}
