/** The sessions of a process to the nodes, as owners of volumes share them: one NodePeer each. */
import { assert } from "../../core/assert.js";
import type { LinkEnvironment, Network, NodeId, PeerId, ReplicaSession, SessionListener } from "../api.js";
import type { SetFollower } from "../config/set.js";
import { NodePeer } from "../peer.js";
import type { NodeLinks } from "./api.js";

interface Linked {
  readonly peer: NodePeer;
  readonly watchers: Set<SessionListener>;
}

export class PeerLinks implements NodeLinks {
  readonly #links = new Map<NodeId, Linked>();
  readonly #make: (node: NodeId) => Linked;
  #started = false;

  /** `nodes`: every node that a volume may be on; later ones are added. */
  constructor(
    environment: LinkEnvironment,
    network: Network,
    options: { readonly cluster: Uint8Array; readonly peer: PeerId; readonly sets?: SetFollower },
    nodes: readonly NodeId[],
  ) {
    this.#make = (node) => {
      const watchers = new Set<SessionListener>();
      const listener: SessionListener = {
        sessionOpened: (session) => {
          for (const watcher of [...watchers]) watcher.sessionOpened(session);
        },
        sessionLost: (session, reason) => {
          for (const watcher of [...watchers]) watcher.sessionLost(session, reason);
        },
      };
      return { peer: new NodePeer(environment, network, { ...options, node, listener }), watchers };
    };
    for (const node of nodes) this.add(node);
  }

  /** A node that volumes may be on from now on; nothing happens if it is known. */
  add(node: NodeId): void {
    if (this.#links.has(node)) return;
    const linked = this.#make(node);
    this.#links.set(node, linked);
    if (this.#started) linked.peer.start();
  }

  start(): void {
    this.#started = true;
    for (const { peer } of this.#links.values()) peer.start();
  }

  stop(): void {
    for (const { peer } of this.#links.values()) peer.stop();
  }

  /** As acceptor of records and grantor of leases. */
  peer(node: NodeId): NodePeer {
    return this.#of(node).peer;
  }

  session(node: NodeId): ReplicaSession | null {
    return this.#of(node).peer.session;
  }

  watch(node: NodeId, listener: SessionListener): void {
    this.#of(node).watchers.add(listener);
  }

  unwatch(node: NodeId, listener: SessionListener): void {
    this.#of(node).watchers.delete(listener);
  }

  #of(node: NodeId): Linked {
    const linked = this.#links.get(node);
    assert(linked !== undefined, "links are to known nodes");
    return linked;
  }
}
