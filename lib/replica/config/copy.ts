/**
 * How a node that joins the config nodes gets the states of what was decided before it: all of them, from a majority of
 * the set before, each asked only when it answers for that set no more.
 *
 * Invariants
 *  1. Of every record the highest promise and the newest accepted value of that majority is on the device before the
 *     node votes. So whatever was chosen or promised before is known to every majority that it is part of.
 *  2. Nothing that it has is made older.
 *  3. A copy that a newer set overtakes counts for nothing.
 */
import type { Clock, Timer } from "../../core/clock.js";
import type { AcceptorState, RecordAcceptor } from "../acceptor.js";
import type { NodeId } from "../api.js";
import { REGISTER_RETRY_MS } from "../limits.js";
import type { ConfigSeat } from "./seat.js";
import { majorityOf } from "./set.js";

/** A state of a record as a node tells it. */
export interface ToldState {
  readonly key: number;
  readonly state: AcceptorState;
}

/** A node of the set before. */
export interface StateSource {
  /** All of its states, for who joins with `version`, then `done`; false: not now. */
  states(version: number, visit: (told: ToldState) => void, done: (complete: boolean) => void): void;
}

export interface CopyEnvironment {
  readonly clock: Clock;
  readonly seat: ConfigSeat;
  readonly acceptor: RecordAcceptor;
  /** Ways to a node; the asker keeps them. */
  source(node: NodeId): StateSource;
  /** A promise has come with a copy: what is served here of an older epoch is over. */
  promised(key: number, epoch: number): void;
}

export class StateCopy {
  readonly #environment: CopyEnvironment;
  readonly #version: number;
  readonly #needed: number;
  readonly #open: Set<NodeId>;
  readonly #told: ToldState[] = [];
  #heard = 0;
  #timers = new Set<Timer>();
  #over = false;

  /** Of the set that the seat has now. */
  constructor(environment: CopyEnvironment) {
    this.#environment = environment;
    const { set, node } = environment.seat;
    this.#version = set.version;
    this.#needed = majorityOf(set.before.length);
    this.#open = new Set(set.before.map((one) => one.node).filter((one) => one !== node));
    for (const one of this.#open) this.#ask(one);
  }

  get version(): number {
    return this.#version;
  }

  /** Nodes that have not told everything yet. */
  get waitingFor(): readonly NodeId[] {
    return [...this.#open];
  }

  stop(): void {
    this.#over = true;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
  }

  #ask(node: NodeId): void {
    const told: ToldState[] = [];
    const visit = (one: ToldState): void => {
      told.push(one);
    };
    this.#environment.source(node).states(this.#version, visit, (complete) => {
      if (this.#over) return;
      if (!complete) {
        this.#later(() => this.#ask(node));
        return;
      }
      this.#open.delete(node);
      this.#told.push(...told);
      this.#heard++;
      if (this.#heard === this.#needed) this.#store(this.#told.slice());
    });
  }

  /** One after another; a device that cannot store them stays without a vote. */
  #store(left: ToldState[]): void {
    const { acceptor, seat, promised } = this.#environment;
    const one = left.pop();
    if (this.#over) return;
    if (one === undefined) {
      this.stop();
      seat.filled(this.#version);
      return;
    }
    promised(one.key, one.state.promised.epoch);
    acceptor.merge(one.key, one.state, (durable) => {
      if (durable) this.#store(left);
      else
        this.#later(() => {
          this.#store([...left, one]);
        });
    });
  }

  #later(run: () => void): void {
    const timer = this.#environment.clock.setTimer(REGISTER_RETRY_MS, () => {
      this.#timers.delete(timer);
      if (!this.#over) run();
    });
    this.#timers.add(timer);
  }
}
