/** Looking at a device without changing it: is it blank, a store, or something else? */
import { PIECE_BYTES } from "../core/limits.js";
import { diskRead, type Routine } from "../core/routine.js";
import type { StoreEnvironment } from "./api.js";
import { poolWords } from "./device.js";
import { PAGE_BYTES } from "./format.js";
import { isZero } from "./metadata-io.js";
import { newerSuperblock, readSuperblocks, type Superblock } from "./superblock.js";

export type ProbeResult =
  /** The first and last MiB are zeros. */
  | { readonly kind: "blank" }
  | { readonly kind: "store"; readonly superblock: Superblock }
  | { readonly kind: "newer"; readonly version: number }
  /** Has our magic, but neither copy of the superblock is whole. */
  | { readonly kind: "damaged" }
  /** Something else; `found` says what it begins with. */
  | { readonly kind: "foreign"; readonly found: string }
  | { readonly kind: "unreadable" };

interface Signature {
  readonly offset: number;
  readonly bytes: readonly number[];
  readonly name: string;
}

const text = (value: string): number[] => [...value].map((char) => char.charCodeAt(0));

const SIGNATURES: readonly Signature[] = [
  { offset: 1080, bytes: [0x53, 0xef], name: "an ext2, ext3 or ext4 file system" },
  { offset: 0, bytes: text("XFSB"), name: "an XFS file system" },
  { offset: 65600, bytes: text("_BHRfS_M"), name: "a btrfs file system" },
  { offset: 512, bytes: text("LABELONE"), name: "an LVM physical volume" },
  { offset: 0, bytes: text("LUKS"), name: "a LUKS container" },
  { offset: 512, bytes: text("EFI PART"), name: "a GPT partition table" },
  { offset: 0, bytes: [0x51, 0x46, 0x49, 0xfb], name: "a qcow2 image" },
  { offset: 4086, bytes: text("SWAPSPACE2"), name: "swap space" },
  { offset: 510, bytes: [0x55, 0xaa], name: "a boot sector or MBR partition table" },
];

export function* probe(env: StoreEnvironment): Routine<ProbeResult> {
  const memory = env.pool.allocate(PIECE_BYTES);
  if (memory < 0) return { kind: "unreadable" };
  try {
    return yield* look(env, memory);
  } finally {
    env.pool.free(memory);
  }
}

function* look(env: StoreEnvironment, memory: number): Routine<ProbeResult> {
  const { a, b } = yield* readSuperblocks(env, memory);
  for (const page of [a, b]) if (page.kind === "newer") return { kind: "newer", version: page.version };
  const superblock = newerSuperblock(a, b);
  if (superblock !== null) return { kind: "store", superblock };
  if (a.kind === "damaged" || b.kind === "damaged") return { kind: "damaged" };
  const size = Math.floor(env.disk.sizeBytes / PAGE_BYTES) * PAGE_BYTES;
  const length = Math.min(PIECE_BYTES, size);
  if (length === 0) return { kind: "blank" };
  const result = yield* diskRead(env.disk, 0, memory, length);
  if (result < 0) return { kind: "unreadable" };
  const words = poolWords(env);
  if (!isZero(words, memory >>> 2, length >>> 2)) {
    return { kind: "foreign", found: nameOf(env.pool.bytes.subarray(memory, memory + length)) };
  }
  const tail = yield* diskRead(env.disk, size - length, memory, length);
  if (tail < 0) return { kind: "unreadable" };
  if (!isZero(words, memory >>> 2, length >>> 2)) return { kind: "foreign", found: "data at its end" };
  return { kind: "blank" };
}

function nameOf(bytes: Uint8Array): string {
  const match = SIGNATURES.find(({ offset, bytes: magic }) =>
    magic.every((byte, i) => bytes[offset + i] === byte),
  );
  return match?.name ?? "unknown data";
}
