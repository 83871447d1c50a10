/**
 * The byte map of a device: every offset, size and constant that reaches the disk, in one place.
 * docs/architecture/store.md says why it is so.
 *
 *     0          superblock A · log anchor A
 *     64 KiB     superblock B · log anchor B
 *     128 KiB    volume records A · volume records B       one 4 KiB page per record
 *                hot bitmap A · hot bitmap B               one bit per slot, 4 KiB pages
 *                slot directory A · slot directory B       64 bytes per slot, 4 KiB pages
 *                log ring
 *                entry tables A · entry tables B           one table per slot
 *                slots                                     aligned to min(slot, 1 MiB)
 *
 * Everything is little-endian. Every metadata page but the superblock is sealed with a crc32c that begins
 * with a seed made of the device id, so a page left by an earlier format of the same disk is never valid.
 *
 * Versions
 *  1  the first
 * A new one gets a line here and a step in upgrade.ts.
 */
import { assert } from "../core/assert.js";
import { mix32 } from "../core/checksum.js";
import { BLOCK_BYTES, EXTENT_BLOCKS, KIB, MIB } from "../core/limits.js";

export const FORMAT_VERSION = 1;

/** Unit of every metadata write. */
export const PAGE_BYTES = 4096;
export const PAGE_WORDS = PAGE_BYTES / 4;

export const SUPERBLOCK_A = 0;
export const SUPERBLOCK_B = 64 * KIB;
export const ANCHOR_A = SUPERBLOCK_A + PAGE_BYTES;
export const ANCHOR_B = SUPERBLOCK_B + PAGE_BYTES;
const AREAS_START = 128 * KIB;

/** First 8 bytes of a superblock: "LaminaSt". */
export const SUPERBLOCK_MAGIC = Uint8Array.of(0x4c, 0x61, 0x6d, 0x69, 0x6e, 0x61, 0x53, 0x74);

/** Kinds of sealed pages; the word after the checksum. */
export const PageKind = {
  Anchor: 0x4e41_4d4c,
  Record: 0x4352_4d4c,
  Hot: 0x4f48_4d4c,
  Directory: 0x4944_4d4c,
  Table: 0x4254_4d4c,
} as const;
export type PageKind = (typeof PageKind)[keyof typeof PageKind];

/** Header of a sealed page, in words: crc · kind · index · incarnation · version (2) · position (2). */
export const PAGE_HEADER_BYTES = 32;
export const PAGE_HEADER_WORDS = PAGE_HEADER_BYTES / 4;

/** Log anchor: offset of the tail in the ring, and the incarnation of the frame there (or of the next one). */
export const ANCHOR_OFFSET_WORD = PAGE_HEADER_WORDS;
export const ANCHOR_INCARNATION_WORD = PAGE_HEADER_WORDS + 1;

/** Directory page: header, padding to 64, then 63 entries of 64 bytes. */
export const DIRECTORY_ENTRY_BYTES = 64;
export const DIRECTORY_ENTRIES_PER_PAGE = PAGE_BYTES / DIRECTORY_ENTRY_BYTES - 1;

/** Hot bitmap page: header, then bits. */
export const HOT_BITS_PER_PAGE = (PAGE_BYTES - PAGE_HEADER_BYTES) * 8;

/** Entry table: header with the ALLOC sequence, padding to 64, then one u32 per block. */
export const TABLE_HEADER_BYTES = 64;
export const TABLE_HEADER_WORDS = TABLE_HEADER_BYTES / 4;
/** Word of a table header that holds the slot's ALLOC sequence (2 words). */
export const TABLE_ALLOC_WORD = PAGE_HEADER_WORDS;

/** Volume record page: header, id (8), length (4), padding to 64, then the register's own bytes. */
export const RECORD_HEADER_BYTES = 64;
/** Longest volume record. */
export const RECORD_BYTES_MAX = PAGE_BYTES - RECORD_HEADER_BYTES;

/** Log frame header: crc · length · incarnation · records · first sequence (2) · synced sequence (2). */
export const FRAME_HEADER_BYTES = 32;
/** Frames and records begin at multiples of this. */
export const LOG_ALIGN = 8;
/** Longest log frame: what one tick appends at once. A longer tick appends several. */
export const FRAME_BYTES_MAX = 128 * KIB;

/** First word of a log record is kind | count << 16. */
export const RecordKind = {
  /** Blocks get new entries. slot · ALLOC (2) · block · entries. */
  Delta: 1,
  /** Blocks become absent. slot · ALLOC (2) · block. `count` says how many. */
  Absent: 2,
  /** The slot belongs to an extent from here on; all its blocks are absent. */
  Alloc: 3,
  /** The slot belongs to nobody; its bytes still have to become zeros. */
  Free: 4,
  /** The bytes of a freed slot are durably zero. */
  Freed: 5,
  /** The extent's generation. */
  Stamp: 6,
  /** Nothing but the frame header's synced sequence. */
  Synced: 7,
} as const;
export type RecordKind = (typeof RecordKind)[keyof typeof RecordKind];

/** Record sizes: fixed words, then for Delta one word per block; padded to LOG_ALIGN. */
export const RECORD_DELTA_WORDS = 5;
export const RECORD_ALLOC_WORDS = 10;
export const RECORD_FREE_WORDS = 4;
export const RECORD_STAMP_WORDS = 6;
export const RECORD_SYNCED_WORDS = 2;

export const EXTENT_BLOCKS_MIN = 16;
export const SLOTS_MIN = 4;
/** Slot numbers are kept as Int32. */
export const SLOTS_MAX = 2 ** 26;

const LOG_BYTES_DEFAULT_MIN = 64 * KIB;
const LOG_BYTES_DEFAULT_MAX = 32 * MIB;
/** The ring has room for this many of the longest records. */
const LOG_RECORDS_MIN = 16;
const RECORDS_DEFAULT_MIN = 16;
const RECORDS_DEFAULT_MAX = 16384;
const RECORD_PER_BYTES = 8 * MIB;
const LOG_PER_BYTES = 512;

export interface Geometry {
  readonly capacityBytes: number;
  readonly extentBlocks: number;
  readonly logBytes: number;
  readonly records: number;
}

/** Where everything is. Made from a Geometry alone, so the superblock stores only that. */
export interface Layout extends Geometry {
  readonly slots: number;
  readonly slotBytes: number;
  readonly tableBytes: number;
  readonly hotPages: number;
  readonly directoryPages: number;
  readonly recordsA: number;
  readonly recordsB: number;
  readonly hotA: number;
  readonly hotB: number;
  readonly directoryA: number;
  readonly directoryB: number;
  readonly log: number;
  readonly tablesA: number;
  readonly tablesB: number;
  readonly slotsStart: number;
  /** First byte after the last slot. */
  readonly end: number;
}

export function defaultLogBytes(capacityBytes: number, extentBlocks: number): number {
  const wanted = roundUp(Math.floor(capacityBytes / LOG_PER_BYTES), PAGE_BYTES);
  return Math.max(logBytesMin(extentBlocks), LOG_BYTES_DEFAULT_MIN, Math.min(LOG_BYTES_DEFAULT_MAX, wanted));
}

/** Smallest log ring: a few of the longest records, and two whole pages. */
export function logBytesMin(extentBlocks: number): number {
  const longest = FRAME_HEADER_BYTES + (RECORD_DELTA_WORDS + extentBlocks + 1) * 4;
  return roundUp(Math.max(4 * PAGE_BYTES, LOG_RECORDS_MIN * longest), PAGE_BYTES);
}

/** Longest frame of a log ring: a tick may fill an eighth of it at once. */
export function frameBytesMax(logBytes: number): number {
  return Math.min(FRAME_BYTES_MAX, Math.floor(logBytes / 8 / LOG_ALIGN) * LOG_ALIGN);
}

export function defaultRecords(capacityBytes: number): number {
  return Math.min(
    RECORDS_DEFAULT_MAX,
    Math.max(RECORDS_DEFAULT_MIN, Math.floor(capacityBytes / RECORD_PER_BYTES)),
  );
}

/** Bytes of one copy of one entry table. */
export function tableBytesOf(extentBlocks: number): number {
  return roundUp(TABLE_HEADER_BYTES + extentBlocks * 4, PAGE_BYTES);
}

/** The layout with as many slots as fit; fewer than SLOTS_MIN when the capacity is too small. */
export function layoutOf(geometry: Geometry): Layout {
  const { capacityBytes, extentBlocks, logBytes } = geometry;
  assert(isPowerOfTwo(extentBlocks) && extentBlocks >= EXTENT_BLOCKS_MIN, "blocks of an extent");
  assert(logBytes % PAGE_BYTES === 0, "the log ring is whole pages");
  const slotBytes = extentBlocks * BLOCK_BYTES;
  const perSlot = slotBytes + 2 * tableBytesOf(extentBlocks) + 2 * DIRECTORY_ENTRY_BYTES;
  let slots = Math.min(SLOTS_MAX, Math.max(0, Math.floor((capacityBytes - AREAS_START) / perSlot)));
  let layout = place(geometry, slots);
  while (slots > 0 && layout.end > capacityBytes) {
    slots -= Math.max(1, Math.floor((layout.end - capacityBytes) / perSlot));
    slots = Math.max(0, slots);
    layout = place(geometry, slots);
  }
  return layout;
}

/** Bytes of the smallest device of this geometry. */
export function leastCapacity(geometry: Geometry): number {
  return place(geometry, SLOTS_MIN).end;
}

function place(geometry: Geometry, slots: number): Layout {
  const { extentBlocks, logBytes, records } = geometry;
  const slotBytes = extentBlocks * BLOCK_BYTES;
  const tableBytes = tableBytesOf(extentBlocks);
  const hotPages = Math.ceil(slots / HOT_BITS_PER_PAGE);
  const directoryPages = Math.ceil(slots / DIRECTORY_ENTRIES_PER_PAGE);
  let at = AREAS_START;
  const take = (bytes: number): number => {
    const start = at;
    at += bytes;
    return start;
  };
  const recordsA = take(records * PAGE_BYTES);
  const recordsB = take(records * PAGE_BYTES);
  const hotA = take(hotPages * PAGE_BYTES);
  const hotB = take(hotPages * PAGE_BYTES);
  const directoryA = take(directoryPages * PAGE_BYTES);
  const directoryB = take(directoryPages * PAGE_BYTES);
  const log = take(logBytes);
  const tablesA = take(slots * tableBytes);
  const tablesB = take(slots * tableBytes);
  at = roundUp(at, Math.min(slotBytes, MIB));
  const slotsStart = take(slots * slotBytes);
  return {
    ...geometry,
    slots,
    slotBytes,
    tableBytes,
    hotPages,
    directoryPages,
    recordsA,
    recordsB,
    hotA,
    hotB,
    directoryA,
    directoryB,
    log,
    tablesA,
    tablesB,
    slotsStart,
    end: at,
  };
}

/** Seed of every page's checksum on one device. */
export function deviceSeed(deviceId: Uint8Array): number {
  let seed = 0;
  for (const byte of deviceId) seed = mix32((seed + byte + 1) >>> 0);
  return seed;
}

/** Writes a sequence number (an exact integer below 2^53) as two words. */
export function putU64(words: Uint32Array, at: number, value: number): void {
  words[at] = value >>> 0;
  words[at + 1] = Math.floor(value / 2 ** 32);
}

export function getU64(words: Uint32Array, at: number): number {
  return words[at]! + words[at + 1]! * 2 ** 32;
}

export function roundUp(value: number, grain: number): number {
  return Math.ceil(value / grain) * grain;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

assert(
  new Uint8Array(Uint32Array.of(1).buffer)[0] === 1,
  "this format is read and written in place: little-endian hosts only",
);
assert(BLOCK_BYTES === PAGE_BYTES, "a page is a block");
assert(tableBytesOf(EXTENT_BLOCKS) === 2 * PAGE_BYTES, "a table of a real extent is two pages");
assert(DIRECTORY_ENTRIES_PER_PAGE === 63, "64 bytes per slot, one of them for the header");
