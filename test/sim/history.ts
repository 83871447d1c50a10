/**
 * The checker: is what the clients saw possible, if every granule of every volume is a register?
 *
 * A granule's writes carry unique numbers, so each read says which write it saw, and the question can be
 * answered exactly and in linear time. A write and the reads that saw it are a cluster. Let f be the first
 * response of a cluster's members and s their last invocation. If f < s the write is the register's value from f
 * to s at least (a forward zone); else it took effect somewhere between s and f (a backward zone). A history is
 * linearizable iff no two forward zones overlap and no backward zone lies inside a forward one (Gibbons and Korach
 * 1997, "Testing shared memories", section 4). Clusters that can never be seen again are dropped as the run goes.
 *
 * Rules beyond one life of the program
 *  1. A write without an answer when its process died took effect before the next life or never. While no
 *     read has shown that it did, it is doubtful: it forbids nothing. Once a later life has shown another value
 *     that it cannot precede, it never did.
 *  2. A cluster is stable when it was answered with FUA, or had f before the invocation of a flush that was
 *     answered, in whatever life.
 *  3. A power loss leaves one of the clusters that no stable one is known to follow. All of them become doubtful;
 *     the first read that shows one settles it. What is left lay on the medium: it is stable.
 *  4. Zeros have no number: a read of zeros must fit some zero-write. If it fits only one it has seen that one,
 *     else nothing is concluded.
 *  5. Damaged registers (tainted): after rot, an error or the right value; where a fault has left older or
 *     foreign bytes behind a matching history (see device.ts), after a crash anything at all, until overwritten.
 *
 * Time is a counter that moves with every invocation and response, so no two of them are simultaneous.
 */
import { assert } from "../../lib/core/assert.js";
import { ID_GARBAGE, ID_ZEROS } from "./content.js";
import { type Invariant, Violation } from "./violation.js";

const NONE = -1;
const AMBIGUOUS = -2;
const NEVER = Number.POSITIVE_INFINITY;

const DOUBTFUL = 1;
const STABLE = 2;

export const Taint = { None: 0, Rotten: 1, Lost: 2, Unknown: 3 } as const;
export type Taint = (typeof Taint)[keyof typeof Taint];

/**
 * Granules written without a flush, after which one is asked for even in a run that leaves flushes out: any of
 * their values may survive a power loss, so the checker keeps them all, and its time grows with them.
 */
const UNFLUSHED_GRANULES_MAX = 100_000;

/** The write that every register begins with: zeros, stable. */
const INITIAL_WRITE = 0;

export class History {
  /** Time of the history; `tick` moves it. */
  #now = 1;
  /** Invocation of the latest flush that was answered. */
  #flushedUpTo = 0;
  #unflushed = 0;
  /** The latest end of a process. */
  #crashedAt = 0;
  /** Invocation of the oldest read that has no answer yet, as the asker says. */
  oldestReadAt = NEVER;

  readonly #head: Int32Array;
  readonly #tail: Int32Array;
  readonly #taint: Uint8Array;
  readonly #taintedAt: Float64Array;
  /** When the register stopped being Unknown: a read from before may still show anything. */
  readonly #knownSince: Float64Array;
  /** When the register's damage was last overwritten: a read from before may still fail. */
  readonly #mendedAt: Float64Array;

  // Clusters.
  #write = new Int32Array(1024);
  #value = new Int32Array(1024);
  #flags = new Uint8Array(1024);
  #invoked = new Float64Array(1024);
  #first = new Float64Array(1024);
  #last = new Float64Array(1024);
  #next = new Int32Array(1024);
  #free = NONE;
  #used = 0;
  #live = 0;

  constructor(registers: number) {
    this.#head = new Int32Array(registers).fill(NONE);
    this.#tail = new Int32Array(registers).fill(NONE);
    this.#taint = new Uint8Array(registers);
    this.#taintedAt = new Float64Array(registers);
    this.#knownSince = new Float64Array(registers);
    this.#mendedAt = new Float64Array(registers);
  }

  /** Clusters held now: the checker's memory. */
  get live(): number {
    return this.#live;
  }

  /** So much was written since the latest flush that was answered that there should be another. */
  get flushDue(): boolean {
    return this.#unflushed > UNFLUSHED_GRANULES_MAX;
  }

  /** Moves time; the new one is the time of the invocation or response that the caller is about to tell. */
  tick(): number {
    return ++this.#now;
  }

  /** The register exists and is all zeros (a volume was created, or grew). */
  create(register: number): void {
    this.#drop(register);
    this.#append(register, INITIAL_WRITE, ID_ZEROS, 0, 0, STABLE);
    this.#taint[register] = Taint.None;
  }

  /** `write` was asked for at `at`: it gives the register `value` (its own number, or ID_ZEROS). */
  invoke(register: number, write: number, value: number, at: number): void {
    this.#unflushed++;
    this.#prune(register);
    this.#append(register, write, value, at, NEVER, 0);
  }

  /** `write` was answered at `at` with success; `stable` with FUA. */
  acknowledge(register: number, write: number, at: number, stable: boolean): void {
    const cluster = this.#find(register, write);
    if (cluster === NONE) return;
    if (at < this.#first[cluster]!) this.#first[cluster] = at;
    if (stable) this.#flags[cluster] = this.#flags[cluster]! | STABLE;
    this.#checkZones(register, cluster, "I3");
  }

  /** `write` was answered at `at` with an error, or may have been ignored: it has happened by now or never will. */
  doubt(register: number, write: number, at: number): void {
    const cluster = this.#find(register, write);
    if (cluster === NONE || this.#first[cluster]! < NEVER) return;
    this.#first[cluster] = at;
    this.#flags[cluster] = this.#flags[cluster]! | DOUBTFUL;
  }

  /** A read asked for at `from` and answered at `to` saw `value`. Throws a Violation if it cannot have. */
  read(register: number, value: number, from: number, to: number): void {
    if (this.isUnknown(register, from)) return;
    if (value === ID_GARBAGE)
      throw new Violation("I3", `register ${register} holds bytes that nobody wrote there`);
    const cluster = this.#seen(register, value, from, to);
    if (cluster === NONE) throw new Violation(this.#blame(register, value), this.#describe(register, value));
    if (cluster === AMBIGUOUS) return;
    this.#flags[cluster] = this.#flags[cluster]! & ~DOUBTFUL;
    if (to < this.#first[cluster]!) this.#first[cluster] = to;
    if (from > this.#last[cluster]!) this.#last[cluster] = from;
  }

  /** A flush asked for at `from` was answered. */
  flushed(from: number): void {
    this.#unflushed = 0;
    if (from > this.#flushedUpTo) this.#flushedUpTo = from;
  }

  /** The process was killed: what has no answer is settled before anything else happens. */
  kill(): void {
    const at = this.tick();
    for (let register = 0; register < this.#head.length; register++) {
      this.#settlePending(register, at);
      if (this.#taint[register] === Taint.Lost) this.#taint[register] = Taint.Unknown;
    }
    this.#crashedAt = at;
  }

  /** The power failed. */
  powerLoss(): void {
    const at = this.tick();
    for (let register = 0; register < this.#head.length; register++) {
      if (this.#head[register] === NONE) continue;
      this.#settlePending(register, at);
      this.#keepCandidates(register, at);
      if (this.#taint[register] !== Taint.None) this.#taint[register] = Taint.Unknown;
    }
    this.#crashedAt = at;
  }

  /** A fault has changed the bytes of the register or hidden them. */
  taint(register: number, taint: Taint): void {
    if (taint > this.#taint[register]!) this.#taint[register] = taint;
    this.#taintedAt[register] = this.tick();
  }

  /** Nothing can be said about what a read asked for at `from` may show. */
  isUnknown(register: number, from: number): boolean {
    return this.#taint[register] === Taint.Unknown || from < this.#knownSince[register]!;
  }

  /** Whether an operation asked for at `from` may have met damage there. */
  isDamaged(register: number, from: number): boolean {
    return this.#taint[register] !== Taint.None || from < this.#mendedAt[register]!;
  }

  /**
   * A write of the whole block of the register, asked for at `from`, was answered: damage from before is gone. A
   * register of which nothing was known is now known to hold the write's value.
   */
  mend(register: number, write: number, from: number): void {
    const taint = this.#taint[register]!;
    if (taint === Taint.None || this.#taintedAt[register]! > from) return;
    this.#taint[register] = Taint.None;
    this.#mendedAt[register] = this.#now;
    if (taint === Taint.Unknown) this.#knownSince[register] = this.#now;
    // While the write is not stable a power loss may bring back what lay there before.
    const cluster = this.#find(register, write);
    if (cluster !== NONE && !this.#isStable(cluster)) {
      this.#taint[register] = Taint.Lost;
      this.#taintedAt[register] = this.#now;
    }
  }

  // --- the rules -------------------------------------------------------------------------------------------

  /** The cluster that a read has seen, AMBIGUOUS, or NONE. */
  #seen(register: number, value: number, from: number, to: number): number {
    let found = NONE;
    for (let c = this.#head[register]!; c !== NONE; c = this.#next[c]!) {
      if (this.#value[c] !== value || this.#invoked[c]! >= to) continue;
      const first = Math.min(this.#first[c]!, to);
      const last = Math.max(this.#last[c]!, from);
      if (!this.#zonesAgree(register, c, first, last)) continue;
      if (found !== NONE) return AMBIGUOUS;
      found = c;
    }
    return found;
  }

  #checkZones(register: number, cluster: number, invariant: Invariant): void {
    if (this.#taint[register] === Taint.Unknown) return;
    if (this.#zonesAgree(register, cluster, this.#first[cluster]!, this.#last[cluster]!)) return;
    throw new Violation(invariant, this.#describe(register, this.#value[cluster]!));
  }

  /** Whether a cluster with the zone given by `first` and `last` agrees with every other one. */
  #zonesAgree(register: number, cluster: number, first: number, last: number): boolean {
    const forward = first < last;
    for (let c = this.#head[register]!; c !== NONE; c = this.#next[c]!) {
      if (c === cluster || (this.#flags[c]! & DOUBTFUL) !== 0) continue;
      const otherFirst = this.#first[c]!;
      const otherLast = this.#last[c]!;
      if (otherFirst < otherLast) {
        if (forward ? first < otherLast && otherFirst < last : otherFirst < last && first < otherLast)
          return false;
      } else if (forward && first < otherLast && otherFirst < last) {
        return false;
      }
    }
    return true;
  }

  #isStable(cluster: number): boolean {
    return (this.#flags[cluster]! & STABLE) !== 0 || this.#first[cluster]! <= this.#flushedUpTo;
  }

  /** Whether some cluster that is not doubtful, and stable, is known to follow `cluster` by `before`. */
  #followedByStable(register: number, cluster: number, before: number): boolean {
    const first = this.#first[cluster]!;
    for (let c = this.#head[register]!; c !== NONE; c = this.#next[c]!) {
      if (c === cluster || (this.#flags[c]! & DOUBTFUL) !== 0) continue;
      if (first < this.#last[c]! && this.#first[c]! < before && this.#isStable(c)) return true;
    }
    return false;
  }

  /**
   * Forgets what neither a read nor a power loss can bring back: what a stable cluster is known to follow. Two
   * clusters that agree never follow each other, so one look for the latest follower decides for all of them.
   */
  #prune(register: number): void {
    let latest = NONE;
    let lastOfLatest = 0;
    let lastOfSecond = 0;
    for (let c = this.#head[register]!; c !== NONE; c = this.#next[c]!) {
      if ((this.#flags[c]! & DOUBTFUL) !== 0 || this.#first[c]! >= this.oldestReadAt) continue;
      if (!this.#isStable(c)) continue;
      const last = this.#last[c]!;
      if (latest === NONE || last > lastOfLatest) {
        lastOfSecond = lastOfLatest;
        lastOfLatest = last;
        latest = c;
      } else if (last > lastOfSecond) lastOfSecond = last;
    }
    if (latest === NONE) return;
    let before = NONE;
    for (let c = this.#head[register]!; c !== NONE; ) {
      const next = this.#next[c]!;
      if (this.#first[c]! < (c === latest ? lastOfSecond : lastOfLatest)) this.#unlink(register, before, c);
      else before = c;
      c = next;
    }
  }

  #settlePending(register: number, at: number): void {
    for (let c = this.#head[register]!; c !== NONE; c = this.#next[c]!) {
      if (this.#first[c] !== NEVER) continue;
      this.#first[c] = at;
      this.#flags[c] = this.#flags[c]! | DOUBTFUL;
    }
  }

  #keepCandidates(register: number, at: number): void {
    // Two passes: whether a cluster stays must not depend on which others have gone already.
    let before = NONE;
    const lost: number[] = this.#scratch;
    lost.length = 0;
    for (let c = this.#head[register]!; c !== NONE; c = this.#next[c]!) {
      if (this.#followedByStable(register, c, NEVER) || this.#neverHappened(register, c)) lost.push(c);
    }
    let lostAt = 0;
    let kept = 0;
    for (let c = this.#head[register]!; c !== NONE; ) {
      const next = this.#next[c]!;
      if (lost[lostAt] === c) {
        this.#unlink(register, before, c);
        lostAt++;
      } else {
        this.#first[c] = at;
        this.#last[c] = 0;
        this.#flags[c] = DOUBTFUL | STABLE;
        before = c;
        kept++;
      }
      c = next;
    }
    assert(kept > 0, "some value survives a power loss");
    if (kept === 1) this.#flags[this.#head[register]!] = STABLE;
  }

  readonly #scratch: number[] = [];

  #neverHappened(register: number, cluster: number): boolean {
    if ((this.#flags[cluster]! & DOUBTFUL) === 0) return false;
    return !this.#zonesAgree(register, cluster, this.#first[cluster]!, this.#last[cluster]!);
  }

  #blame(register: number, value: number): Invariant {
    for (let c = this.#head[register]!; c !== NONE; c = this.#next[c]!) {
      if (this.#value[c] === value) return "I3";
    }
    return this.#crashedAt > 0 ? "I1" : "I3";
  }

  #describe(register: number, value: number): string {
    const lines: string[] = [];
    for (let c = this.#head[register]!; c !== NONE; c = this.#next[c]!) {
      const doubtful = (this.#flags[c]! & DOUBTFUL) !== 0 ? ", doubtful" : "";
      const stable = this.#isStable(c) ? ", stable" : "";
      lines.push(
        `write ${this.#write[c]} of ${this.#value[c] === 0 ? "zeros" : "data"} asked ${this.#invoked[c]}, ` +
          `first answer ${this.#first[c]}, last seen from ${this.#last[c]}${doubtful}${stable}`,
      );
    }
    const what = value === ID_ZEROS ? "zeros" : `write ${value}`;
    return `register ${register} shows ${what} at ${this.#now}; possible: ${lines.join(" | ")}`;
  }

  // --- clusters ----------------------------------------------------------------------------------------

  #find(register: number, write: number): number {
    for (let c = this.#head[register]!; c !== NONE; c = this.#next[c]!) {
      if (this.#write[c] === write) return c;
    }
    return NONE;
  }

  #append(register: number, write: number, value: number, at: number, first: number, flags: number): void {
    const cluster = this.#take();
    this.#write[cluster] = write;
    this.#value[cluster] = value;
    this.#flags[cluster] = flags;
    this.#invoked[cluster] = at;
    this.#first[cluster] = first;
    this.#last[cluster] = at;
    this.#next[cluster] = NONE;
    const tail = this.#tail[register]!;
    if (tail === NONE) this.#head[register] = cluster;
    else this.#next[tail] = cluster;
    this.#tail[register] = cluster;
  }

  #unlink(register: number, before: number, cluster: number): void {
    const next = this.#next[cluster]!;
    if (before === NONE) this.#head[register] = next;
    else this.#next[before] = next;
    if (this.#tail[register] === cluster) this.#tail[register] = before;
    this.#next[cluster] = this.#free;
    this.#free = cluster;
    this.#live--;
  }

  #drop(register: number): void {
    while (this.#head[register] !== NONE) this.#unlink(register, NONE, this.#head[register]!);
  }

  #take(): number {
    this.#live++;
    if (this.#free !== NONE) {
      const cluster = this.#free;
      this.#free = this.#next[cluster]!;
      return cluster;
    }
    if (this.#used === this.#write.length) this.#grow();
    return this.#used++;
  }

  #grow(): void {
    const wanted = this.#write.length * 2;
    this.#write = copied(this.#write, new Int32Array(wanted));
    this.#value = copied(this.#value, new Int32Array(wanted));
    this.#flags = copied(this.#flags, new Uint8Array(wanted));
    this.#invoked = copied(this.#invoked, new Float64Array(wanted));
    this.#first = copied(this.#first, new Float64Array(wanted));
    this.#last = copied(this.#last, new Float64Array(wanted));
    this.#next = copied(this.#next, new Int32Array(wanted));
  }
}

function copied<T extends Int32Array | Float64Array | Uint8Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
