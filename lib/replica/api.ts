/**
 * Interfaces of the replica room (docs/architecture/replica.md): what an owner of volumes and a node take from
 * outside, and what they are to each other. Nothing here knows sockets, timers or files.
 */
import type { Checksums } from "../core/checksum.js";
import type { Clock, Ticker } from "../core/clock.js";
import type { ExtentIo, ExtentOp } from "../core/extent-io.js";
import type { Pool } from "../core/pool.js";
import type { ByteStream } from "../core/stream.js";
import type { Packing } from "./packing.js";

/** Device id of a node, as 32 lower-case hexadecimal digits; a node is its device. */
export type NodeId = string;

/** Random 48-bit number of one life of an owner or another asker; never used twice, never 0. */
export type PeerId = number;

/** Who asks for a promise: no two askers ever share one (the peer id is part of it). Ordered by epoch. */
export interface Ballot {
  readonly epoch: number;
  readonly owner: PeerId;
}

/** What both ends of a link are given. */
export interface LinkEnvironment {
  readonly pool: Pool;
  readonly clock: Clock;
  readonly ticker: Ticker;
  readonly checksums: Checksums;
  /** Compression of background copies; left out, nothing is sent compressed, and no peer is told that it may. */
  readonly packing?: Packing;
}

/** The network as an asker sees it. */
export interface Network {
  /**
   * Connects to a node. `done` is called once, from the engine's batch: with a stream, or with null when there is
   * no way now. Trying again, and how often, is the asker's.
   */
  dial(node: NodeId, done: (stream: ByteStream | null) => void): void;
}

/** What a node says of itself when a session opens. */
export interface NodeGreeting {
  readonly node: NodeId;
  /** Number of this opening of the device. */
  readonly incarnation: number;
  /** Differs from the one before when what was not flushed may be gone. */
  readonly bootId: string;
  /** The device may miss acknowledged writes (DESIGN "lossy"), until `reconciled` is sent. As it was at the opening. */
  readonly lossy: boolean;
  readonly extentBlocks: number;
  /** Requests, and bytes of payload in either direction, that may be unanswered at a time. */
  readonly windowRequests: number;
  readonly windowBytes: number;
}

/** One extent of a node's inventory. */
export interface InventoryEntry {
  readonly layer: number;
  readonly extent: number;
  /** Of the last change. */
  readonly generation: number;
  /** Write sequence that created the extent: a higher one is another life of it. */
  readonly created: number;
  readonly hot: boolean;
}

/** Extents of a volume in which a node knows of blocks that fail their checksum. */
export interface RottenPage {
  /** Ascending. */
  readonly extents: readonly number[];
  /** How many there are behind the last of them. */
  readonly more: number;
}

/** Answer to a promise: of a config node with the highest record it has accepted. */
export type PromiseAnswer =
  | { readonly kind: "promised"; readonly accepted: AcceptedRecord | null }
  /** The node has promised to `promised`, which is not older than what was asked. */
  | { readonly kind: "refused"; readonly promised: Ballot }
  /** No answer, or the node's device cannot store it. Nothing is known. */
  | { readonly kind: "unknown" };

export type AcceptAnswer =
  | { readonly kind: "accepted" }
  | { readonly kind: "refused"; readonly promised: Ballot }
  /** Another live volume has this name. */
  | { readonly kind: "name-taken" }
  | { readonly kind: "unknown" };

export interface AcceptedRecord {
  readonly ballot: Ballot;
  readonly generation: number;
  /** Opaque to the register, at most RECORD_PAYLOAD_MAX bytes. */
  readonly bytes: Uint8Array;
}

/** One acceptor, local or behind a session. Each call is answered once; never from inside the call. */
export interface AcceptorPeer {
  promise(volume: number, ballot: Ballot, done: (answer: PromiseAnswer) => void): void;
  accept(volume: number, record: AcceptedRecord, done: (answer: AcceptAnswer) => void): void;
}

/** One grantor of serving leases: a config node. */
export interface LeasePeer {
  /**
   * Asks for the highest promised epochs of `volumes`. `done` gets, in the same order, the epoch that this
   * config node has promised for each (0: none), or null when there is no answer.
   */
  renew(volumes: readonly number[], done: (promised: readonly number[] | null) => void): void;
}

/** The right to answer at all (docs "Serving lease"), as those who answer ask for it. */
export interface LeaseView {
  /** Taken when a volume begins to be served: only renewals sent from now on have asked about it. */
  mark(): number;
  /**
   * A majority of the config nodes has answered renewals that were sent after the mark was taken and not longer ago
   * than the lease.
   */
  holds(mark: number): boolean;
}

/** What a session tells its owner. None is called from inside a call of the owner's. */
export interface SessionListener {
  sessionOpened(session: ReplicaSession): void;
  /**
   * The session is over; every operation in flight has been answered LinkLost before. `reason` is for people.
   */
  sessionLost(session: ReplicaSession, reason: string): void;
}

/**
 * One connection of an asker to one node. As ExtentIo it takes operations whose epoch and generation the asker has
 * set; those that exceed the window wait inside, in order. Statuses beside the store's own:
 *   Fenced    the node has promised to a newer owner; `fencedBy` says to which epoch. Nothing was changed.
 *   NoLease   the node cannot reach a majority of config nodes. A write may have landed.
 *   Outdated  the generation is older than the node's. Nothing was changed.
 *   LinkLost  no answer: the operation may have happened, or may happen until the next session opened.
 */
export interface ReplicaSession extends ExtentIo, AcceptorPeer, LeasePeer {
  readonly node: NodeId;
  /** Null until opened. */
  readonly greeting: NodeGreeting | null;
  /** Since when (Clock.now) the node owes an answer and has sent nothing; null while it owes none. */
  readonly silentSince: number | null;
  /** Highest epoch that a Fenced answer has named. */
  readonly fencedBy: number;

  /** As `submit`, for background copies: what is written may be compressed on its way, if the node knows how. */
  copy(op: ExtentOp): void;
  /**
   * All extents of a volume that the node holds, visited in no order, then `done`. Needs the promise of `epoch`. `isWhole`:
   * the list is complete, and what a power loss may have taken of the volume has been put right, whatever the greeting said.
   */
  inventory(
    volume: number,
    epoch: number,
    visit: (entry: InventoryEntry) => void,
    done: (complete: boolean, isWhole: boolean) => void,
  ): void;
  /**
   * All writes of these extents up to `sequence` are complete on all in-sync members. Only a hint: nothing is
   * answered. `extents` and `sequences` side by side, at most STABLE_MAX.
   */
  stable(
    volume: number,
    epoch: number,
    layer: number,
    extents: readonly number[],
    sequences: readonly number[],
  ): void;
  /** Every extent of `volume` that may miss writes has been resynced or reconciled; `done(false)`: unknown. */
  reconciled(volume: number, epoch: number, done: (done: boolean) => void): void;
  /**
   * Extents of a volume, from number `from` on, in which the node knows of blocks that fail their checksum; it need not
   * have been asked for them. Needs the promise of `epoch`. Null: no answer, or a node that cannot say.
   */
  rotten(volume: number, epoch: number, from: number, done: (page: RottenPage | null) => void): void;
  /** Ends the session. */
  close(): void;
}
