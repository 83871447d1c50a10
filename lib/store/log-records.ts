/**
 * Codec of log frames and records (docs/architecture/store.md, "Log"). A frame is what one tick appended;
 * its records have consecutive sequences beginning at the frame's first one. Records are written in place as
 * words, without allocation.
 */
import type { Checksums } from "../core/checksum.js";
import {
  FRAME_HEADER_BYTES,
  getU64,
  LOG_ALIGN,
  putU64,
  RECORD_ALLOC_WORDS,
  RECORD_DELTA_WORDS,
  RECORD_FREE_WORDS,
  RECORD_STAMP_WORDS,
  RECORD_SYNCED_WORDS,
  RecordKind,
} from "./format.js";

const FRAME_CRC = 0;
const FRAME_LENGTH = 1;
const FRAME_INCARNATION = 2;
const FRAME_RECORDS = 3;
const FRAME_FIRST = 4;
const FRAME_SYNCED = 6;

export interface FrameHeader {
  readonly length: number;
  readonly incarnation: number;
  readonly records: number;
  /** Sequence of the first record. */
  readonly first: number;
  /** Highest sequence that was known to be synced when the frame was appended. */
  readonly synced: number;
}

/** Who an ALLOC gives the slot to. */
export interface ExtentIdentity {
  readonly volume: number;
  readonly layer: number;
  readonly extent: number;
  /** Generation the extent is stamped with. */
  readonly generation: number;
  /** Sequence of the write that created it (placement generation, DESIGN §6). */
  readonly created: number;
}

/** Words of a record, padding included. */
export function deltaWords(blocks: number): number {
  return pad(RECORD_DELTA_WORDS + blocks);
}
export const ABSENT_WORDS = pad(RECORD_DELTA_WORDS);
export const ALLOC_WORDS = pad(RECORD_ALLOC_WORDS);
export const FREE_WORDS = pad(RECORD_FREE_WORDS);
export const STAMP_WORDS = pad(RECORD_STAMP_WORDS);
export const SYNCED_WORDS = pad(RECORD_SYNCED_WORDS);

function pad(words: number): number {
  return words + (words & (LOG_ALIGN / 4 - 1));
}

/** Seals the frame of `length` bytes at pool offset `memory`. */
export function sealFrame(
  words: Uint32Array,
  memory: number,
  header: FrameHeader,
  checksums: Checksums,
  seed: number,
): void {
  const at = memory >>> 2;
  words[at + FRAME_LENGTH] = header.length;
  words[at + FRAME_INCARNATION] = header.incarnation;
  words[at + FRAME_RECORDS] = header.records;
  putU64(words, at + FRAME_FIRST, header.first);
  putU64(words, at + FRAME_SYNCED, header.synced);
  words[at + FRAME_CRC] = checksums.crc32c(memory + 4, header.length - 4, seed);
}

/** The frame at byte `at` of `ring`, or null if there is no valid one. */
export function readFrame(
  ring: Uint8Array,
  words: Uint32Array,
  at: number,
  lengthMax: number,
  checksums: Checksums,
  seed: number,
): FrameHeader | null {
  const word = at >>> 2;
  if (at + FRAME_HEADER_BYTES > ring.length) return null;
  const length = words[word + FRAME_LENGTH]!;
  if (length <= FRAME_HEADER_BYTES || length > lengthMax || length % LOG_ALIGN !== 0) return null;
  if (at + length > ring.length) return null;
  const crc = checksums.crc32cBytes(ring.subarray(at + 4, at + length), seed);
  if (crc !== words[word + FRAME_CRC]) return null;
  return {
    length,
    incarnation: words[word + FRAME_INCARNATION]!,
    records: words[word + FRAME_RECORDS]!,
    first: getU64(words, word + FRAME_FIRST),
    synced: getU64(words, word + FRAME_SYNCED),
  };
}

/** Length that a frame at byte `at` would have, unverified. */
export function frameLengthAt(words: Uint32Array, at: number): number {
  return words[(at >>> 2) + FRAME_LENGTH]!;
}

/** First sequence that a frame at byte `at` would have, unverified. */
export function frameFirstAt(words: Uint32Array, at: number): number {
  return getU64(words, (at >>> 2) + FRAME_FIRST);
}

/** Called for each record of a frame, in order. Word offsets point into the words that were given. */
export interface RecordVisitor {
  /** Blocks `block … block + count − 1` get the entries at `entriesAt`, or become absent when that is −1. */
  delta(sequence: number, slot: number, alloc: number, block: number, count: number, entriesAt: number): void;
  alloc(sequence: number, slot: number, identity: ExtentIdentity): void;
  free(sequence: number, slot: number, alloc: number): void;
  freed(sequence: number, slot: number): void;
  stamp(sequence: number, slot: number, alloc: number, generation: number): void;
}

/** Visits the records of the frame at byte `at`; false if they do not add up (a bug, as the checksum fits). */
export function visitRecords(
  words: Uint32Array,
  at: number,
  frame: FrameHeader,
  visitor: RecordVisitor,
): boolean {
  let word = (at + FRAME_HEADER_BYTES) >>> 2;
  const end = (at + frame.length) >>> 2;
  for (let i = 0; i < frame.records; i++) {
    const sequence = frame.first + i;
    if (word + 2 > end) return false;
    const kind = words[word]! & 0xffff;
    const count = words[word]! >>> 16;
    const size = wordsOf(kind, count);
    if (size === 0 || word + size > end) return false;
    visitOne(words, word, kind, count, sequence, visitor);
    word += size;
  }
  return word === end;
}

function wordsOf(kind: number, count: number): number {
  switch (kind) {
    case RecordKind.Delta:
      return deltaWords(count);
    case RecordKind.Absent:
      return ABSENT_WORDS;
    case RecordKind.Alloc:
      return ALLOC_WORDS;
    case RecordKind.Free:
    case RecordKind.Freed:
      return FREE_WORDS;
    case RecordKind.Stamp:
      return STAMP_WORDS;
    case RecordKind.Synced:
      return SYNCED_WORDS;
    default:
      return 0;
  }
}

function visitOne(
  words: Uint32Array,
  word: number,
  kind: number,
  count: number,
  sequence: number,
  visitor: RecordVisitor,
): void {
  const slot = words[word + 1]!;
  switch (kind) {
    case RecordKind.Delta:
      visitor.delta(
        sequence,
        slot,
        getU64(words, word + 2),
        words[word + 4]!,
        count,
        word + RECORD_DELTA_WORDS,
      );
      break;
    case RecordKind.Absent:
      visitor.delta(sequence, slot, getU64(words, word + 2), words[word + 4]!, count, -1);
      break;
    case RecordKind.Alloc:
      visitor.alloc(sequence, slot, {
        volume: getU64(words, word + 2),
        layer: words[word + 4]!,
        extent: words[word + 5]!,
        generation: getU64(words, word + 6),
        created: getU64(words, word + 8),
      });
      break;
    case RecordKind.Free:
      visitor.free(sequence, slot, getU64(words, word + 2));
      break;
    case RecordKind.Freed:
      visitor.freed(sequence, slot);
      break;
    case RecordKind.Stamp:
      visitor.stamp(sequence, slot, getU64(words, word + 2), getU64(words, word + 4));
      break;
  }
}

/** Writers: each puts one record at word `at`; sizes are the …Words above. */
export function putDelta(
  words: Uint32Array,
  at: number,
  slot: number,
  alloc: number,
  block: number,
  count: number,
  entries: Uint32Array,
): void {
  words[at] = RecordKind.Delta | (count << 16);
  words[at + 1] = slot;
  putU64(words, at + 2, alloc);
  words[at + 4] = block;
  const to = at + RECORD_DELTA_WORDS;
  for (let i = 0; i < count; i++) words[to + i] = entries[i]!;
  if ((RECORD_DELTA_WORDS + count) & 1) words[to + count] = 0;
}

export function putAbsent(
  words: Uint32Array,
  at: number,
  slot: number,
  alloc: number,
  block: number,
  count: number,
): void {
  words[at] = RecordKind.Absent | (count << 16);
  words[at + 1] = slot;
  putU64(words, at + 2, alloc);
  words[at + 4] = block;
  words[at + 5] = 0;
}

export function putAlloc(words: Uint32Array, at: number, slot: number, identity: ExtentIdentity): void {
  words[at] = RecordKind.Alloc;
  words[at + 1] = slot;
  putU64(words, at + 2, identity.volume);
  words[at + 4] = identity.layer;
  words[at + 5] = identity.extent;
  putU64(words, at + 6, identity.generation);
  putU64(words, at + 8, identity.created);
}

export function putFree(
  words: Uint32Array,
  at: number,
  kind: typeof RecordKind.Free | typeof RecordKind.Freed,
  slot: number,
  alloc: number,
): void {
  words[at] = kind;
  words[at + 1] = slot;
  putU64(words, at + 2, alloc);
}

export function putStamp(
  words: Uint32Array,
  at: number,
  slot: number,
  alloc: number,
  generation: number,
): void {
  words[at] = RecordKind.Stamp;
  words[at + 1] = slot;
  putU64(words, at + 2, alloc);
  putU64(words, at + 4, generation);
}

export function putSynced(words: Uint32Array, at: number): void {
  words[at] = RecordKind.Synced;
  words[at + 1] = 0;
}
