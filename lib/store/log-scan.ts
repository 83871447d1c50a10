/**
 * Reading the log at recovery: from the anchor's tail to where the log ends.
 *
 * Invariants
 *  1. The caller has synced the device and reads it past the page cache: what is found here is durable.
 *  2. Sequences are consecutive and incarnations never fall, beginning with the anchor's: a frame that an
 *     earlier opening found behind the end of the log cannot come back when the tail has moved up to it.
 *  3. The first place where that fails is the end of the log, or corruption when a later valid frame says that what should be there was synced.
 */
import type { Routine } from "../core/routine.js";
import type { StoreEnvironment } from "./api.js";
import {
  ANCHOR_A,
  ANCHOR_B,
  ANCHOR_INCARNATION_WORD,
  ANCHOR_OFFSET_WORD,
  deviceSeed,
  FRAME_HEADER_BYTES,
  frameBytesMax,
  type Layout,
  LOG_ALIGN,
  PAGE_BYTES,
  PageKind,
} from "./format.js";
import type { FrameStart, LogStart } from "./log.js";
import { type FrameHeader, frameFirstAt, frameLengthAt, readFrame } from "./log-records.js";
import { type MetadataIo, PageState } from "./metadata-io.js";

export interface LogImage {
  readonly ring: Uint8Array;
  readonly words: Uint32Array;
  /** Valid frames in order, with their byte offset in the ring. */
  readonly frames: readonly { readonly at: number; readonly header: FrameHeader }[];
  readonly start: LogStart;
  /** Sequence that should have been found; null when the log simply ends. */
  readonly corruptAt: number | null;
}

export interface Anchor {
  readonly offset: number;
  readonly sequence: number;
  readonly version: number;
  /** No frame from the tail on is of an older incarnation. */
  readonly incarnation: number;
  /** Offset of the copy that does not say this; null when both are valid and one write. */
  readonly stale: number | null;
}

/** The newer valid anchor, or null when both copies are bad. */
export function* readAnchor(
  io: MetadataIo,
  layout: Layout,
  words: Uint32Array,
  memory: number,
): Routine<Anchor | null> {
  const found: Anchor[] = [];
  for (const offset of [ANCHOR_A, ANCHOR_B]) {
    const state = yield* io.readPage(offset, memory, PAGE_BYTES, PageKind.Anchor, 0);
    if (state !== PageState.Valid) continue;
    const ringOffset = words[(memory >>> 2) + ANCHOR_OFFSET_WORD]!;
    if (ringOffset >= layout.logBytes) continue;
    found.push({
      offset: ringOffset,
      sequence: io.position(memory),
      version: io.version(memory),
      incarnation: words[(memory >>> 2) + ANCHOR_INCARNATION_WORD]!,
      stale: offset === ANCHOR_A ? ANCHOR_B : ANCHOR_A,
    });
  }
  const [first, second] = found;
  if (first === undefined || second === undefined) return first ?? null;
  if (first.version === second.version) return { ...first, stale: null };
  return second.version > first.version ? second : first;
}

/** Reads the whole ring through the buffer at `memory` and finds the valid frames. */
export function* scanLog(
  env: StoreEnvironment,
  io: MetadataIo,
  layout: Layout,
  deviceId: Uint8Array,
  anchor: Anchor,
  memory: number,
  bufferBytes: number,
): Routine<LogImage | null> {
  const ring = new Uint8Array(layout.logBytes);
  for (let at = 0; at < ring.length; at += bufferBytes) {
    const length = Math.min(bufferBytes, ring.length - at);
    const result = yield* io.read(layout.log + at, memory, length);
    if (result < 0) return null;
    ring.set(env.pool.bytes.subarray(memory, memory + length), at);
  }
  return walk(env, ring, anchor, deviceSeed(deviceId));
}

function walk(env: StoreEnvironment, ring: Uint8Array, anchor: Anchor, seed: number): LogImage {
  const words = new Uint32Array(ring.buffer);
  const lengthMax = frameBytesMax(ring.length);
  const frames: { at: number; header: FrameHeader }[] = [];
  const starts: FrameStart[] = [];
  let at = anchor.offset;
  let expected = anchor.sequence;
  let { incarnation } = anchor;
  let used = 0;
  const accept = (offset: number): FrameHeader | null => {
    const header = readFrame(ring, words, offset, lengthMax, env.checksums, seed);
    return header !== null && header.first === expected && header.incarnation >= incarnation ? header : null;
  };
  while (used < ring.length) {
    let header = accept(at);
    let skipped = 0;
    if (header === null && at !== 0) {
      // A frame that did not fit before the end of the ring begins at 0.
      header = accept(0);
      skipped = ring.length - at;
    }
    if (header === null || used + skipped + header.length > ring.length) break;
    used += skipped;
    if (skipped > 0) at = 0;
    frames.push({ at, header });
    starts.push({ sequence: header.first, incarnation: header.incarnation, afterTail: used });
    used += header.length;
    at = (at + header.length) % ring.length;
    expected = header.first + header.records;
    incarnation = header.incarnation;
  }
  return {
    ring,
    words,
    frames,
    corruptAt: saysSynced(env, ring, words, expected, incarnation, seed) ? expected : null,
    start: {
      tailOffset: anchor.offset,
      tailSequence: anchor.sequence,
      tailIncarnation: anchor.incarnation,
      usedBytes: used,
      nextSequence: expected,
      anchorVersion: anchor.version,
      frames: starts,
    },
  };
}

/** Whether a valid frame after `expected` was appended when `expected` was already synced. */
function saysSynced(
  env: StoreEnvironment,
  ring: Uint8Array,
  words: Uint32Array,
  expected: number,
  incarnation: number,
  seed: number,
): boolean {
  const lengthMax = frameBytesMax(ring.length);
  const sequenceMax = expected + ring.length;
  for (let at = 0; at + FRAME_HEADER_BYTES <= ring.length; at += LOG_ALIGN) {
    // A sieve before the checksum: nearly every position of a ring fails it.
    const length = frameLengthAt(words, at);
    if (length <= FRAME_HEADER_BYTES || length > lengthMax) continue;
    const first = frameFirstAt(words, at);
    if (first <= expected || first > sequenceMax) continue;
    const header = readFrame(ring, words, at, lengthMax, env.checksums, seed);
    if (header !== null && header.incarnation >= incarnation && header.synced >= expected) return true;
  }
  return false;
}
