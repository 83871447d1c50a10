/**
 * The caretaker of a gateway: opens volumes that nobody has open and whose copies need it, until they are whole
 * (docs/architecture/cluster.md "The caretaker"). It opens them as for a client and has no other way to do anything.
 *
 * Invariants
 *  1. A volume is opened only when it has needed it for the whole delay under one epoch: who opened it meanwhile, another
 *     caretaker or a client, has begun a new one.
 *  2. At most CARED_MAX are open for it, and each look takes up at most PAGE_MAX records.
 *  3. Whoever else asks for one gets it at the next look. One that makes no progress for STALL_MS is let go of, and left
 *     alone for longer each time.
 */
import type { Random } from "../../core/clock.js";
import type { ClusterRecord } from "../../replica/owner/record.js";
import type { Need } from "./needs.js";
import type { CareWork } from "./work.js";

/** Volumes that one gateway keeps open for their copies at a time. */
export const CARED_MAX = 2;
/** Records that are looked at in one look. A look is made once a second. */
export const PAGE_MAX = 1000;
/** Volumes in need that are known at a time. Others are found when those are well. */
export const CONCERNS_MAX = 1024;
/** Without progress for so long a volume is let go of. */
export const STALL_MS = 90_000;
/** The longest time that one is left alone after it was let go of in vain. */
export const BACKOFF_MAX_MS = 60 * 60_000;
/** Copies in sync that are away are given up, as by any who opens the volume, after so long. */
export const AWAY_PATIENCE_MS = 10 * 60_000;
/** What a node says of its copies may be so old. */
export const REPORT_LAG_MS = 10_000;

/** A volume that is open for nobody but its copies. */
export interface Kept {
  /** Whether it still is. False: somebody else has it, or it could not be opened, or it was let go of. */
  readonly isHeld: boolean;
  /** Why it could not be opened; null while nothing is wrong. */
  readonly fault: string | null;
  /** Clients that have it open here besides. */
  readonly clients: number;
  /** Null: it is being opened. */
  readonly work: CareWork | null;
  /** Lets go of it in order. Harmless when that is done. */
  release(): void;
}

export interface CareHost {
  /** Clock.now. */
  now(): number;
  readonly random: Random;
  /** Numbers of all volumes. */
  volumes(): readonly number[];
  /** As it was heard of last; undefined: it is none, or was removed. */
  recordOf(volume: number): ClusterRecord | undefined;
  /** Null: it needs nobody. `since`: what nodes have said before is not heeded. */
  needOf(record: ClusterRecord, since: number): Need | null;
  /** Extents with bad blocks that nodes have told of last. */
  rottenIn(record: ClusterRecord): number;
  /** The volume is open here, or being let go of. */
  isOpen(volume: number): boolean;
  /** Another gateway asks for it. */
  isWanted(volume: number): boolean;
  /** Null: it cannot be opened here now. */
  keep(volume: number): Kept | null;
  /** One sentence. */
  tell(kind: "care-started" | "care-ended", volume: string, text: string): void;
}

/** A volume in need. */
interface Concern {
  readonly name: string;
  need: Need;
  /** Of its record when the delay began. */
  epoch: number;
  /** Clock.now. */
  dueAt: number;
  /** Since when copies that are in sync are away; null: none is. */
  awaySince: number | null;
}

/** A volume that is kept. */
interface Care {
  readonly name: string;
  readonly why: string;
  readonly kept: Kept;
  readonly since: number;
  /** The least that was ever left to do, and since when nothing less. */
  least: number;
  progressAt: number;
}

/** A volume that was let go of, here or by another gateway. */
interface Left {
  readonly at: number;
  /** It is left alone until then. */
  readonly until: number;
  /** How often that was in vain, one after another. */
  readonly tries: number;
  /** What nodes have told before is not heeded. */
  readonly heardFrom: number;
}

/** One volume, as people are told of it. */
export interface CareState {
  readonly volume: string;
  readonly state: "kept" | "due" | "waits";
  readonly why: string;
  /** Seconds until it is opened; null unless due. */
  readonly inSeconds: number | null;
  /** Nodes that it waits for. */
  readonly waitsFor: readonly string[];
}

export class Caretaker {
  readonly #host: CareHost;
  readonly #delayMs: number;
  readonly #concerns = new Map<number, Concern>();
  readonly #cares = new Map<number, Care>();
  readonly #left = new Map<number, Left>();
  /** Of this round, those that were not looked at yet. */
  #round: readonly number[] = [];
  #at = 0;
  #isStopped = false;

  /** `delayMs`: for how long a volume needs care before it gets it; as much again by chance. */
  constructor(host: CareHost, delayMs: number) {
    this.#host = host;
    this.#delayMs = delayMs;
  }

  /** Volumes that are kept. */
  get keeps(): readonly number[] {
    return [...this.#cares.keys()];
  }

  get inNeed(): number {
    return this.#concerns.size;
  }

  /** After each look of the gateway at the records. */
  look(): void {
    if (this.#isStopped) return;
    for (const [id, care] of this.#cares) this.#tend(id, care);
    this.#page();
    this.#begin();
  }

  /** Lets go of everything, and takes nothing more. */
  stop(): void {
    this.#isStopped = true;
    for (const { kept } of this.#cares.values()) kept.release();
    this.#cares.clear();
    this.#concerns.clear();
  }

  /** The volumes that it keeps, and then those in need that are nearest, `max` in all. */
  states(max: number): readonly CareState[] {
    const now = this.#host.now();
    const kept = [...this.#cares.values()].map(
      ({ name, why }): CareState => ({ volume: name, state: "kept", why, inSeconds: null, waitsFor: [] }),
    );
    const others = [...this.#concerns.values()]
      .sort((a, b) => a.dueAt - b.dueAt)
      .map((concern): CareState => {
        const { name, need, dueAt } = concern;
        const why = need.why.join(", ");
        if (!this.#isPossible(concern, now))
          return { volume: name, state: "waits", why, inSeconds: null, waitsFor: need.away };
        const inSeconds = Math.max(0, Math.ceil((dueAt - now) / 1000));
        return { volume: name, state: "due", why, inSeconds, waitsFor: [] };
      });
    return [...kept, ...others].slice(0, max);
  }

  // ---- Finding -----------------------------------------------------------------------------------------

  #page(): void {
    if (this.#at >= this.#round.length) {
      this.#round = this.#host.volumes();
      this.#at = 0;
      this.#forget();
    }
    const end = Math.min(this.#at + PAGE_MAX, this.#round.length);
    for (; this.#at < end; this.#at++) this.#consider(this.#round[this.#at]!);
  }

  /** What is over: removed volumes, and what has been well for long. */
  #forget(): void {
    const host = this.#host;
    const past = host.now() - 2 * BACKOFF_MAX_MS;
    for (const id of this.#concerns.keys()) if (host.recordOf(id) === undefined) this.#concerns.delete(id);
    for (const [id, { at }] of this.#left)
      if (at < past || host.recordOf(id) === undefined) this.#left.delete(id);
  }

  /** Null: it needs nobody now. */
  #consider(id: number): Concern | null {
    if (this.#cares.has(id)) return null;
    const record = this.#host.recordOf(id);
    const left = this.#left.get(id);
    const need =
      record === undefined || this.#host.isOpen(id) ? null : this.#host.needOf(record, left?.heardFrom ?? 0);
    if (need === null) {
      this.#concerns.delete(id);
      return null;
    }
    const now = this.#host.now();
    const { epoch, name } = record!;
    const known = this.#concerns.get(id);
    if (known === undefined && this.#concerns.size >= CONCERNS_MAX) return null;
    const concern = known ?? { name, need, epoch: -1, dueAt: left?.until ?? 0, awaySince: null };
    concern.need = need;
    concern.awaySince = need.away.length === 0 ? null : (concern.awaySince ?? now);
    if (concern.epoch !== epoch) {
      concern.epoch = epoch;
      concern.dueAt = Math.max(concern.dueAt, now + this.#delay());
      // Whoever was there may have put right what nodes have told of before.
      if (known !== undefined) this.#note(id, left?.until ?? 0, left?.tries ?? 0, now + REPORT_LAG_MS);
    }
    this.#concerns.set(id, concern);
    return concern;
  }

  /** Two gateways hardly choose the same moment. */
  #delay(): number {
    return this.#delayMs + (this.#host.random.u32() / 2 ** 32) * this.#delayMs;
  }

  #isPossible({ need, awaySince }: Concern, now: number): boolean {
    if (!need.isEnough) return false;
    return awaySince === null || now - awaySince >= AWAY_PATIENCE_MS;
  }

  // ---- Opening -----------------------------------------------------------------------------------------

  /** Those first that have the fewest copies. */
  #begin(): void {
    if (this.#cares.size >= CARED_MAX) return;
    const now = this.#host.now();
    const due = [...this.#concerns]
      .filter(([, concern]) => concern.dueAt <= now && this.#isPossible(concern, now))
      .sort(([, a], [, b]) => a.need.margin - b.need.margin || a.dueAt - b.dueAt);
    for (const [id] of due) {
      if (this.#cares.size >= CARED_MAX) return;
      // It may have been some time since it was looked at.
      const concern = this.#consider(id);
      if (concern === null || concern.dueAt > now || !this.#isPossible(concern, now)) continue;
      if (!this.#host.isWanted(id)) this.#keep(id, concern, now);
    }
  }

  #keep(id: number, { name, need }: Concern, now: number): void {
    const kept = this.#host.keep(id);
    if (kept === null) return;
    const why = need.why.join(", ");
    this.#concerns.delete(id);
    this.#cares.set(id, { name, why, kept, since: now, least: Infinity, progressAt: now });
    this.#host.tell("care-started", name, `volume ${name} is opened for its copies: ${why}`);
  }

  // ---- Keeping -----------------------------------------------------------------------------------------

  #tend(id: number, care: Care): void {
    const { kept } = care;
    const now = this.#host.now();
    if (!kept.isHeld) {
      this.#end(id, care, "again", kept.fault ?? "another gateway has it");
    } else if (kept.clients > 0) {
      this.#end(id, care, "done", "a client has opened it here");
    } else if (this.#host.isWanted(id)) {
      this.#end(id, care, "again", "another gateway asks for it");
    } else {
      this.#wait(id, care, now);
    }
  }

  #wait(id: number, care: Care, now: number): void {
    const { work } = care.kept;
    const record = this.#host.recordOf(id);
    const rotten = record === undefined ? 0 : this.#host.rottenIn(record);
    const isDone = work?.isDone === true;
    if (isDone && rotten === 0) {
      this.#end(
        id,
        care,
        "done",
        `every copy that can be reached is whole after ${Math.ceil((now - care.since) / 1000)} s`,
      );
      return;
    }
    const left = work === null || work.toGo === null ? Infinity : work.toGo + rotten;
    if (left < care.least) {
      care.least = left;
      care.progressAt = now;
    }
    if (now - care.progressAt < STALL_MS) return;
    const why = `nothing has come of it for ${STALL_MS / 1000} s`;
    this.#end(id, care, isDone ? "inVain" : "again", why);
  }

  #end(id: number, care: Care, how: "done" | "again" | "inVain", why: string): void {
    const { kept, name } = care;
    const now = this.#host.now();
    this.#cares.delete(id);
    kept.release();
    const tries = how === "again" ? (this.#left.get(id)?.tries ?? 0) + 1 : 0;
    const pause = how === "again" ? Math.min(this.#delay() * 2 ** tries, BACKOFF_MAX_MS) : 0;
    // What is left then no copy is good of.
    const deaf = how === "inVain" ? BACKOFF_MAX_MS : REPORT_LAG_MS;
    this.#note(id, now + pause, tries, now + deaf);
    this.#host.tell("care-ended", name, `volume ${name} is let go of: ${why}`);
  }

  #note(id: number, until: number, tries: number, heardFrom: number): void {
    const before = this.#left.get(id)?.heardFrom ?? 0;
    this.#left.set(id, { at: this.#host.now(), until, tries, heardFrom: Math.max(before, heardFrom) });
  }
}
