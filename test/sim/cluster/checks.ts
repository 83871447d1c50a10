/**
 * What must hold in every run of the simulated cluster, whoever owns volumes in it (DESIGN §10: I9, I10, I11, I14,
 * and fencing). The checks know what askers were answered and what nodes gave their stores; nothing else.
 */

import type { ExtentIo, ExtentOp } from "../../../lib/core/extent-io.js";
import type { RecordAcceptor } from "../../../lib/replica/acceptor.js";
import type { AcceptedRecord, AcceptorPeer, Ballot, LeasePeer } from "../../../lib/replica/api.js";
import type { Stability } from "../../../lib/store/api.js";
import { Violation } from "../violation.js";
import type { CopyRules } from "./copy-rules.js";
import { textOf } from "./record-text.js";

/** Layer of operations that nobody may execute: they carry something wrong. */
export const FORGED_LAYER = 99;

/** A node as one of the config nodes. */
export interface Voter {
  readonly index: number;
  /** Version of the set that it joined with, while it votes; 0: it does not. */
  readonly joinedWith: number;
  acceptedOf(key: number): AcceptedRecord | null;
}

interface Heard {
  readonly ballot: Ballot;
  readonly bytes: string;
  /** Nodes, each with the version of the set of config nodes that it was asked under; 0: they never change. */
  readonly acceptedBy: Set<string>;
}

/** Records of one volume follow each other in this order. */
interface Ordered {
  readonly epoch: number;
  readonly generation: number;
}

function isOlder(a: Ordered, b: Ordered): boolean {
  return a.epoch < b.epoch || (a.epoch === b.epoch && a.generation < b.generation);
}

export class ClusterChecks {
  readonly #majority: number;
  /** Per node and volume: the highest epoch that an asker was told to be promised. */
  readonly #promised = new Map<string, number>();
  /** Per node and volume: the highest epoch that it has promised, whoever has heard of it. */
  readonly #fenced = new Map<string, number>();
  /** Per node: operations that its store has now. */
  readonly #inStore = new Map<number, Set<ExtentOp>>();
  /** Per volume and (epoch, generation): who has accepted what. */
  readonly #records = new Map<string, Heard>();
  /** Per volume: the newest record that is known to be chosen. */
  readonly #chosen = new Map<number, Ordered>();
  /** Per volume, epoch and owner: who has promised it, as in Heard; and per volume and epoch the owner who has a majority. */
  readonly #votes = new Map<string, Set<string>>();
  readonly #electedOf = new Map<string, number>();
  /** Per volume and version of the set of config nodes: the newest record that was chosen under it. */
  readonly #chosenUnder = new Map<number, Map<number, Ordered>>();
  readonly #voters: Voter[] = [];
  /** Per volume: the highest epoch that has begun to serve. */
  readonly #serving = new Map<number, number>();
  /** Nodes on which something runs that is not the device that the cluster knows. */
  readonly #impostors = new Set<number>();
  /** What must hold of copies; null: owners are not what keeps it. */
  rules: CopyRules | null = null;
  promises = 0;
  accepts = 0;
  executed = 0;
  answers = 0;

  constructor(configNodes: number) {
    this.#majority = Math.floor(configNodes / 2) + 1;
  }

  // ---- Nodes -------------------------------------------------------------------------------------------

  /** A node's process has begun: its store is empty of operations; what it has stored may not be older. */
  nodeStarted(node: number, promisedOf: (volume: number) => number): void {
    this.rules?.holdings.died(node, this.#inStore.get(node) ?? []);
    this.#inStore.set(node, new Set());
    if (this.#impostors.has(node)) return;
    for (const [key, epoch] of this.#promised) {
      const [of, volume] = key.split("/").map(Number) as [number, number];
      if (of === node && promisedOf(volume) < epoch)
        throw new Violation("I9", `node ${node} came back with promise ${promisedOf(volume)} after ${epoch}`);
    }
  }

  /** Whether what is started on the node from now on is an old backup of its device: it may do nothing. */
  impostor(node: number, is: boolean): void {
    if (is) this.#impostors.add(node);
    else this.#impostors.delete(node);
  }

  #notAnImpostor(node: number, what: string): void {
    if (this.#impostors.has(node)) throw new Violation("I14", `an old backup of node ${node} ${what}`);
  }

  /** What the node had not made stable may be gone. */
  powerLost(node: number): void {
    this.rules?.holdings.powerLost(node);
  }

  /** The store of a node, watched. */
  watch(node: number, store: ExtentIo): ExtentIo["submit"] {
    const inStore = this.#inStore.get(node)!;
    return (op) => {
      this.#notAnImpostor(node, "executed an operation");
      if (op.layer === FORGED_LAYER)
        throw new Violation("I14", `node ${node} executed an operation that was not for it`);
      const promised = this.#promised.get(`${node}/${op.volume}`) ?? 0;
      if (op.epoch < promised)
        throw new Violation("I9", `node ${node} executed epoch ${op.epoch} after it promised ${promised}`);
      this.executed++;
      inStore.add(op);
      const ended = this.rules?.holdings.submitted(node, op) ?? null;
      const { listener } = op;
      op.listener = {
        extentDone: (done) => {
          inStore.delete(op);
          ended?.();
          op.listener = listener;
          listener.extentDone(done);
        },
      };
      store.submit(op);
    };
  }

  /** An asker was told that the node has promised; `sameLife`: by the process that runs on it now. */
  promiseAnswered(node: number, volume: number, ballot: Ballot, sameLife: boolean): void {
    this.promises++;
    const key = `${node}/${volume}`;
    this.#promised.set(key, Math.max(ballot.epoch, this.#promised.get(key) ?? 0));
    if (sameLife) this.#nothingOlderIn(node, volume, ballot);
  }

  #nothingOlderIn(node: number, volume: number, ballot: Ballot): void {
    this.#notAnImpostor(node, "promised");
    for (const op of this.#inStore.get(node) ?? []) {
      if (op.volume === volume && op.epoch < ballot.epoch)
        throw new Violation(
          "I9",
          `node ${node} promised ${ballot.epoch} while epoch ${op.epoch} was in its store`,
        );
    }
  }

  /** A node's acceptor, watched: nothing older is in the store when a promise is about to be answered. */
  watchPromises(node: number, acceptor: RecordAcceptor): RecordAcceptor {
    const promise: RecordAcceptor["promise"] = (volume, ballot, done) => {
      acceptor.promise(volume, ballot, (answer) => {
        if (answer.kind === "promised") this.#nodePromised(node, volume, ballot);
        done(answer);
      });
    };
    return withOther(acceptor, { promise });
  }

  #nodePromised(node: number, volume: number, ballot: Ballot): void {
    if (this.rules?.holdings.of(node, volume) === undefined) return;
    const key = `${node}/${volume}`;
    this.#fenced.set(key, Math.max(ballot.epoch, this.#fenced.get(key) ?? 0));
    this.#nothingOlderIn(node, volume, ballot);
  }

  /** What says which extents of a node may cool, watched. */
  watchStability(node: number, stability: Stability): Stability {
    return {
      isStable: (volume, layer, extent) => {
        const is = stability.isStable(volume, layer, extent);
        if (is) this.rules?.cooling(volume, node, extent);
        return is;
      },
    };
  }

  // ---- Records -----------------------------------------------------------------------------------------

  acceptAnswered(node: number, volume: number, record: AcceptedRecord, set = 0): void {
    this.accepts++;
    const { epoch } = record.ballot;
    const key = `${volume}/${epoch}/${record.generation}`;
    const bytes = textOf(record.bytes);
    let heard = this.#records.get(key);
    if (heard === undefined) {
      heard = { ballot: record.ballot, bytes, acceptedBy: new Set() };
      this.#records.set(key, heard);
    }
    if (heard.bytes !== bytes || heard.ballot.owner !== record.ballot.owner)
      throw new Violation("I11", `two records have epoch ${epoch} and generation ${record.generation}`);
    heard.acceptedBy.add(`${set}/${node}`);
    if (!this.#hasMajority(heard.acceptedBy, set)) return;
    this.#nowChosenUnder(volume, set, { epoch, generation: record.generation });
    this.#nowChosen(volume, record);
  }

  #hasMajority(by: ReadonlySet<string>, set: number): boolean {
    return [...by].filter((one) => one.startsWith(`${set}/`)).length >= this.#majority;
  }

  /** A config node's promise has reached its asker: of one epoch one owner has a majority, under whatever set (I10). */
  voteAnswered(node: number, volume: number, { epoch, owner }: Ballot, set: number): void {
    const key = `${volume}/${epoch}/${owner}`;
    const votes = this.#votes.get(key) ?? new Set();
    this.#votes.set(key, votes.add(`${set}/${node}`));
    if (!this.#hasMajority(votes, set)) return;
    const elected = this.#electedOf.get(`${volume}/${epoch}`) ?? owner;
    this.#electedOf.set(`${volume}/${epoch}`, elected);
    if (elected !== owner)
      throw new Violation("I10", `epoch ${epoch} of ${volume} is promised to two owners`);
  }

  /** Somebody was told that his record is chosen: by a majority of one set (I10). */
  toldChosen(volume: number, { ballot: { epoch }, generation }: AcceptedRecord): void {
    const heard = this.#records.get(`${volume}/${epoch}/${generation}`);
    const sets = new Set([...(heard?.acceptedBy ?? [])].map((one) => Number.parseInt(one, 10)));
    if (heard !== undefined && [...sets].some((set) => this.#hasMajority(heard.acceptedBy, set))) return;
    throw new Violation("I10", `${epoch}/${generation} was told as chosen, and no set has a majority for it`);
  }

  #nowChosenUnder(volume: number, set: number, record: Ordered): void {
    let sets = this.#chosenUnder.get(volume);
    if (sets === undefined) {
      sets = new Map();
      this.#chosenUnder.set(volume, sets);
    }
    const before = sets.get(set);
    if (before !== undefined && !isOlder(before, record)) return;
    sets.set(set, record);
    for (const voter of this.#voters) this.#knows(voter, volume, set, record);
  }

  /** A node that may vote, now or later. */
  addVoter(voter: Voter): void {
    this.#voters.push(voter);
  }

  /** The node votes in another set than before, or votes again: it knows what was chosen before it joined (I10). */
  seatChanged(voter: Voter): void {
    for (const [volume, sets] of this.#chosenUnder)
      for (const [set, record] of sets) this.#knows(voter, volume, set, record);
  }

  /** Whoever votes has what was chosen under sets before the one that it joined with, or something newer. */
  #knows(voter: Voter, volume: number, set: number, record: Ordered): void {
    const { index, joinedWith } = voter;
    if (set >= joinedWith || this.#impostors.has(index)) return;
    const accepted = voter.acceptedOf(volume);
    const { epoch, generation } = record;
    if (accepted !== null && !isOlder({ ...accepted, epoch: accepted.ballot.epoch }, record)) return;
    throw new Violation(
      "I10",
      `node ${index} votes since set ${joinedWith} without ${epoch}/${generation} of ${volume}, chosen under set ${set}`,
    );
  }

  #nowChosen(volume: number, record: AcceptedRecord): void {
    const { generation } = record;
    const { epoch } = record.ballot;
    const before = this.#chosen.get(volume);
    if (before !== undefined) {
      if (epoch > before.epoch && generation <= before.generation)
        throw new Violation(
          "I11",
          `generation ${generation} of epoch ${epoch} does not follow ${before.generation}`,
        );
      if (!isOlder(before, { epoch, generation })) return;
    }
    this.#chosen.set(volume, { epoch, generation });
    this.rules?.chosen(volume, record);
  }

  /** What is known to be chosen now; taken when phase 1 begins, compared when it has ended. */
  chosen(volume: number): Ordered | null {
    return this.#chosen.get(volume) ?? null;
  }

  /** A majority has promised `ballot` and shown `highest`; `before` was chosen when that began. */
  phaseOneEnded(ballot: Ballot, highest: AcceptedRecord | null, before: Ordered | null): void {
    if (before === null || before.epoch > ballot.epoch) return;
    const seen = highest === null ? "nothing" : `${highest.ballot.epoch}/${highest.generation}`;
    if (highest === null || isOlder({ ...highest, epoch: highest.ballot.epoch }, before))
      throw new Violation(
        "I10",
        `epoch ${ballot.epoch} saw ${seen} although ${before.epoch}/${before.generation} was chosen`,
      );
  }

  // ---- Owners ------------------------------------------------------------------------------------------

  /**
   * An owner has heard that its record was chosen. It may hear so late, when a newer one serves already: then its lease
   * keeps it from ever answering.
   */
  servingBegan(volume: number, epoch: number): void {
    this.#serving.set(volume, Math.max(epoch, this.#serving.get(volume) ?? 0));
    this.rules?.activated(volume, epoch, (node) => this.#fenced.get(`${node}/${volume}`) ?? 0);
  }

  /** The newest epoch of the volume that has begun to serve. */
  newestServing(volume: number): number {
    return this.#serving.get(volume) ?? 0;
  }

  /** An owner has answered a client. */
  answered(volume: number, epoch: number): void {
    this.answers++;
    const newest = this.#serving.get(volume) ?? 0;
    if (epoch < newest)
      throw new Violation("FENCE", `epoch ${epoch} answered a client while ${newest} was serving`);
  }
}

/** `target` with other methods in the place of some; everything else is its own. */
export function withOther<T extends object>(target: T, other: Partial<T>): T {
  return new Proxy(target, {
    get: (_target, name) => {
      const replaced: unknown = Reflect.get(other, name);
      if (replaced !== undefined) return replaced;
      const value: unknown = Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** A node as the checks know it: one life of it after the other. */
interface Living {
  readonly index: number;
  readonly alive: boolean;
  readonly life: number;
}

/** An acceptor whose answers the checks hear of. `set`: which one it is asked under. */
export function watchedAcceptor(
  checks: ClusterChecks,
  node: Living,
  peer: AcceptorPeer,
  set: () => number = () => 0,
): AcceptorPeer {
  return {
    promise: (volume, ballot, done) => {
      const { life } = node;
      const version = set();
      peer.promise(volume, ballot, (answer) => {
        const isSameLife = node.alive && node.life === life;
        if (answer.kind === "promised") {
          checks.promiseAnswered(node.index, volume, ballot, isSameLife);
          if (version > 0) checks.voteAnswered(node.index, volume, ballot, version);
        }
        done(answer);
      });
    },
    accept: (volume, record, done) => {
      const version = set();
      peer.accept(volume, record, (answer) => {
        if (answer.kind === "accepted") checks.acceptAnswered(node.index, volume, record, version);
        done(answer);
      });
    },
  };
}

/** A config node as acceptor and grantor, whose votes the checks hear of. */
export type WatchedVoter = AcceptorPeer & LeasePeer;

export function watchedVoter(
  checks: ClusterChecks,
  node: Living,
  peer: AcceptorPeer & LeasePeer,
  set: () => number,
): WatchedVoter {
  const watched = watchedAcceptor(checks, node, peer, set);
  return {
    promise: (key, ballot, done) => watched.promise(key, ballot, done),
    accept: (key, record, done) => watched.accept(key, record, done),
    renew: (volumes, done) => peer.renew(volumes, done),
  };
}
