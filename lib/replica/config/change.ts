/**
 * One change of the config nodes: a node takes the place of another one (docs/architecture/replica.md "Changing the
 * config nodes").
 *
 * Invariants
 *  1. A set is told to nobody before a majority of the set before has accepted it.
 *  2. What another one has begun is brought to its end first: there is one set of each version.
 *  3. It is told as done when a majority of the new set has accepted it under that set. The node that joined may still
 *     be copying then.
 */
import type { Clock, Random, Timer } from "../../core/clock.js";
import type { AcceptedRecord, Ballot, NodeId, PeerId } from "../api.js";
import type { RegistrationEnvironment } from "../identity.js";
import { REGISTER_RETRY_MS } from "../limits.js";
import type { Asking } from "../register.js";
import {
  CONFIG_SET_KEY,
  type ConfigSet,
  decodeConfigSet,
  encodeConfigSet,
  isIn,
  replaced,
  type SetFollower,
} from "./set.js";

export interface ChangeEnvironment {
  readonly clock: Clock;
  readonly random: Random;
  readonly register: RegistrationEnvironment["register"];
  /** Its set becomes the new one when that is chosen, and the register's acceptors with it, before `heard` returns. */
  readonly follower: SetFollower;
  readonly peer: PeerId;
}

export interface WantedChange {
  readonly old: NodeId;
  readonly next: { readonly node: NodeId; readonly place: string };
}

export type ChangeOutcome =
  | { readonly kind: "changed"; readonly set: ConfigSet }
  /** The set is not one in which that could be done; it may be done already, by somebody else. */
  | { readonly kind: "impossible"; readonly set: ConfigSet };

export class ConfigChange {
  readonly #environment: ChangeEnvironment;
  readonly #wanted: WantedChange;
  readonly #done: (outcome: ChangeOutcome) => void;
  #ballot: Ballot;
  #asking: Asking | null = null;
  #timer: Timer | null = null;
  #over = false;

  constructor(environment: ChangeEnvironment, wanted: WantedChange, done: (outcome: ChangeOutcome) => void) {
    this.#environment = environment;
    this.#wanted = wanted;
    this.#done = done;
    this.#ballot = { epoch: 1, owner: environment.peer };
    this.#promise();
  }

  /** Config nodes that have to be heard. */
  get waitingFor(): readonly NodeId[] {
    return this.#asking?.waitingFor ?? [];
  }

  /** Nothing is asked or told any more. What was sent may still be accepted, and is found by the next change. */
  cancel(): void {
    this.#over = true;
    this.#asking?.cancel();
    this.#timer?.cancel();
  }

  /** Every answer that comes after the set has changed is of a question about the set before. */
  #ask(ask: (sameSet: () => boolean) => Asking): void {
    const { follower } = this.#environment;
    const { version } = follower.set;
    this.#asking?.cancel();
    this.#asking = ask(() => !this.#over && follower.set.version === version);
  }

  #promise(): void {
    const { register } = this.#environment;
    this.#ask((sameSet) =>
      register.promise(CONFIG_SET_KEY, this.#ballot, (outcome) => {
        if (!sameSet()) this.#again(this.#ballot.epoch);
        else if (outcome.kind === "refused") this.#again(outcome.promised.epoch);
        else this.#promised(outcome.highest);
      }),
    );
  }

  /** After a pause that two of them do not choose alike. */
  #again(seen: number): void {
    if (this.#over) return;
    const { clock, random, peer } = this.#environment;
    this.#asking?.cancel();
    this.#ballot = { epoch: Math.max(seen, this.#ballot.epoch) + 1, owner: peer };
    const pause = REGISTER_RETRY_MS + (random.u32() % REGISTER_RETRY_MS);
    this.#timer = clock.setTimer(pause, () => this.#promise());
  }

  #promised(highest: AcceptedRecord | null): void {
    const { set } = this.#environment.follower;
    const found = highest === null ? null : decodeConfigSet(highest.bytes);
    const generation = (highest?.generation ?? 0) + 1;
    const { old, next } = this.#wanted;
    const isOldIn = isIn(set, old);
    const isNextIn = isIn(set, next.node);
    if (found !== null && found.version > set.version) this.#propose(found, generation);
    else if (isOldIn && !isNextIn) this.#propose(replaced(set, old, next), generation);
    else this.#finish({ kind: !isOldIn && isNextIn ? "changed" : "impossible", set });
  }

  #propose(set: ConfigSet, generation: number): void {
    this.#accept(set, generation, () => {
      // Chosen by the set before: from here on it may be told, and is all that counts.
      this.#asking?.cancel();
      this.#environment.follower.heard(set);
      // Whether it is what is wanted, or was begun by somebody else, is looked at anew.
      this.#accept(set, generation + 1, () => this.#again(this.#ballot.epoch));
    });
  }

  #accept(set: ConfigSet, generation: number, chosen: () => void): void {
    const { register } = this.#environment;
    const record = { ballot: this.#ballot, generation, bytes: encodeConfigSet(set) };
    this.#ask((sameSet) =>
      register.accept(CONFIG_SET_KEY, record, (outcome) => {
        if (!sameSet()) this.#again(this.#ballot.epoch);
        else if (outcome.kind === "refused") this.#again(outcome.promised.epoch);
        else if (outcome.kind === "chosen") chosen();
      }),
    );
  }

  #finish(outcome: ChangeOutcome): void {
    this.cancel();
    this.#done(outcome);
  }
}
