/**
 * One io_uring as JavaScript sees it: submission entries are written and completions read in the mapped
 * queues; the kernel is entered only by `submit`.
 *
 * Invariants
 *  1. Entries are used in ring order; one is prepared only while fewer than all wait for the kernel.
 *  2. Every prepared entry has a slot that names its target, until its last completion has been delivered.
 *  3. Completions are first copied out of the queue and counted (control word 0), then delivered. So the
 *     addon knows at any moment how many requests the kernel still holds, also when this thread is ended in
 *     the middle of a delivery, and a target that throws loses no completion but its own.
 *  4. What lies in the arena is read by the kernel at submission only (IORING_FEAT_SUBMIT_STABLE): it is
 *     free again once nothing waits to be submitted.
 */
import { assert } from "../core/assert.js";
import {
  CQE_WORD,
  CQE_WORDS,
  Errno,
  IORING_CQ_EVENTFD_DISABLED,
  IORING_CQE_F_MORE,
  IORING_SETUP_COOP_TASKRUN,
  IORING_SETUP_SINGLE_ISSUER,
  IORING_SETUP_TASKRUN_FLAG,
  IORING_SQ_CQ_OVERFLOW,
  IORING_SQ_TASKRUN,
  SQE_WORD,
  SQE_WORDS,
} from "./abi.js";
import { type Addon, checkResult, type NativeRing, type OnBell } from "./addon.js";

/** Entries of one submission. More are submitted in several. */
const SQ_ENTRIES = 1024;
/** Completions that fit; beyond, the kernel keeps them in a list of its own until there is room. */
const CQ_ENTRIES = 8192;
/**
 * Completion work is done when this thread enters the kernel anyway, not by interrupting it. Linux 6.0.
 * Measured against the alternatives in docs/architecture/uring.md.
 */
const RING_FLAGS = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
const FLUSH_WAIT_MICROS = 1000;
/** Attempts to make room in a full submission queue (10 s) before the ring is declared broken. */
const FLUSH_ATTEMPTS_MAX = 10_000;

/** Word of the control page that is ours to write; 0 counts completions, 1 is how often the kernel was entered. */
const CONTROL_SPIN = 2;

export interface RingTarget {
  /** `result` and `flags` of the completion; `flags & IORING_CQE_F_MORE` says that further ones follow. */
  ringDone(result: number, flags: number): void;
}

export interface RingStats {
  submissions: number;
  completions: number;
}

export class Ring {
  /** Submission entries; `prepare` says where the caller's begins. */
  readonly words: Int32Array;
  /** Message headers and gather lists, as words. */
  readonly arenaWords: Int32Array;
  readonly stats: RingStats = { submissions: 0, completions: 0 };
  /** Told when work is prepared, so that somebody will submit it. */
  onPrepared: () => void = () => {};

  readonly #addon: Addon;
  readonly #native: NativeRing;
  readonly #queues: Int32Array;
  readonly #control: Int32Array;
  readonly #mask: number;
  readonly #entries: number;
  readonly #sqTailAt: number;
  readonly #sqFlagsAt: number;
  readonly #cqHeadAt: number;
  readonly #cqTailAt: number;
  readonly #cqFlagsAt: number;
  readonly #cqesAt: number;
  readonly #cqMask: number;
  #tail: number;
  #cqHead: number;
  #waiting = 0;
  #arenaUsed = 0;

  #targets: RingTarget[] = [];
  #freeSlots: number[] = [];
  #inFlight = 0;

  /** Completions taken and not delivered: slot, result, flags. */
  #taken: Int32Array = new Int32Array(3 * 1024);
  #takenCount = 0;
  #deliveredCount = 0;

  constructor(native: Addon, onBell: OnBell) {
    this.#addon = native;
    const made = native.ringCreate(SQ_ENTRIES, CQ_ENTRIES, RING_FLAGS, onBell);
    if (typeof made === "number") throw new RingRefused(made);
    this.#native = made;
    this.words = new Int32Array(made.entries);
    this.arenaWords = new Int32Array(made.control, made.arenaOffset, made.arenaBytes >>> 2);
    this.#control = new Int32Array(made.control, 0, 3);
    this.#queues = new Int32Array(made.queues);
    this.#entries = made.sqEntries;
    this.#mask = made.sqEntries - 1;
    this.#cqMask = made.cqEntries - 1;
    this.#sqTailAt = made.sqTail >>> 2;
    this.#sqFlagsAt = made.sqFlags >>> 2;
    this.#cqHeadAt = made.cqHead >>> 2;
    this.#cqTailAt = made.cqTail >>> 2;
    this.#cqFlagsAt = made.cqFlags >>> 2;
    this.#cqesAt = made.cqes >>> 2;
    this.#tail = this.#queues[this.#sqTailAt]!;
    this.#cqHead = this.#queues[this.#cqHeadAt]!;
  }

  /** Times that the kernel was entered, modulo 2³². */
  get enters(): number {
    return this.#control[1]! >>> 0;
  }

  /** Requests prepared and not finished. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** A cleared entry whose completions go to `target`: index of its first word in `words`. */
  prepare(target: RingTarget): number {
    if (this.#waiting === this.#entries) this.#flush();
    let slot = this.#freeSlots.pop();
    if (slot === undefined) slot = this.#targets.push(target) - 1;
    else this.#targets[slot] = target;
    const at = (this.#tail & this.#mask) * SQE_WORDS;
    const words = this.words;
    for (let i = at; i < at + SQE_WORDS; i++) words[i] = 0;
    words[at + SQE_WORD.userData] = slot;
    this.#tail = (this.#tail + 1) | 0;
    this.#waiting++;
    this.#inFlight++;
    this.onPrepared();
    return at;
  }

  /** Byte offset into the arena of `bytes` bytes, 8-aligned, good for an entry prepared right afterwards. */
  arenaTake(bytes: number): number {
    const rounded = (bytes + 7) & ~7;
    // A full submission queue would be flushed by `prepare`, and the arena with it: flush before.
    if (this.#arenaUsed + rounded > this.arenaWords.byteLength || this.#waiting === this.#entries)
      this.#flush();
    const at = this.#arenaUsed;
    this.#arenaUsed += rounded;
    return at;
  }

  /** Descriptor of Node's own loop. */
  get loopFd(): number {
    return this.#native.loopFd;
  }

  /** Address of an arena offset, for the kernel. */
  arenaAddress(at: number): number {
    return this.#native.arenaAddress + at;
  }

  /** Hands everything prepared to the kernel and lets it finish its completion work, if there is either. */
  submit(): void {
    if (this.#waiting > 0 || this.#workPending()) this.#enter(0);
  }

  /**
   * Makes what is prepared visible to the kernel without entering it: whoever enters it next submits so many
   * entries, and says what came of it by `entered`. `spinMicros`: how long it may look for completions,
   * without giving the CPU away, before it sleeps; how long it does is learned for each kind of wait by itself.
   */
  publish(spinMicros: number, awaited: Awaited): number {
    this.#control[CONTROL_SPIN] = 2 * spinMicros + awaited;
    Atomics.store(this.#queues, this.#sqTailAt, this.#tail);
    return this.#waiting;
  }

  /** Something completed that was not collected. */
  ready(): boolean {
    return (
      Atomics.load(this.#queues, this.#cqTailAt) !== this.#cqHead ||
      this.#workPending() ||
      this.#deliveredCount < this.#takenCount
    );
  }

  /** Silences the bell while completions are looked for anyway. */
  mute(): void {
    Atomics.store(this.#queues, this.#cqFlagsAt, IORING_CQ_EVENTFD_DISABLED);
  }

  /** Afterwards look once more with `ready`: what came in between rang no bell. */
  unmute(): void {
    Atomics.store(this.#queues, this.#cqFlagsAt, 0);
  }

  /** Copies completions out of the queue. */
  collect(): void {
    const queues = this.#queues;
    const tail = Atomics.load(queues, this.#cqTailAt);
    const count = (tail - this.#cqHead) | 0;
    if (count === 0) return;
    this.#makeRoom(count);
    const taken = this.#taken;
    let out = this.#takenCount * 3;
    let ended = 0;
    let head = this.#cqHead;
    for (; head !== tail; head = (head + 1) | 0) {
      const at = this.#cqesAt + (head & this.#cqMask) * CQE_WORDS;
      const flags = queues[at + CQE_WORD.flags]!;
      taken[out++] = queues[at + CQE_WORD.userData]!;
      taken[out++] = queues[at + CQE_WORD.res]!;
      taken[out++] = flags;
      if ((flags & IORING_CQE_F_MORE) === 0) ended++;
    }
    this.#takenCount += count;
    this.#cqHead = head;
    this.#control[0] = this.#control[0]! + ended;
    Atomics.store(queues, this.#cqHeadAt, head);
    this.stats.completions += count;
  }

  /** Delivers what was collected; completions that arrive meanwhile wait for the next collection. */
  deliver(): void {
    while (this.#deliveredCount < this.#takenCount) {
      const at = this.#deliveredCount++ * 3;
      const slot = this.#taken[at]!;
      const result = this.#taken[at + 1]!;
      const flags = this.#taken[at + 2]!;
      const target = this.#targets[slot]!;
      if ((flags & IORING_CQE_F_MORE) === 0) {
        this.#targets[slot] = FINISHED;
        this.#freeSlots.push(slot);
        this.#inFlight--;
      }
      target.ringDone(result, flags);
    }
    this.#takenCount = 0;
    this.#deliveredCount = 0;
  }

  /** Whether the ring keeps the process alive. */
  hold(hold: boolean): void {
    this.#addon.ringHold(this.#native.id, hold ? 1 : 0);
  }

  close(): void {
    this.#addon.ringClose(this.#native.id);
  }

  #workPending(): boolean {
    return (Atomics.load(this.#queues, this.#sqFlagsAt) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) !== 0;
  }

  #enter(waitMicros: number): void {
    Atomics.store(this.#queues, this.#sqTailAt, this.#tail);
    this.entered(this.#addon.ringEnter(this.#native.id, this.#waiting, waitMicros));
  }

  /** The kernel was entered with what was published: `result` entries were taken, or −errno. */
  entered(result: number): void {
    if (result > 0) {
      this.#waiting -= result;
      this.stats.submissions += result;
      if (this.#waiting === 0) this.#arenaUsed = 0;
      return;
    }
    // Out of memory for requests, too many completions unread, or a signal: it is tried again.
    if (result === 0 || result === Errno.EAGAIN || result === Errno.EBUSY || result === Errno.EINTR) return;
    checkResult("io_uring_enter", result);
  }

  /** Submits until nothing waits, without delivering anything. */
  #flush(): void {
    for (let attempt = 0; this.#waiting > 0; attempt++) {
      assert(attempt < FLUSH_ATTEMPTS_MAX, "the kernel takes no submissions");
      this.#enter(attempt === 0 ? 0 : FLUSH_WAIT_MICROS);
      if (this.#waiting > 0) this.collect();
    }
  }

  #makeRoom(count: number): void {
    const needed = (this.#takenCount + count) * 3;
    if (needed <= this.#taken.length) return;
    const grown = new Int32Array(Math.max(needed, this.#taken.length * 2));
    grown.set(this.#taken.subarray(0, this.#takenCount * 3));
    this.#taken = grown;
  }
}

/** What a wait is for. */
export const Awaited = { Client: 0, Device: 1 } as const;
export type Awaited = (typeof Awaited)[keyof typeof Awaited];

/** io_uring_setup failed; `errno` says how. */
export class RingRefused extends Error {
  readonly errno: number;

  constructor(errno: number) {
    super(`io_uring_setup failed: ${errno}`);
    this.errno = errno;
  }
}

const FINISHED: RingTarget = {
  ringDone(): void {
    throw new Error("a finished request completed again");
  },
};
