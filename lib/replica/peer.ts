/**
 * One node as an asker keeps in touch with it: a session at a time, dialled again when it is lost, cut when the
 * node owes an answer for too long. The register's acceptors and the lease's grantors are these.
 */
import type { Timer } from "../core/clock.js";
import type {
  AcceptAnswer,
  AcceptedRecord,
  AcceptorPeer,
  Ballot,
  LeasePeer,
  LinkEnvironment,
  Network,
  NodeId,
  PeerId,
  PromiseAnswer,
  ReplicaSession,
  SessionListener,
} from "./api.js";
import type { StateSource, ToldState } from "./config/copy.js";
import type { ConfigSet, SetFollower } from "./config/set.js";
import { REDIAL_MS, SILENCE_MAX_MS } from "./limits.js";
import { NodeSession } from "./session.js";

export interface NodePeerOptions {
  readonly cluster: Uint8Array;
  readonly node: NodeId;
  /** Of this life of the asker. */
  readonly peer: PeerId;
  /** Told of sessions that open and end, when they are not only for control. */
  readonly listener?: SessionListener;
  /** The set of config nodes that it is asked as one of; absent: they never change. */
  readonly sets?: SetFollower;
}

export class NodePeer implements AcceptorPeer, LeasePeer, StateSource, SessionListener {
  readonly node: NodeId;
  readonly #environment: LinkEnvironment;
  readonly #network: Network;
  readonly #options: NodePeerOptions;
  #open: NodeSession | null = null;
  #opening: NodeSession | null = null;
  #number = 0;
  #timer: Timer | null = null;
  #watch: Timer | null = null;
  #stopped = false;

  constructor(environment: LinkEnvironment, network: Network, options: NodePeerOptions) {
    this.#environment = environment;
    this.#network = network;
    this.#options = options;
    this.node = options.node;
  }

  /** Open; null while there is none. */
  get session(): ReplicaSession | null {
    return this.#open;
  }

  start(): void {
    this.#dial();
    this.#watchSilence();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#watch?.cancel();
    this.#opening?.close();
    this.#open?.close();
  }

  promise(volume: number, ballot: Ballot, done: (answer: PromiseAnswer) => void): void {
    if (this.#open === null) this.#later(() => done({ kind: "unknown" }));
    else this.#open.promise(volume, ballot, done, this.#version);
  }

  accept(volume: number, record: AcceptedRecord, done: (answer: AcceptAnswer) => void): void {
    if (this.#open === null) this.#later(() => done({ kind: "unknown" }));
    else this.#open.accept(volume, record, done, this.#version);
  }

  renew(volumes: readonly number[], done: (promised: readonly number[] | null) => void): void {
    if (this.#open === null) this.#later(() => done(null));
    else this.#open.renew(volumes, done, this.#version);
  }

  states(version: number, visit: (told: ToldState) => void, done: (complete: boolean) => void): void {
    if (this.#open === null) this.#later(() => done(false));
    else this.#open.states(version, visit, done);
  }

  /** 0: config nodes never change. */
  get #version(): number {
    return this.#options.sets?.set.version ?? 0;
  }

  /** The newer of the two sets is the one that both go by. */
  #otherSet(named: ConfigSet): void {
    const { sets } = this.#options;
    if (sets === undefined || this.#stopped) return;
    if (named.version > sets.set.version) sets.heard(named);
    else if (named.version < sets.set.version) this.#open?.adopt(sets.set);
  }

  #later(tick: () => void): void {
    this.#environment.ticker.atTickEnd({ tick });
  }

  #dial(): void {
    this.#timer = null;
    if (this.#stopped) return;
    this.#network.dial(this.node, (stream) => {
      if (stream === null) {
        this.#redial();
        return;
      }
      this.#number++;
      const { cluster, node, peer } = this.#options;
      // The set may change who is asked: not from inside the answer.
      const otherSet = (set: ConfigSet): void => this.#later(() => this.#otherSet(set));
      const options = { cluster, node, peer, number: this.#number, otherSet };
      this.#opening = new NodeSession(this.#environment, options, stream, this);
      if (this.#stopped) this.#opening.close();
    });
  }

  #redial(): void {
    if (this.#stopped) return;
    this.#timer = this.#environment.clock.setTimer(REDIAL_MS, () => this.#dial());
  }

  /** A node that has lost its power does not hang up. */
  #watchSilence(): void {
    this.#watch = this.#environment.clock.setTimer(SILENCE_MAX_MS / 4, () => {
      const since = this.#open?.silentSince ?? null;
      if (since !== null && this.#environment.clock.now() - since > SILENCE_MAX_MS) this.#open?.close();
      if (!this.#stopped) this.#watchSilence();
    });
  }

  sessionOpened(session: ReplicaSession): void {
    this.#open = this.#opening;
    this.#opening = null;
    this.#options.listener?.sessionOpened(session);
  }

  sessionLost(session: ReplicaSession, reason: string): void {
    const was = this.#open === session;
    this.#opening = null;
    this.#open = null;
    if (was) this.#options.listener?.sessionLost(session, reason);
    this.#redial();
  }
}
