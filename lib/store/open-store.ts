/**
 * Opening a device (DESIGN §5): look, sync, read, take over in one superblock write, then serve.
 *
 * Order, and why
 *  1. Superblock: is it ours, whole, not newer, and as large as it says?
 *  2. Sync: what the page cache has of a killed process must reach the disk before the log is believed.
 *  3. A device of an older version is upgraded (upgrade.ts), up to a superblock of its own.
 *  4. Hot bitmap, records, directory, log, read past the page cache.
 *  5. One superblock write takes the next incarnation, clears the clean mark, and marks the device LOSSY when
 *     a power loss may have taken something. Only then may anything be appended or changed.
 */
import { LaminaError } from "../core/errors.js";
import { diskSync, type Routine } from "../core/routine.js";
import type { MemberStore, StoreEnvironment } from "./api.js";
import { Device, DeviceFailure } from "./device.js";
import { FORMAT_VERSION, layoutOf } from "./format.js";
import { type OpenStoreOptions, tunablesOf } from "./options.js";
import { RECOVERY_BUFFER_BYTES, recover } from "./recovery.js";
import { ExtentStore } from "./store.js";
import {
  type CurrentSuperblock,
  newerSuperblock,
  readSuperblocks,
  type Superblock,
  staleSuperblock,
  writeSuperblocks,
} from "./superblock.js";
import { refuseOlder, UPGRADE_STEPS, upgrade } from "./upgrade.js";

/** Opens the store on `env.disk`, which stays the caller's to close after `Store.close`. Throws LaminaError. */
export function* openStore(env: StoreEnvironment, options: OpenStoreOptions): Routine<MemberStore> {
  const memory = env.pool.allocate(RECOVERY_BUFFER_BYTES);
  if (memory < 0)
    throw new LaminaError("DEVICE_FAILED", { path: options.path, what: "no memory to open it" });
  try {
    return yield* openWith(env, options, memory);
  } catch (error) {
    if (!(error instanceof DeviceFailure)) throw error;
    throw new LaminaError("DEVICE_FAILED", { path: options.path, what: error.message }, error);
  } finally {
    env.pool.free(memory);
  }
}

function* openWith(env: StoreEnvironment, options: OpenStoreOptions, memory: number): Routine<MemberStore> {
  const { path } = options;
  const steps = options.upgradeSteps ?? UPGRADE_STEPS;
  const current = yield* currentSuperblock(env, path, memory);
  refuseOlder(current.found, path, steps);
  const layout = layoutOf(current.found.geometry);
  if (env.disk.sizeBytes < layout.end) {
    const what = `it has ${env.disk.sizeBytes} bytes but was formatted with ${layout.end}`;
    throw new LaminaError("DEVICE_DAMAGED", { path, what });
  }
  const synced = yield* diskSync(env.disk);
  if (synced < 0) throw new DeviceFailure(`it cannot be synced (errno ${-synced})`);
  const { found, stale } = yield* upgrade(env, path, current, steps, memory);

  let store: ExtentStore | null = null;
  const incarnation = found.incarnation + 1;
  const device = new Device(env, layout, tunablesOf(options), found.deviceId, incarnation, (reason) => {
    store?.deviceFailed(reason);
  });
  const state = yield* recover(device, found.deviceId, path, memory);
  if (state.doubles.length > 0) {
    throw new LaminaError("DEVICE_DAMAGED", {
      path,
      what: `${state.doubles.length} extents have two slots each`,
    });
  }
  const { corruptAt } = state.log;
  if (corruptAt !== null && options.acceptLogLoss !== true) {
    throw new LaminaError("DEVICE_DAMAGED", {
      path,
      what: `its log is corrupt at record ${corruptAt}, which was synced`,
    });
  }
  const powerLost = !found.clean && found.bootId !== env.bootId;
  const lossy = found.lossy || powerLost;
  const superblock: Superblock = {
    ...found,
    sequence: found.sequence + 1,
    incarnation,
    clean: false,
    lossy,
    bootId: env.bootId,
  };
  yield* writeSuperblocks(env, superblock, memory, stale);
  store = new ExtentStore(device, options, superblock, state);
  yield* store.begin(state, !powerLost);
  return store;
}

/**
 * The superblock that counts, and where the other copy is; throws when the device is not a store that this
 * program can open.
 */
export function* currentSuperblock(
  env: StoreEnvironment,
  path: string,
  memory: number,
): Routine<CurrentSuperblock> {
  const { a, b } = yield* readSuperblocks(env, memory);
  // One newer copy is enough: a newer program was killed between the two, and has changed what lies behind them.
  for (const page of [a, b]) {
    if (page.kind !== "newer") continue;
    throw new LaminaError("DEVICE_NEWER", { path, found: page.version, known: FORMAT_VERSION });
  }
  const found = newerSuperblock(a, b);
  if (found !== null) return { found, stale: staleSuperblock(a, b) };
  for (const page of [a, b]) {
    if (page.kind === "damaged") {
      throw new LaminaError("DEVICE_DAMAGED", { path, what: "neither copy of its superblock is valid" });
    }
  }
  if (a.kind === "unreadable" && b.kind === "unreadable") {
    throw new LaminaError("DEVICE_DAMAGED", { path, what: "its superblock cannot be read" });
  }
  throw new LaminaError("DEVICE_FOREIGN", { path });
}
