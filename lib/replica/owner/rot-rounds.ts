/**
 * What members find by themselves: each in-sync one is asked from time to time in which extents it knows of bad blocks
 * (lib/store scrub), and those go where rot goes that a read has met, to repair.
 *
 * Invariants
 *  1. One question to a member is open at a time.
 *  2. What no copy could mend is handed on again when the record has changed, or after ROT_RETRY_MS: nothing is read, and
 *     told, again and again.
 *  3. No member is needed for it, and taken out because it is away: what it would need one for is left for a later round.
 */
import type { ReplicaSession, RottenPage } from "../api.js";
import { ROT_RETRY_MS, ROT_ROUND_MS } from "./limits.js";
import type { Member } from "./member.js";

export interface RotHost {
  readonly volume: number;
  readonly epoch: number;
  readonly generation: number;
  readonly over: boolean;
  readonly members: readonly Member[];
  /** Clock.now. */
  now(): number;
  /** False: too many extents wait for their repair. */
  rotten(member: Member, extent: number): boolean;
}

/** Of one member. */
class Round {
  /** In which it was asked; another one is asked at once. */
  session: ReplicaSession | null = null;
  isOpen = false;
  nextAt = 0;
  /** First extent of the next question. */
  from = 0;
  /** By extent of which no copy was good, when and under which generation it was looked for. */
  readonly hopeless = new Map<number, { readonly at: number; readonly generation: number }>();
}

export class RotRounds {
  readonly #host: RotHost;
  readonly #rounds = new WeakMap<Member, Round>();

  constructor(host: RotHost) {
    this.#host = host;
  }

  /** Asks the members whose time has come. */
  look(): void {
    const now = this.#host.now();
    for (const member of this.#host.members) {
      if (!member.inSync || !member.usable) continue;
      const round = this.#of(member);
      const isNew = round.session !== member.session;
      if (!isNew && (round.isOpen || now < round.nextAt)) continue;
      this.#ask(member, round, now);
    }
  }

  #of(member: Member): Round {
    const known = this.#rounds.get(member);
    if (known !== undefined) return known;
    const round = new Round();
    this.#rounds.set(member, round);
    return round;
  }

  #ask(member: Member, round: Round, now: number): void {
    const { volume, epoch } = this.#host;
    const session = member.session!;
    round.session = session;
    round.isOpen = true;
    round.nextAt = now + ROT_ROUND_MS;
    session.rotten(volume, epoch, round.from, (page) => {
      if (round.session !== session) return;
      round.isOpen = false;
      if (page !== null && !this.#host.over) this.#hand(member, round, page);
    });
  }

  /** The member has blocks in the extent that no copy could mend. */
  hopeless(member: Member, extent: number): void {
    this.#of(member).hopeless.set(extent, { at: this.#host.now(), generation: this.#host.generation });
  }

  #hand(member: Member, round: Round, { extents, more }: RottenPage): void {
    const now = this.#host.now();
    for (const [extent, { at, generation }] of round.hopeless) {
      if (generation !== this.#host.generation || now - at >= ROT_RETRY_MS) round.hopeless.delete(extent);
    }
    for (const extent of extents) {
      if (round.hopeless.has(extent) || !this.#canBeMended(member, extent)) continue;
      if (this.#host.rotten(member, extent)) continue;
      round.from = extent;
      return;
    }
    const last = extents.at(-1);
    round.from = more > 0 && last !== undefined ? last + 1 : 0;
  }

  /** Every copy that is in sync can be read now. */
  #canBeMended(member: Member, extent: number): boolean {
    if (!member.inSync || !member.holds(extent)) return false;
    return this.#host.members.every((one) => !one.inSync || one.usable || !one.holds(extent));
  }
}
