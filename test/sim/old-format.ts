/**
 * Format version 0, which no program has ever written: what a device of an older program looks like, and the step that
 * makes version 1 of it. It is here so that upgrades are proven before there is one to be made.
 *
 * In version 0 the checksums of sealed pages begin with 0 instead of with the device's seed. Everything else is as in
 * version 1, so any state in which a crash has left a device can be taken back to version 0, and all that there is to
 * lose must survive the way forward: pages torn by a power loss, copies of two ages, a log that is still to be replayed.
 *
 * The step, made again after any crash in its middle:
 *  1. A copy that is blank or bad gets what the other one says, in the new form; then a sync. From here on both copies of
 *     every page that was ever written are whole, in one form or the other.
 *  2. Copies A get the new form; a sync; copies B get it. A crash leaves pages of one side torn, and the other side whole.
 */
import { diskRead, diskSync, diskWrite, type Routine } from "../../lib/core/routine.js";
import type { StoreEnvironment } from "../../lib/store/api.js";
import { DeviceFailure, poolWords } from "../../lib/store/device.js";
import {
  ANCHOR_A,
  ANCHOR_B,
  deviceSeed,
  FORMAT_VERSION,
  type Layout,
  layoutOf,
  PAGE_BYTES,
  PageKind,
  SUPERBLOCK_A,
  SUPERBLOCK_B,
} from "../../lib/store/format.js";
import { MetadataIo, PageState } from "../../lib/store/metadata-io.js";
import { currentSuperblock } from "../../lib/store/open-store.js";
import { decodeSuperblock, encodeSuperblock, type Superblock } from "../../lib/store/superblock.js";
import type { UpgradeStep, UpgradeSteps } from "../../lib/store/upgrade.js";

const OLD_SEED = 0;
const RETRIES = 3;

/** A page and where its two copies are. */
interface Sealed {
  readonly kind: PageKind;
  readonly index: number;
  readonly length: number;
  readonly copies: readonly [number, number];
}

function* sealedPages(layout: Layout): Generator<Sealed> {
  const { records, hotPages, directoryPages, slots, tableBytes } = layout;
  const areas = [
    [PageKind.Anchor, 1, PAGE_BYTES, ANCHOR_A, ANCHOR_B],
    [PageKind.Record, records, PAGE_BYTES, layout.recordsA, layout.recordsB],
    [PageKind.Hot, hotPages, PAGE_BYTES, layout.hotA, layout.hotB],
    [PageKind.Directory, directoryPages, PAGE_BYTES, layout.directoryA, layout.directoryB],
    [PageKind.Table, slots, tableBytes, layout.tablesA, layout.tablesB],
  ] as const;
  for (const [kind, count, length, a, b] of areas) {
    for (let index = 0; index < count; index++)
      yield { kind, index, length, copies: [a + index * length, b + index * length] };
  }
}

/** Pages of a device whose metadata may be in either form. */
class Resealer {
  readonly #env: StoreEnvironment;
  readonly #memory: number;
  readonly #seed: number;
  readonly #old: MetadataIo;
  readonly #new: MetadataIo;
  readonly layout: Layout;

  constructor(env: StoreEnvironment, superblock: Superblock, memory: number) {
    this.#env = env;
    this.#memory = memory;
    this.#seed = deviceSeed(superblock.deviceId);
    this.#old = new MetadataIo(env, OLD_SEED, RETRIES);
    this.#new = new MetadataIo(env, this.#seed, RETRIES);
    this.layout = layoutOf(superblock.geometry);
  }

  /** Reads one copy: "old", "new", or neither. */
  *read(page: Sealed, copy: number): Routine<"old" | "new" | "none"> {
    const read = yield* diskRead(this.#env.disk, page.copies[copy]!, this.#memory, page.length);
    if (read < 0) throw new DeviceFailure(`a page cannot be read for its upgrade (errno ${-read})`);
    if (this.#is(this.#new, page)) return "new";
    return this.#is(this.#old, page) ? "old" : "none";
  }

  #is(io: MetadataIo, page: Sealed): boolean {
    return io.inspect(this.#memory, page.length, page.kind, page.index) === PageState.Valid;
  }

  /** Writes what was read last in another form. */
  *write(page: Sealed, copy: number, form: "old" | "new"): Routine<void> {
    const seed = form === "old" ? OLD_SEED : this.#seed;
    const crc = this.#env.checksums.crc32c(this.#memory + 4, page.length - 4, seed);
    poolWords(this.#env)[this.#memory >>> 2] = crc;
    yield* this.#new.write(page.copies[copy]!, this.#memory, page.length);
  }

  *sync(): Routine<void> {
    const synced = yield* diskSync(this.#env.disk);
    if (synced < 0) throw new DeviceFailure(`an upgrade cannot be synced (errno ${-synced})`);
  }
}

function* withResealer(
  env: StoreEnvironment,
  superblock: Superblock,
  work: (resealer: Resealer) => Routine<void>,
): Routine<void> {
  const { tableBytes } = layoutOf(superblock.geometry);
  const memory = env.pool.allocate(Math.max(PAGE_BYTES, tableBytes));
  if (memory < 0) throw new DeviceFailure("no memory to upgrade it");
  try {
    yield* work(new Resealer(env, superblock, memory));
  } finally {
    env.pool.free(memory);
  }
}

const fromZero: UpgradeStep = (env, from) =>
  withResealer(env, from, function* (resealer) {
    for (const page of sealedPages(resealer.layout)) {
      const a = yield* resealer.read(page, 0);
      const b = yield* resealer.read(page, 1);
      if ((a === "none") === (b === "none")) continue;
      if (b === "none") yield* resealer.read(page, 0);
      yield* resealer.write(page, a === "none" ? 0 : 1, "new");
    }
    for (const copy of [0, 1]) {
      yield* resealer.sync();
      for (const page of sealedPages(resealer.layout)) {
        if ((yield* resealer.read(page, copy)) === "old") yield* resealer.write(page, copy, "new");
      }
    }
  });

export const OLD_STEPS: UpgradeSteps = new Map([[0, fromZero]]);

/** Whether the device has an older version: its upgrade has not been made, or not to its end. */
export function* isOlder(env: StoreEnvironment): Routine<boolean> {
  const memory = env.pool.allocate(PAGE_BYTES);
  const { found } = yield* currentSuperblock(env, "sim", memory);
  env.pool.free(memory);
  return found.version < FORMAT_VERSION;
}

/** Makes version 0 of whatever is there, at rest, as its last crash has left it; false where that has been done. */
export function* takeBack(env: StoreEnvironment): Routine<boolean> {
  if (yield* isOlder(env)) return false;
  const memory = env.pool.allocate(PAGE_BYTES);
  const { found } = yield* currentSuperblock(env, "sim", memory);
  yield* withResealer(env, found, function* (resealer) {
    for (const page of sealedPages(resealer.layout)) {
      for (const copy of [0, 1]) {
        if ((yield* resealer.read(page, copy)) === "new") yield* resealer.write(page, copy, "old");
      }
    }
  });
  const bytes = env.pool.bytes.subarray(memory, memory + PAGE_BYTES);
  for (const offset of [SUPERBLOCK_A, SUPERBLOCK_B]) {
    yield* diskRead(env.disk, offset, memory, PAGE_BYTES);
    const page = decodeSuperblock(bytes, env);
    if (page.kind !== "valid") continue;
    encodeSuperblock({ ...page.superblock, version: 0 }, bytes, env);
    yield* diskWrite(env.disk, offset, memory, PAGE_BYTES);
  }
  yield* diskSync(env.disk);
  env.pool.free(memory);
  return true;
}
