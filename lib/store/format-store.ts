/**
 * Formatting: a device becomes an empty store. Everything but the slots' data is given its final content and
 * synced before the superblock says that this is a store; an interrupted format leaves no store.
 */
import { LaminaError } from "../core/errors.js";
import { EXTENT_BLOCKS, PIECE_BYTES } from "../core/limits.js";
import { diskSync, diskWrite, diskZero, type Routine } from "../core/routine.js";
import type { FormatOptions, StoreEnvironment } from "./api.js";
import { poolWords } from "./device.js";
import {
  ANCHOR_A,
  ANCHOR_B,
  defaultLogBytes,
  defaultRecords,
  deviceSeed,
  FORMAT_VERSION,
  type Geometry,
  type Layout,
  layoutOf,
  leastCapacity,
  PAGE_BYTES,
  PageKind,
  SLOTS_MIN,
  SUPERBLOCK_A,
  SUPERBLOCK_B,
} from "./format.js";
import { MetadataIo } from "./metadata-io.js";
import { writeSuperblocks } from "./superblock.js";
import { cutZeroes } from "./zeroing.js";

export interface FormatStoreOptions extends FormatOptions {
  /** What messages call the device. */
  readonly path?: string;
  /** The device reads as zeros everywhere (a new sparse file): nothing has to be zeroed. */
  readonly knownZero?: boolean;
}

/** Longest stretch that is zeroed by one request. */
const ZERO_STEP_BYTES = 2 ** 30;
const FORMAT_RETRIES = 2;

/** The layout that `formatStore` would give; throws DEVICE_TOO_SMALL. */
export function planFormat(options: FormatStoreOptions): Layout {
  const extentBlocks = options.extentBlocks ?? EXTENT_BLOCKS;
  const geometry: Geometry = {
    capacityBytes: options.capacityBytes,
    extentBlocks,
    logBytes: options.logBytes ?? defaultLogBytes(options.capacityBytes, extentBlocks),
    records: options.records ?? defaultRecords(options.capacityBytes),
  };
  const layout = layoutOf(geometry);
  if (layout.slots < SLOTS_MIN) {
    const path = options.path ?? "the device";
    throw new LaminaError("DEVICE_TOO_SMALL", {
      path,
      size: options.capacityBytes,
      least: leastCapacity(geometry),
    });
  }
  return layout;
}

/**
 * Makes the device an empty store. The caller has decided that its data may be lost, and has reserved the
 * metadata's space (`metadataBytes`) where the device is a file.
 */
export function* formatStore(env: StoreEnvironment, options: FormatStoreOptions): Routine<Layout> {
  const path = options.path ?? "the device";
  if (options.capacityBytes > env.disk.sizeBytes) {
    throw new LaminaError("DEVICE_TOO_SMALL", {
      path,
      size: env.disk.sizeBytes,
      least: options.capacityBytes,
    });
  }
  const layout = planFormat(options);
  const memory = env.pool.allocate(PIECE_BYTES);
  if (memory < 0) throw new LaminaError("DEVICE_FAILED", { path, what: "no memory to format it" });
  try {
    yield* writeEverything(env, options, layout, memory, path);
  } finally {
    env.pool.free(memory);
  }
  return layout;
}

/** Bytes from the start of the device to the first slot: to be reserved, so that they never lack space. */
export function metadataBytes(layout: Layout): number {
  return layout.slotsStart;
}

function* writeEverything(
  env: StoreEnvironment,
  options: FormatStoreOptions,
  layout: Layout,
  memory: number,
  path: string,
): Routine<void> {
  const must = function* (routine: Routine<number>): Routine<void> {
    const result = yield* routine;
    if (result < 0)
      throw new LaminaError("DEVICE_FAILED", { path, what: `formatting stopped with errno ${-result}` });
  };
  const { disk, pool } = env;
  pool.bytes.fill(0, memory, memory + PIECE_BYTES);
  // An older store's superblocks go first: what follows must never be taken for its content.
  yield* must(diskWrite(disk, SUPERBLOCK_A, memory, PAGE_BYTES));
  yield* must(diskWrite(disk, SUPERBLOCK_B, memory, PAGE_BYTES));
  yield* must(diskSync(disk));
  if (options.knownZero !== true) yield* zeroAll(env, memory, layout.end, must);
  yield* writeLog(env, layout, memory, must);
  yield* writePages(env, options, layout, memory);
  yield* must(diskSync(disk));
  const superblock = {
    version: FORMAT_VERSION,
    sequence: 1,
    deviceId: options.deviceId,
    clusterId: options.clusterId,
    geometry: {
      capacityBytes: layout.capacityBytes,
      extentBlocks: layout.extentBlocks,
      logBytes: layout.logBytes,
      records: layout.records,
    },
    clean: true,
    lossy: false,
    incarnation: 0,
    bootId: env.bootId,
  };
  yield* writeSuperblocks(env, superblock, memory);
}

function* zeroAll(
  env: StoreEnvironment,
  memory: number,
  length: number,
  must: (routine: Routine<number>) => Routine<void>,
): Routine<void> {
  const parts: Routine<number>[] = [];
  cutZeroes(0, length, env.disk.zeroGrainBytes, 0, PIECE_BYTES, {
    punch(offset, bytes) {
      for (let at = 0; at < bytes; at += ZERO_STEP_BYTES) {
        parts.push(diskZero(env.disk, offset + at, Math.min(ZERO_STEP_BYTES, bytes - at)));
      }
    },
    overwrite(offset, bytes) {
      parts.push(diskWrite(env.disk, offset, memory, bytes));
    },
  });
  for (const part of parts) yield* must(part);
}

/** The ring's blocks exist on the disk before the first append: a sync then has no allocation to make durable. */
function* writeLog(
  env: StoreEnvironment,
  layout: Layout,
  memory: number,
  must: (routine: Routine<number>) => Routine<void>,
): Routine<void> {
  for (let at = 0; at < layout.logBytes; at += PIECE_BYTES) {
    yield* must(diskWrite(env.disk, layout.log + at, memory, Math.min(PIECE_BYTES, layout.logBytes - at)));
  }
}

/** Anchor, hot bitmap and directory. Records and tables are blank, which means empty. */
function* writePages(
  env: StoreEnvironment,
  options: FormatStoreOptions,
  layout: Layout,
  memory: number,
): Routine<void> {
  const io = new MetadataIo(env, deviceSeed(options.deviceId), FORMAT_RETRIES);
  const words = poolWords(env);
  const areas = [
    { kind: PageKind.Anchor, pages: 1, copies: [ANCHOR_A, ANCHOR_B] },
    { kind: PageKind.Hot, pages: layout.hotPages, copies: [layout.hotA, layout.hotB] },
    {
      kind: PageKind.Directory,
      pages: layout.directoryPages,
      copies: [layout.directoryA, layout.directoryB],
    },
  ];
  const chunk = PIECE_BYTES / PAGE_BYTES;
  for (const { kind, pages, copies } of areas) {
    for (let first = 0; first < pages; first += chunk) {
      const count = Math.min(chunk, pages - first);
      words.fill(0, memory >>> 2, (memory + count * PAGE_BYTES) >>> 2);
      for (let i = 0; i < count; i++) {
        const header = { kind, index: first + i, incarnation: 0, version: 1, position: 1 };
        io.seal(memory + i * PAGE_BYTES, PAGE_BYTES, header);
      }
      for (const copy of copies) yield* io.write(copy + first * PAGE_BYTES, memory, count * PAGE_BYTES);
    }
  }
}
