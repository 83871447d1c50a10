/**
 * Keeping to the set of config nodes, for the two kinds of processes: one that only asks, and a node, which may be one
 * of them.
 *
 * Invariant: the register's and the lease's config nodes are those of the set under which they are asked.
 */
import type { AcceptorPeer, LeasePeer, LinkEnvironment, Network, NodeId, PeerId } from "../api.js";
import type { LeaseKeeper } from "../lease.js";
import { LocalPeer } from "../local-peer.js";
import type { NodeCore } from "../node.js";
import { NodePeer } from "../peer.js";
import type { RecordRegister } from "../register.js";
import { StateCopy } from "./copy.js";
import type { ConfigSeat } from "./seat.js";
import type { ConfigSet, SetFollower } from "./set.js";

type Voter = AcceptorPeer & LeasePeer;

/** Who has to know of another set. */
export interface Askers {
  readonly register: RecordRegister;
  readonly lease: LeaseKeeper;
}

/** What a process without a device knows of the set. */
export class AskedSet implements SetFollower {
  #set: ConfigSet;
  #askers: Askers | null = null;
  readonly #peer: (node: NodeId) => Voter;
  readonly #changed: (set: ConfigSet) => void;

  /** `peer`: the way to a node; `changed`: the set is another one from now on. */
  constructor(set: ConfigSet, peer: (node: NodeId) => Voter, changed: (set: ConfigSet) => void) {
    this.#set = set;
    this.#peer = peer;
    this.#changed = changed;
  }

  get set(): ConfigSet {
    return this.#set;
  }

  /** Before the first connection. */
  tell(askers: Askers): void {
    this.#askers = askers;
  }

  heard(set: ConfigSet): void {
    if (set.version <= this.#set.version) return;
    this.#set = set;
    this.#changed(set);
    const voters = set.nodes.map(({ node }) => ({ node, peer: this.#peer(node) }));
    reconfigure(this.#askers, voters);
  }
}

export interface NodeConfigEnvironment extends LinkEnvironment {
  readonly network: Network;
  readonly core: NodeCore;
  readonly seat: ConfigSeat;
  readonly peer: PeerId;
}

/** A node among its config nodes: its ways to them, and its copy when it joins them. */
export class NodeConfig {
  readonly #environment: NodeConfigEnvironment;
  readonly #local: LocalPeer;
  readonly #peers = new Map<NodeId, NodePeer>();
  #askers: Askers | null = null;
  #copy: StateCopy | null = null;
  /** Version that the askers have been told of. */
  #version: number;
  #stopped = false;

  constructor(environment: NodeConfigEnvironment) {
    this.#environment = environment;
    this.#local = new LocalPeer(environment.core, environment.ticker);
    this.#version = environment.seat.set.version;
  }

  /** The config nodes, each with the way to it. */
  get voters(): readonly { readonly node: NodeId; readonly peer: Voter }[] {
    return this.#environment.seat.set.nodes.map(({ node }) => ({ node, peer: this.#voter(node) }));
  }

  /** Whether there is a session to another node; null: it is this one. */
  isLinked(node: NodeId): boolean | null {
    if (node === this.#local.node) return null;
    return (this.#peers.get(node)?.session ?? null) !== null;
  }

  /** Nodes from which it has still to copy before it votes. */
  get copiesFrom(): readonly NodeId[] {
    return this.#copy?.waitingFor ?? [];
  }

  start(askers: Askers): void {
    this.#askers = askers;
    this.changed();
  }

  stop(): void {
    this.#stopped = true;
    this.#copy?.stop();
    for (const peer of this.#peers.values()) peer.stop();
  }

  /** The seat has changed. */
  changed(): void {
    const { seat } = this.#environment;
    if (this.#askers === null || this.#stopped) return;
    if (seat.set.version !== this.#version) {
      this.#version = seat.set.version;
      reconfigure(this.#askers, this.voters);
    }
    this.#copyIfEmpty(seat);
    const { version, nodes, before } = seat.set;
    const hasToCopy = seat.isConfig && !seat.votesIn(version);
    const used = new Set((hasToCopy ? [...nodes, ...before] : nodes).map(({ node }) => node));
    for (const [node, peer] of this.#peers) {
      if (used.has(node)) continue;
      peer.stop();
      this.#peers.delete(node);
    }
  }

  #copyIfEmpty(seat: ConfigSeat): void {
    if (this.#copy !== null && (!seat.isEmpty || this.#copy.version !== seat.set.version)) {
      this.#copy.stop();
      this.#copy = null;
    }
    if (!seat.isEmpty || this.#copy !== null) return;
    const { clock, core } = this.#environment;
    this.#copy = new StateCopy({
      clock,
      seat,
      acceptor: core.acceptor,
      source: (node) => this.#remote(node),
      promised: (key, epoch) => core.promised(key, epoch),
    });
  }

  #voter(node: NodeId): Voter {
    return node === this.#local.node ? this.#local : this.#remote(node);
  }

  #remote(node: NodeId): NodePeer {
    const { network, core, seat: sets, peer } = this.#environment;
    let remote = this.#peers.get(node);
    if (remote === undefined) {
      remote = new NodePeer(this.#environment, network, { cluster: core.cluster, node, peer, sets });
      this.#peers.set(node, remote);
      if (!this.#stopped) remote.start();
    }
    return remote;
  }
}

function reconfigure(
  askers: Askers | null,
  voters: readonly { readonly node: NodeId; readonly peer: Voter }[],
): void {
  askers?.register.reconfigure(voters);
  askers?.lease.reconfigure(voters.map(({ peer }) => peer));
}
