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

  promise(volume: number, ballot: Ballot, done: (answer: PromiseAnswer) => void): void {
    this.#node.promise(volume, ballot, (answer) => this.#later(() => done(answer)));
  }

  accept(volume: number, record: AcceptedRecord, done: (answer: AcceptAnswer) => void): void {
    this.#node.accept(volume, record, (answer) => this.#later(() => done(answer)));
  }

  renew(volumes: readonly number[], done: (promised: readonly number[] | null) => void): void {
    const epochs = this.#node.mayVote ? volumes.map((volume) => this.#node.promisedEpoch(volume)) : null;
    this.#later(() => done(epochs));
  }

  /** Nobody is called back from inside the call that asked. */
  #later(tick: () => void): void {
    this.#ticker.atTickEnd({ tick });
  }
}
