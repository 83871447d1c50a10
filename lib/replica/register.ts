/**
 * The proposer of volume records (docs/architecture/replica.md "The record register"): what an owner, or whoever
 * changes a record that nobody owns, asks a majority of the config nodes.
 *
 * Invariants
 *  1. A record is called chosen only after a majority of distinct acceptors has answered that it accepted it.
 *  2. What a majority of promises has shown as highest is at least as new as every record that was chosen before
 *     under an older ballot.
 *  3. One ballot never proposes two records with one generation: the generation must rise, or the record be the
 *     same one again.
 *  4. A majority is one of the set of config nodes that is known: when that changes, answers of before do not count,
 *     and what is open is asked anew.
 *
 * No time-out: where a majority cannot be reached the question stays open and is asked again; `waitingFor` says
 * who has not answered. Whoever asked can give it up.
 */
import { assert } from "../core/assert.js";
import type { Clock, Timer } from "../core/clock.js";
import { newerRecord } from "./acceptor.js";
import type { AcceptAnswer, AcceptedRecord, AcceptorPeer, Ballot, NodeId, PromiseAnswer } from "./api.js";
import { REGISTER_RETRY_MS } from "./limits.js";

export interface Acceptor {
  readonly node: NodeId;
  readonly peer: AcceptorPeer;
}

export type PromiseOutcome =
  /** `highest`: the newest record that any of the majority has accepted. */
  | { readonly kind: "promised"; readonly highest: AcceptedRecord | null }
  /** A majority can no longer promise: somebody else has taken over with `promised`. */
  | { readonly kind: "refused"; readonly promised: Ballot };

export type AcceptOutcome =
  | { readonly kind: "chosen" }
  | { readonly kind: "refused"; readonly promised: Ballot }
  | { readonly kind: "name-taken" };

/** A question that is open. */
export interface Asking {
  /** Config nodes that have not answered for good. */
  readonly waitingFor: readonly NodeId[];
  /** Nothing is asked or told any more. What was sent may still be accepted. */
  cancel(): void;
}

export class RecordRegister {
  readonly #clock: Clock;
  #acceptors: readonly Acceptor[];
  /** Questions that somebody has still to answer. */
  readonly #open = new Set<Restartable>();

  /** `acceptors`: every config node, each once. */
  constructor(clock: Clock, acceptors: readonly Acceptor[]) {
    this.#clock = clock;
    this.#acceptors = voting(acceptors);
  }

  /** Other config nodes than before. */
  reconfigure(acceptors: readonly Acceptor[]): void {
    this.#acceptors = voting(acceptors);
    for (const question of [...this.#open]) question.restart(acceptors);
  }

  #ask<Answer>(rules: Rules<Answer>): Asking {
    const question = new Question<Answer>(this.#clock, this.#acceptors, rules, () =>
      this.#open.delete(question),
    );
    this.#open.add(question);
    return question;
  }

  get majority(): number {
    return Math.floor(this.#acceptors.length / 2) + 1;
  }

  /** Phase 1. Goes on asking the others after `done`, so that they are fenced too, until `cancel`. */
  promise(volume: number, ballot: Ballot, done: (outcome: PromiseOutcome) => void): Asking {
    assert(ballot.epoch > 0 && ballot.owner > 0, "a ballot names an epoch and an owner");
    let highest: AcceptedRecord | null = null;
    return this.#ask<PromiseAnswer>({
      ask: (peer, answered) => peer.promise(volume, ballot, answered),
      vote: (answer) => {
        if (answer.kind === "promised") highest = newerRecord(highest, answer.accepted);
        return answer.kind === "promised" ? "yes" : answer.kind === "refused" ? "no" : "again";
      },
      majority: () => done({ kind: "promised", highest }),
      impossible: (answers) => done({ kind: "refused", promised: highestBallot(answers) }),
    });
  }

  /**
   * Phase 2. An acceptor that has not promised this ballot is asked for the promise first: it must drain before
   * it accepts. A record that it has accepted meanwhile is older than this ballot and of no interest.
   */
  accept(volume: number, record: AcceptedRecord, done: (outcome: AcceptOutcome) => void): Asking {
    return this.#ask<AcceptAnswer>({
      ask: (peer, answered) => acceptOrPromise(peer, volume, record, answered),
      vote: (answer) => (answer.kind === "accepted" ? "yes" : answer.kind === "unknown" ? "again" : "no"),
      majority: () => done({ kind: "chosen" }),
      impossible: (answers) =>
        done(
          answers.some(({ kind }) => kind === "refused")
            ? { kind: "refused", promised: highestBallot(answers) }
            : { kind: "name-taken" },
        ),
    });
  }
}

function voting(acceptors: readonly Acceptor[]): readonly Acceptor[] {
  assert(acceptors.length > 0, "a cluster has a config node");
  assert(new Set(acceptors.map(({ node }) => node)).size === acceptors.length, "each config node votes once");
  return acceptors;
}

function acceptOrPromise(
  peer: AcceptorPeer,
  volume: number,
  record: AcceptedRecord,
  answered: (answer: AcceptAnswer) => void,
): void {
  peer.accept(volume, record, (answer) => {
    const behind = answer.kind === "refused" && answer.promised.epoch < record.ballot.epoch;
    if (!behind) {
      answered(answer);
      return;
    }
    peer.promise(volume, record.ballot, (promise) => {
      if (promise.kind === "promised") peer.accept(volume, record, answered);
      else answered(promise);
    });
  });
}

interface Rules<Answer> {
  ask(peer: AcceptorPeer, answered: (answer: Answer) => void): void;
  vote(answer: Answer): "yes" | "no" | "again";
  majority(): void;
  impossible(answers: readonly Answer[]): void;
}

interface Restartable {
  restart(acceptors: readonly Acceptor[]): void;
}

/** One question to all acceptors, asked again where there was no answer. */
class Question<Answer> implements Asking, Restartable {
  readonly #clock: Clock;
  readonly #rules: Rules<Answer>;
  readonly #ended: () => void;
  #open = new Set<Acceptor>();
  #needed = 0;
  #spare = 0;
  #refusals: Answer[] = [];
  readonly #timers = new Set<Timer>();
  #yes = 0;
  #told = false;
  #cancelled = false;

  constructor(clock: Clock, acceptors: readonly Acceptor[], rules: Rules<Answer>, ended: () => void) {
    this.#clock = clock;
    this.#rules = rules;
    this.#ended = ended;
    this.restart(acceptors);
  }

  /** Asks these, and what others have answered counts no more. */
  restart(acceptors: readonly Acceptor[]): void {
    this.#stopTimers();
    const open = new Set(acceptors);
    this.#open = open;
    this.#needed = Math.floor(acceptors.length / 2) + 1;
    this.#spare = acceptors.length - this.#needed;
    this.#refusals = [];
    this.#yes = 0;
    for (const acceptor of acceptors) this.#ask(acceptor, open);
  }

  get waitingFor(): readonly NodeId[] {
    return [...this.#open].map(({ node }) => node);
  }

  cancel(): void {
    this.#cancelled = true;
    this.#stopTimers();
    this.#ended();
  }

  #stopTimers(): void {
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }

  /** `open` is of the set of config nodes that was known when it was asked. */
  #ask(acceptor: Acceptor, open: ReadonlySet<Acceptor>): void {
    this.#rules.ask(acceptor.peer, (answer) => {
      if (!this.#cancelled && open === this.#open) this.#answered(acceptor, answer);
    });
  }

  #answered(acceptor: Acceptor, answer: Answer): void {
    const vote = this.#rules.vote(answer);
    if (vote === "again") {
      const timer = this.#clock.setTimer(REGISTER_RETRY_MS, () => {
        this.#timers.delete(timer);
        this.#ask(acceptor, this.#open);
      });
      this.#timers.add(timer);
      return;
    }
    this.#open.delete(acceptor);
    if (this.#open.size === 0) this.#ended();
    if (vote === "yes") this.#yes++;
    else this.#refusals.push(answer);
    if (this.#told) return;
    if (this.#yes >= this.#needed) {
      this.#told = true;
      this.#rules.majority();
    } else if (this.#refusals.length > this.#spare) {
      this.#told = true;
      this.cancel();
      this.#rules.impossible(this.#refusals);
    }
  }
}

function highestBallot(answers: readonly { readonly kind: string; readonly promised?: Ballot }[]): Ballot {
  let highest: Ballot = { epoch: 0, owner: 0 };
  for (const { promised } of answers) {
    if (promised !== undefined && promised.epoch > highest.epoch) highest = promised;
  }
  return highest;
}
