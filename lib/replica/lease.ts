/**
 * The serving lease of one process (docs/architecture/replica.md "Serving lease"): the right to answer at all.
 *
 * Invariants
 *  1. It counts from the sending of renewals: it holds while a majority of the config nodes has answered renewals
 *     that were sent less than LEASE_MS ago.
 *  2. It holds for a volume only by renewals that asked about it. Renewals are numbered in the order of sending; a
 *     mark is the number of the next one. One that takes several messages counts from the sending of the first, when
 *     the last is answered.
 *  3. Answers of config nodes of different sets make no majority together.
 *  4. A promise that an answer names is told before the lease that the answer gives counts.
 */
import type { Clock, Timer } from "../core/clock.js";
import type { LeasePeer, LeaseView } from "./api.js";
import { LEASE_MS, LEASE_RENEW_MS, RENEW_VOLUMES_MAX, RENEWALS_OPEN_MAX } from "./limits.js";

/** Who serves under the lease. */
export interface LeaseClient {
  /** All volumes that are served now. */
  watched(): readonly number[];
  /**
   * A config node has promised `epoch` of `volume`: whoever serves an older one is over before this returns. The answer
   * that said so makes the lease longer all the same, because it is that of other volumes too.
   */
  promised(volume: number, epoch: number): void;
}

interface Grantor {
  readonly peer: LeasePeer;
  /** Newest answered renewal: its number and when it was sent. */
  round: number;
  sentAt: number;
  /** Renewals that are not answered yet. */
  open: number;
}

const NEVER = Number.NEGATIVE_INFINITY;

export class LeaseKeeper implements LeaseView {
  readonly #clock: Clock;
  readonly #client: LeaseClient;
  #grantors: Grantor[];
  /** Number of the next renewal. */
  #next = 1;
  /** What a majority has reached. */
  #round = 0;
  #sentAt = NEVER;
  #timer: Timer | null = null;
  #stopped = false;

  /** `peers`: every config node, each once. */
  constructor(clock: Clock, peers: readonly LeasePeer[], client: LeaseClient) {
    this.#clock = clock;
    this.#client = client;
    this.#grantors = grantorsOf(peers);
  }

  /**
   * Other config nodes than before, who are asked at once. The lease that there is holds until its end: it was a
   * majority's when that granted it, and who joins knows of every promise that ended it.
   */
  reconfigure(peers: readonly LeasePeer[]): void {
    this.#grantors = grantorsOf(peers);
    this.renewNow();
  }

  start(): void {
    this.renewNow();
    this.#timer = this.#clock.setTimer(LEASE_RENEW_MS, () => {
      if (!this.#stopped) this.start();
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  mark(): number {
    return this.#next;
  }

  holds(mark: number): boolean {
    return !this.#stopped && this.#round >= mark && this.#clock.now() - this.#sentAt < LEASE_MS;
  }

  /** A volume is served from now on: its lease need not wait for the next renewal. */
  renewNow(): void {
    for (const grantor of this.#grantors) this.#renew(grantor);
  }

  #renew(grantor: Grantor): void {
    if (this.#stopped || grantor.open >= RENEWALS_OPEN_MAX) return;
    const volumes = [...this.#client.watched()];
    const round = this.#next++;
    const sentAt = this.#clock.now();
    grantor.open++;
    this.#ask(grantor, volumes, (answered) => {
      grantor.open--;
      if (!answered || this.#stopped) return;
      if (round > grantor.round) {
        grantor.round = round;
        grantor.sentAt = sentAt;
      }
      this.#round = Math.max(this.#round, reachedByMajority(this.#grantors.map((one) => one.round)));
      this.#sentAt = Math.max(this.#sentAt, reachedByMajority(this.#grantors.map((one) => one.sentAt)));
    });
  }

  /** One message after another, so that a process with many volumes does not fill the session. */
  #ask(grantor: Grantor, volumes: readonly number[], done: (answered: boolean) => void): void {
    const asked = volumes.slice(0, RENEW_VOLUMES_MAX);
    grantor.peer.renew(asked, (promised) => {
      if (promised === null || this.#stopped) {
        done(false);
        return;
      }
      asked.forEach((volume, i) => {
        if (promised[i]! > 0) this.#client.promised(volume, promised[i]!);
      });
      if (asked.length === volumes.length) done(true);
      else this.#ask(grantor, volumes.slice(asked.length), done);
    });
  }
}

function grantorsOf(peers: readonly LeasePeer[]): Grantor[] {
  return peers.map((peer) => ({ peer, round: 0, sentAt: NEVER, open: 0 }));
}

/** The highest value that a majority has at least. */
function reachedByMajority(values: readonly number[]): number {
  return [...values].sort((a, b) => b - a)[Math.floor(values.length / 2)] ?? NEVER;
}
