/**
 * The superblock: what a device is, and what its last opening left behind. Two copies, written in turn with
 * a flush between; the valid one with the higher sequence counts.
 *
 * It changes only when a device is formatted, opened, closed, or stops being LOSSY. One write, therefore,
 * takes the new incarnation, clears the clean mark and sets LOSSY: there is no state between.
 */
import { assert } from "../core/assert.js";
import type { Disk } from "../core/disk.js";
import { diskRead, diskSync, diskWrite, type Routine } from "../core/routine.js";
import type { StoreEnvironment } from "./api.js";
import { DeviceFailure } from "./device.js";
import {
  FORMAT_VERSION,
  type Geometry,
  getU64,
  PAGE_BYTES,
  PAGE_WORDS,
  putU64,
  SUPERBLOCK_A,
  SUPERBLOCK_B,
  SUPERBLOCK_MAGIC,
} from "./format.js";

export interface Superblock {
  readonly version: number;
  /** Rises with every write. */
  readonly sequence: number;
  readonly deviceId: Uint8Array;
  readonly clusterId: Uint8Array;
  readonly geometry: Geometry;
  /** Closed in order: everything was synced. */
  readonly clean: boolean;
  /** Writes that were acknowledged but not flushed may be missing in slots that are hot. */
  readonly lossy: boolean;
  readonly incarnation: number;
  /** Boot id of the opening that wrote this. */
  readonly bootId: string;
}

export interface CurrentSuperblock {
  /** The one that counts. */
  readonly found: Superblock;
  /** Offset of the copy that is written first. */
  readonly stale: number;
}

/** A page that begins with the magic but cannot be used. */
export type SuperblockPage =
  | { readonly kind: "valid"; readonly superblock: Superblock }
  | { readonly kind: "newer"; readonly version: number }
  | { readonly kind: "damaged" }
  | { readonly kind: "foreign" }
  | { readonly kind: "blank" }
  | { readonly kind: "unreadable" };

const FLAG_CLEAN = 1;
const FLAG_LOSSY = 2;
export const BOOT_ID_BYTES_MAX = 255;

const WORD_CRC = 2;
const WORD_VERSION = 3;
const WORD_SEQUENCE = 4;
const BYTE_DEVICE = 24;
const BYTE_CLUSTER = 40;
const WORD_CAPACITY = 14;
const WORD_EXTENT_BLOCKS = 16;
const WORD_LOG_BYTES = 17;
const WORD_RECORDS = 18;
const WORD_FLAGS = 19;
const WORD_INCARNATION = 20;
const WORD_BOOT_LENGTH = 21;
const BYTE_BOOT = 88;

/** Writes the superblock into `page` (4096 bytes), checksum included. */
export function encodeSuperblock(
  sb: Superblock,
  page: Uint8Array,
  env: Pick<StoreEnvironment, "checksums">,
): void {
  page.fill(0);
  const words = new Uint32Array(page.buffer, page.byteOffset, PAGE_WORDS);
  page.set(SUPERBLOCK_MAGIC, 0);
  words[WORD_VERSION] = sb.version;
  putU64(words, WORD_SEQUENCE, sb.sequence);
  assert(sb.deviceId.length === 16 && sb.clusterId.length === 16, "ids have 16 bytes");
  page.set(sb.deviceId, BYTE_DEVICE);
  page.set(sb.clusterId, BYTE_CLUSTER);
  putU64(words, WORD_CAPACITY, sb.geometry.capacityBytes);
  words[WORD_EXTENT_BLOCKS] = sb.geometry.extentBlocks;
  words[WORD_LOG_BYTES] = sb.geometry.logBytes;
  words[WORD_RECORDS] = sb.geometry.records;
  words[WORD_FLAGS] = (sb.clean ? FLAG_CLEAN : 0) | (sb.lossy ? FLAG_LOSSY : 0);
  words[WORD_INCARNATION] = sb.incarnation;
  const boot = new TextEncoder().encode(sb.bootId);
  assert(boot.length <= BOOT_ID_BYTES_MAX, "boot ids have at most 255 bytes");
  words[WORD_BOOT_LENGTH] = boot.length;
  page.set(boot, BYTE_BOOT);
  words[WORD_CRC] = checksum(page, env);
}

export function decodeSuperblock(page: Uint8Array, env: Pick<StoreEnvironment, "checksums">): SuperblockPage {
  const words = new Uint32Array(page.buffer, page.byteOffset, PAGE_WORDS);
  if (!SUPERBLOCK_MAGIC.every((byte, i) => page[i] === byte)) {
    return { kind: words.every((word) => word === 0) ? "blank" : "foreign" };
  }
  if (words[WORD_CRC] !== checksum(page, env)) return { kind: "damaged" };
  const version = words[WORD_VERSION]!;
  if (version > FORMAT_VERSION) return { kind: "newer", version };
  const flags = words[WORD_FLAGS]!;
  const bootLength = words[WORD_BOOT_LENGTH]!;
  if (bootLength > BOOT_ID_BYTES_MAX) return { kind: "damaged" };
  return {
    kind: "valid",
    superblock: {
      version,
      sequence: getU64(words, WORD_SEQUENCE),
      deviceId: page.slice(BYTE_DEVICE, BYTE_DEVICE + 16),
      clusterId: page.slice(BYTE_CLUSTER, BYTE_CLUSTER + 16),
      geometry: {
        capacityBytes: getU64(words, WORD_CAPACITY),
        extentBlocks: words[WORD_EXTENT_BLOCKS]!,
        logBytes: words[WORD_LOG_BYTES]!,
        records: words[WORD_RECORDS]!,
      },
      clean: (flags & FLAG_CLEAN) !== 0,
      lossy: (flags & FLAG_LOSSY) !== 0,
      incarnation: words[WORD_INCARNATION]!,
      bootId: new TextDecoder().decode(page.subarray(BYTE_BOOT, BYTE_BOOT + bootLength)),
    },
  };
}

function checksum(page: Uint8Array, env: Pick<StoreEnvironment, "checksums">): number {
  return env.checksums.crc32cBytes(page.subarray(WORD_VERSION * 4, PAGE_BYTES), 0);
}

/** Reads both copies through the page at `memory`. */
export function* readSuperblocks(
  env: StoreEnvironment,
  memory: number,
): Routine<{ a: SuperblockPage; b: SuperblockPage }> {
  const a = yield* readOne(env, SUPERBLOCK_A, memory);
  const b = yield* readOne(env, SUPERBLOCK_B, memory);
  return { a, b };
}

function* readOne(env: StoreEnvironment, offset: number, memory: number): Routine<SuperblockPage> {
  if (env.disk.sizeBytes < offset + PAGE_BYTES) return { kind: "blank" };
  const result = yield* diskRead(env.disk, offset, memory, PAGE_BYTES);
  if (result < 0) return { kind: "unreadable" };
  return decodeSuperblock(env.pool.bytes.subarray(memory, memory + PAGE_BYTES), env);
}

/** The valid copy that counts, or null. */
export function newerSuperblock(a: SuperblockPage, b: SuperblockPage): Superblock | null {
  if (a.kind !== "valid") return b.kind === "valid" ? b.superblock : null;
  if (b.kind !== "valid") return a.superblock;
  return b.superblock.sequence > a.superblock.sequence ? b.superblock : a.superblock;
}

/** Where the copy is that does not count: it is written first, so that a torn write never leaves the older one. */
export function staleSuperblock(a: SuperblockPage, b: SuperblockPage): number {
  if (a.kind !== "valid") return SUPERBLOCK_A;
  return b.kind === "valid" && b.superblock.sequence > a.superblock.sequence ? SUPERBLOCK_A : SUPERBLOCK_B;
}

/** Writes both copies, `first` made durable before the other: at any moment one of them is whole. */
export function* writeSuperblocks(
  env: StoreEnvironment,
  sb: Superblock,
  memory: number,
  first: number = SUPERBLOCK_A,
): Routine<void> {
  encodeSuperblock(sb, env.pool.bytes.subarray(memory, memory + PAGE_BYTES), env);
  for (const offset of [first, first === SUPERBLOCK_A ? SUPERBLOCK_B : SUPERBLOCK_A]) {
    yield* must(
      env.disk,
      diskWrite(env.disk, offset, memory, PAGE_BYTES),
      "the superblock could not be written",
    );
    yield* must(env.disk, diskSync(env.disk), "the superblock could not be synced");
  }
}

function* must(_disk: Disk, routine: Routine<number>, what: string): Routine<void> {
  const result = yield* routine;
  if (result < 0) throw new DeviceFailure(`${what} (errno ${-result})`);
}
