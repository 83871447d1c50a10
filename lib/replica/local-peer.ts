/** The node of the own process as acceptor and grantor: the same questions without a connection. */
import type { Ticker } from "../core/clock.js";
import type {
  AcceptAnswer,
  AcceptedRecord,
  AcceptorPeer,
  Ballot,
  LeasePeer,
  NodeId,
  PromiseAnswer,
} from "./api.js";
import type { NodeCore } from "./node.js";

export class LocalPeer implements AcceptorPeer, LeasePeer {
  readonly node: NodeId;
  readonly #node: NodeCore;
  readonly #ticker: Ticker;

  constructor(node: NodeCore, ticker: Ticker) {
    this.node = node.id;
    this.#node = node;
    this.#ticker = ticker;
  }

  /** Of the set of config nodes that the node knows, which is the asker's too. */
  get #set(): number {
    return this.#node.seat?.set.version ?? 0;
  }

  promise(volume: number, ballot: Ballot, done: (answer: PromiseAnswer) => void): void {
    const set = this.#set;
    if (!this.#node.votesIn(set)) {
      this.#later(() => done({ kind: "unknown" }));
      return;
    }
    this.#node.promise(volume, ballot, (answer) => {
      const vote: PromiseAnswer = this.#node.votesIn(set) ? answer : { kind: "unknown" };
      this.#later(() => done(vote));
    });
  }

  accept(volume: number, record: AcceptedRecord, done: (answer: AcceptAnswer) => void): void {
    const set = this.#set;
    if (!this.#node.votesIn(set)) {
      this.#later(() => done({ kind: "unknown" }));
      return;
    }
    this.#node.accept(volume, record, (answer) => {
      const vote: AcceptAnswer = this.#node.votesIn(set) ? answer : { kind: "unknown" };
      this.#later(() => done(vote));
    });
  }

  renew(volumes: readonly number[], done: (promised: readonly number[] | null) => void): void {
    const votes = this.#node.mayVote && this.#node.votesIn(this.#set);
    const epochs = votes ? volumes.map((volume) => this.#node.promisedEpoch(volume)) : null;
    this.#later(() => done(epochs));
  }

  /** Nobody is called back from inside the call that asked. */
  #later(tick: () => void): void {
    this.#ticker.atTickEnd({ tick });
  }
}
