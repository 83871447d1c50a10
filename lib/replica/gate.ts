/**
 * The gate of one volume on one node: what is let in, and the promise that shuts everything older out
 * (docs/architecture/replica.md "Fencing").
 *
 * Invariants
 *  1. Open lets in operations of exactly the promised ballot; no other state lets anything in.
 *  2. A promise is answered after every older operation has been answered by the store, and when it is durable.
 *  3. The generation never falls while one ballot holds.
 */
import { assert } from "../core/assert.js";
import { Status } from "../core/status.js";
import { type RecordAcceptor, sameBallot } from "./acceptor.js";
import type { Ballot, LeaseView, PromiseAnswer } from "./api.js";

const GateState = { Closed: 0, Draining: 1, Persisting: 2, Open: 3 } as const;
type GateState = (typeof GateState)[keyof typeof GateState];

interface Waiter {
  readonly ballot: Ballot;
  readonly done: (answer: PromiseAnswer) => void;
}

export class VolumeGate {
  readonly volume: number;
  readonly #acceptor: RecordAcceptor;
  readonly #lease: LeaseView;
  /** Told when the gate has opened, before the promise is answered. */
  readonly #opened: (gate: VolumeGate) => void;
  #state: GateState = GateState.Closed;
  /** Open: what is let in. Otherwise: what is wanted, or was let in last. */
  #ballot: Ballot;
  #generation = 0;
  #mark = 0;
  #inFlight = 0;
  readonly #waiters: Waiter[] = [];

  constructor(
    volume: number,
    acceptor: RecordAcceptor,
    lease: LeaseView,
    opened: (gate: VolumeGate) => void,
  ) {
    this.volume = volume;
    this.#acceptor = acceptor;
    this.#lease = lease;
    this.#opened = opened;
    this.#ballot = acceptor.state(volume).promised;
  }

  get isOpen(): boolean {
    return this.#state === GateState.Open;
  }

  /** The highest ballot that was promised, or is going to be. */
  get ballot(): Ballot {
    return this.#ballot;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Whether a message about the volume's data comes from whom the gate is open for. */
  isOf(epoch: number, owner: number): boolean {
    return this.isOpen && this.#ballot.epoch === epoch && this.#ballot.owner === owner;
  }

  /** Ok: the operation may be executed; `leave` follows its end. A higher generation is taken over. */
  enter(epoch: number, owner: number, generation: number): Status {
    if (!this.isOf(epoch, owner)) return Status.Fenced;
    if (generation < this.#generation) return Status.Outdated;
    if (!this.#lease.holds(this.#mark)) return Status.NoLease;
    this.#generation = generation;
    this.#inFlight++;
    return Status.Ok;
  }

  /**
   * The operation has ended. False: its answer must not be given, because the lease ended meanwhile or a newer
   * promise is known of.
   */
  leave(): boolean {
    assert(this.#inFlight > 0, "what leaves has entered");
    this.#inFlight--;
    if (this.#state === GateState.Draining) this.#proceed();
    return this.#state !== GateState.Closed && this.#lease.holds(this.#mark);
  }

  promise(ballot: Ballot, done: (answer: PromiseAnswer) => void): void {
    const known = this.#highest();
    if (ballot.epoch < known.epoch || (ballot.epoch === known.epoch && !sameBallot(ballot, known))) {
      done({ kind: "refused", promised: known });
      return;
    }
    this.#waiters.push({ ballot, done });
    if (this.isOpen && sameBallot(ballot, this.#ballot)) {
      this.#answer();
      return;
    }
    this.#ballot = ballot;
    // A write of the page that is under way is for an older ballot; the next one follows it.
    if (this.#state !== GateState.Persisting) this.#state = GateState.Draining;
    this.#proceed();
  }

  /** A config node has promised this epoch: who holds an older one is over, although it has not come here yet. */
  learn(epoch: number): void {
    if (this.isOpen && epoch > this.#ballot.epoch) this.#state = GateState.Closed;
  }

  #highest(): Ballot {
    const { promised } = this.#acceptor.state(this.volume);
    return promised.epoch > this.#ballot.epoch ? promised : this.#ballot;
  }

  #proceed(): void {
    if (this.#state !== GateState.Draining || this.#inFlight > 0) return;
    this.#state = GateState.Persisting;
    const ballot = this.#ballot;
    this.#acceptor.promise(this.volume, ballot, (answer) => this.#persisted(ballot, answer));
  }

  #persisted(ballot: Ballot, answer: PromiseAnswer): void {
    if (answer.kind !== "promised") {
      this.#state = GateState.Closed;
      for (const waiter of this.#waiters.splice(0)) waiter.done(answer);
      return;
    }
    if (!sameBallot(ballot, this.#ballot)) {
      // A higher one came meanwhile; nothing was let in since.
      this.#state = GateState.Draining;
      this.#proceed();
      return;
    }
    this.#state = GateState.Open;
    this.#generation = 0;
    this.#mark = this.#lease.mark();
    this.#opened(this);
    this.#answer();
  }

  /** The gate is open: who asked for its ballot has it, who asked for an older one is refused. */
  #answer(): void {
    const { accepted } = this.#acceptor.state(this.volume);
    for (const { ballot, done } of this.#waiters.splice(0)) {
      if (sameBallot(ballot, this.#ballot)) done({ kind: "promised", accepted });
      else done({ kind: "refused", promised: this.#ballot });
    }
  }
}
