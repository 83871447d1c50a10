/**
 * The log ring: what has changed since the tables and the directory were last written.
 *
 * Invariants
 *  1. Records of one tick are one frame, appended with one write through the page cache, before any data of
 *     that tick is submitted: after the death of the process the log knows everything the disk may hold.
 *  2. A frame never crosses the end of the ring, and never overwrites a byte at or after the durable tail.
 *  3. The tail moves only after both copies of every table and directory page durably reflect what lies
 *     before it, and only once both copies of the anchor say so.
 *  4. Sequences are consecutive over all incarnations.
 *
 * Positions in bytes count up for ever; the offset in the ring is the position modulo its size.
 */
import { assert } from "../core/assert.js";
import type { Routine } from "../core/routine.js";
import type { Device } from "./device.js";
import {
  ANCHOR_A,
  ANCHOR_B,
  ANCHOR_INCARNATION_WORD,
  ANCHOR_OFFSET_WORD,
  FRAME_HEADER_BYTES,
  frameBytesMax,
  PAGE_BYTES,
  PageKind,
  RecordKind,
} from "./format.js";
import {
  ABSENT_WORDS,
  ALLOC_WORDS,
  deltaWords,
  type ExtentIdentity,
  FREE_WORDS,
  putAbsent,
  putAlloc,
  putDelta,
  putFree,
  putStamp,
  putSynced,
  STAMP_WORDS,
  SYNCED_WORDS,
  sealFrame,
} from "./log-records.js";

/** Remembered frame starts: the tail moves in steps of about 1/1024 of the ring. */
const MARKS = 2048;
const MARK_STEPS = MARKS / 2;

/** Where a frame begins. */
export interface FrameStart {
  readonly sequence: number;
  readonly incarnation: number;
  /** Bytes from the tail. */
  readonly afterTail: number;
}

export interface LogStart {
  /** Offset in the ring and sequence of the oldest frame that is needed. */
  readonly tailOffset: number;
  readonly tailSequence: number;
  readonly tailIncarnation: number;
  /** Bytes from there to the end of the last valid frame. */
  readonly usedBytes: number;
  readonly nextSequence: number;
  readonly anchorVersion: number;
  /** The frames that were found, in order. */
  readonly frames: readonly FrameStart[];
}

/** Where the oldest frame that is needed begins. */
interface Tail {
  readonly sequence: number;
  readonly position: number;
  readonly incarnation: number;
}

export class Log {
  readonly #device: Device;
  readonly #words: Uint32Array;
  readonly #staging: number;
  readonly #frameMax: number;
  readonly #ringBytes: number;
  readonly #ringStart: number;
  /** Bytes in staging, header included; FRAME_HEADER_BYTES when empty. */
  #fill = FRAME_HEADER_BYTES;
  #records = 0;
  #next: number;
  #head: number;
  #tail: number;
  #appended: number;
  #synced: number;
  /** Sequence of the last record that says something. */
  #changed = 0;
  #anchorVersion: number;
  readonly #markSequence = new Float64Array(MARKS);
  readonly #markPosition = new Float64Array(MARKS);
  readonly #markIncarnation = new Uint32Array(MARKS);
  #markFirst = 0;
  #markCount = 0;
  appends = 0;
  appendedBytes = 0;

  /** `staging` is a pool buffer of at least `frameBytesMax(logBytes)` bytes. */
  constructor(device: Device, staging: number, start: LogStart) {
    this.#device = device;
    this.#words = device.words;
    this.#staging = staging;
    this.#ringBytes = device.layout.logBytes;
    this.#ringStart = device.layout.log;
    this.#frameMax = frameBytesMax(this.#ringBytes);
    this.#tail = start.tailOffset;
    this.#head = start.tailOffset + start.usedBytes;
    this.#next = start.nextSequence;
    this.#appended = start.nextSequence - 1;
    // Recovery synced the device before it read the log, so all that was found is durable.
    this.#synced = this.#appended;
    this.#anchorVersion = start.anchorVersion;
    for (const { sequence, afterTail, incarnation } of start.frames) {
      this.#mark(sequence, start.tailOffset + afterTail, incarnation);
    }
  }

  /** Sequence of the next record. */
  get nextSequence(): number {
    return this.#next;
  }
  /** Highest sequence that was appended. */
  get appendedSequence(): number {
    return this.#appended;
  }
  /** Highest sequence that is known to be on stable storage. */
  get syncedSequence(): number {
    return this.#synced;
  }
  /** Sequence of the last record that says more than what is synced; 0 before the first. */
  get changedSequence(): number {
    return this.#changed;
  }
  get usedBytes(): number {
    return this.#head - this.#tail;
  }
  get ringBytes(): number {
    return this.#ringBytes;
  }

  /** Records up to `sequence` are stable: told by the sync service. */
  markSynced(sequence: number): void {
    if (sequence > this.#synced) this.#synced = sequence;
  }

  /**
   * Whether records of `words` words together can be staged now without touching the tail. If so they will be
   * in one frame: a staged frame that has no room left for them is appended first.
   */
  makeRoom(words: number): boolean {
    if (this.#fill + words * 4 > this.#frameMax) this.append();
    const length = this.#fill + words * 4;
    return this.#head + this.#spanOf(this.#head, length) - this.#tail <= this.#ringBytes;
  }

  delta(slot: number, alloc: number, block: number, count: number, entries: Uint32Array): number {
    putDelta(this.#words, this.#reserve(deltaWords(count)), slot, alloc, block, count, entries);
    return this.#staged();
  }

  absent(slot: number, alloc: number, block: number, count: number): number {
    putAbsent(this.#words, this.#reserve(ABSENT_WORDS), slot, alloc, block, count);
    return this.#staged();
  }

  alloc(slot: number, identity: ExtentIdentity): number {
    putAlloc(this.#words, this.#reserve(ALLOC_WORDS), slot, identity);
    return this.#staged();
  }

  free(slot: number, alloc: number): number {
    putFree(this.#words, this.#reserve(FREE_WORDS), RecordKind.Free, slot, alloc);
    return this.#staged();
  }

  freed(slot: number, alloc: number): number {
    putFree(this.#words, this.#reserve(FREE_WORDS), RecordKind.Freed, slot, alloc);
    return this.#staged();
  }

  stamp(slot: number, alloc: number, generation: number): number {
    putStamp(this.#words, this.#reserve(STAMP_WORDS), slot, alloc, generation);
    return this.#staged();
  }

  #staged(): number {
    this.#changed = this.#next;
    return this.#next++;
  }

  /** Appends a record that says nothing but what is synced, unless other records will, or there is no room. */
  sayWhatIsSynced(): void {
    if (this.#records > 0 || !this.makeRoom(SYNCED_WORDS)) return;
    putSynced(this.#words, this.#reserve(SYNCED_WORDS));
    this.#next++;
    this.append();
  }

  /** Appends what is staged. Afterwards the process may die without losing it. */
  append(): void {
    if (this.#records === 0 || this.#device.failed !== null) return;
    const length = this.#fill;
    const position = this.#head + this.#spanOf(this.#head, length) - length;
    assert(position + length - this.#tail <= this.#ringBytes, "the log never overwrites its tail");
    sealFrame(
      this.#words,
      this.#staging,
      {
        length,
        incarnation: this.#device.incarnation,
        records: this.#records,
        first: this.#next - this.#records,
        synced: this.#synced,
      },
      this.#device.env.checksums,
      this.#device.seed,
    );
    const offset = this.#ringStart + (position % this.#ringBytes);
    const result = this.#device.env.disk.appendNow(offset, this.#staging, length);
    if (result !== length) {
      this.#device.fail(`the log could not be appended to (${result < 0 ? `errno ${-result}` : "short"})`);
      return;
    }
    this.#mark(this.#next - this.#records, position, this.#device.incarnation);
    this.#head = position + length;
    this.#appended = this.#next - 1;
    this.#fill = FRAME_HEADER_BYTES;
    this.#records = 0;
    this.appends++;
    this.appendedBytes += length;
  }

  /**
   * Frees the ring below the frame that holds `sequence`. The caller has made durable, twice, all that the
   * records before it say. Writes both copies of the anchor through the page at `memory`.
   */
  *freeBelow(sequence: number, memory: number, sync: () => Routine<void>): Routine<void> {
    this.append();
    const tail = this.#frameOf(sequence);
    if (tail.position <= this.#tail) return;
    yield* this.#writeAnchor(tail, ANCHOR_A, memory, sync);
    this.#tail = tail.position;
    this.#forgetMarks(tail.position);
  }

  /**
   * At open: makes both copies of the anchor equal, the one at `stale` first. Before the
   * first append, for the ring below the tail may be overwritten from then on, and the stale copy counts on it.
   */
  *repairAnchor(stale: number, start: LogStart, memory: number, sync: () => Routine<void>): Routine<void> {
    const tail = { sequence: start.tailSequence, position: this.#tail, incarnation: start.tailIncarnation };
    yield* this.#writeAnchor(tail, stale, memory, sync);
  }

  *#writeAnchor(tail: Tail, first: number, memory: number, sync: () => Routine<void>): Routine<void> {
    this.#anchorVersion++;
    this.#encodeAnchor(memory, tail);
    for (const copy of [first, first === ANCHOR_A ? ANCHOR_B : ANCHOR_A]) {
      yield* this.#device.io.write(copy, memory, PAGE_BYTES);
      yield* sync();
    }
  }

  #encodeAnchor(memory: number, tail: Tail): void {
    const at = memory >>> 2;
    this.#words.fill(0, at, at + PAGE_BYTES / 4);
    this.#words[at + ANCHOR_OFFSET_WORD] = tail.position % this.#ringBytes;
    this.#words[at + ANCHOR_INCARNATION_WORD] = tail.incarnation;
    this.#device.io.seal(memory, PAGE_BYTES, {
      kind: PageKind.Anchor,
      index: 0,
      incarnation: this.#device.incarnation,
      version: this.#anchorVersion,
      position: tail.sequence,
    });
  }

  /** Word offset for a record of `words` words, which `makeRoom` has found room for. */
  #reserve(words: number): number {
    const at = (this.#staging + this.#fill) >>> 2;
    this.#fill += words * 4;
    this.#records++;
    return at;
  }

  /** Bytes that a frame of `length` takes at `position`, the skipped end of the ring included. */
  #spanOf(position: number, length: number): number {
    const left = this.#ringBytes - (position % this.#ringBytes);
    return length <= left ? length : left + length;
  }

  #mark(sequence: number, position: number, incarnation: number): void {
    if (this.#markCount > 0) {
      const last = (this.#markFirst + this.#markCount - 1) % MARKS;
      if (position - this.#markPosition[last]! < this.#ringBytes / MARK_STEPS) return;
    }
    if (this.#markCount === MARKS) this.#dropMark();
    const at = (this.#markFirst + this.#markCount) % MARKS;
    this.#markSequence[at] = sequence;
    this.#markPosition[at] = position;
    this.#markIncarnation[at] = incarnation;
    this.#markCount++;
  }

  #dropMark(): void {
    this.#markFirst = (this.#markFirst + 1) % MARKS;
    this.#markCount--;
  }

  #forgetMarks(position: number): void {
    while (this.#markCount > 0 && this.#markPosition[this.#markFirst]! < position) this.#dropMark();
  }

  /** Latest remembered frame start at or before `sequence`; the head when everything was appended before it. */
  #frameOf(sequence: number): Tail {
    const { incarnation } = this.#device;
    if (sequence > this.#appended) return { sequence: this.#appended + 1, position: this.#head, incarnation };
    let found: Tail = { sequence: 0, position: this.#tail, incarnation: 0 };
    for (let i = 0; i < this.#markCount; i++) {
      const at = (this.#markFirst + i) % MARKS;
      if (this.#markSequence[at]! > sequence) break;
      found = {
        sequence: this.#markSequence[at]!,
        position: this.#markPosition[at]!,
        incarnation: this.#markIncarnation[at]!,
      };
    }
    return found;
  }
}
