/**
 * Upgrading a device of an older format version while it is opened: one step per version, each with a superblock write
 * at its end.
 *
 * Invariants
 *  1. The superblock names the old version until everything else has its new form, durably. Nothing of a device
 *     that is half upgraded is ever believed: an upgrade that was cut short is done again from its beginning.
 *  2. So a step can meet its own unfinished work, torn pages included, and must tell by the bytes of each page what it
 *     has done already. Of whatever has two copies, one is whole and durable at any moment.
 *  3. Clean mark, LOSSY, boot id and incarnation stay as the older program left them: the opening that goes on from here
 *     judges by them what a crash may have taken.
 *  4. A version without a step is refused, and nothing is written.
 */
import { LaminaError } from "../core/errors.js";
import { diskSync, type Routine } from "../core/routine.js";
import type { StoreEnvironment } from "./api.js";
import { DeviceFailure } from "./device.js";
import { FORMAT_VERSION } from "./format.js";
import { type CurrentSuperblock, type Superblock, writeSuperblocks } from "./superblock.js";

/**
 * Brings everything but the superblocks from version `from.version` to the next one. The device is synced before and
 * after. Throws DeviceFailure.
 */
export type UpgradeStep = (env: StoreEnvironment, from: Superblock) => Routine<void>;

/** Steps by the version that they begin from. */
export type UpgradeSteps = ReadonlyMap<number, UpgradeStep>;

/** Version 1 is the first, so there is none yet. */
export const UPGRADE_STEPS: UpgradeSteps = new Map();

/** Throws DEVICE_OLDER unless the device has the current version, or steps lead there. */
export function refuseOlder(found: Superblock, path: string, steps: UpgradeSteps = new Map()): void {
  for (let version = found.version; version < FORMAT_VERSION; version++) {
    if (steps.has(version)) continue;
    throw new LaminaError("DEVICE_OLDER", { path, found: found.version, known: FORMAT_VERSION });
  }
}

/**
 * The superblocks of a device that has the current version now. The caller has synced the device. `memory`: one page.
 * Throws LaminaError DEVICE_OLDER, DeviceFailure.
 */
export function* upgrade(
  env: StoreEnvironment,
  path: string,
  current: CurrentSuperblock,
  steps: UpgradeSteps,
  memory: number,
): Routine<CurrentSuperblock> {
  refuseOlder(current.found, path, steps);
  let { found } = current;
  while (found.version < FORMAT_VERSION) {
    yield* steps.get(found.version)!(env, found);
    const synced = yield* diskSync(env.disk);
    if (synced < 0) throw new DeviceFailure(`its upgrade cannot be synced (errno ${-synced})`);
    found = { ...found, version: found.version + 1, sequence: found.sequence + 1 };
    yield* writeSuperblocks(env, found, memory, current.stale);
  }
  return { found, stale: current.stale };
}
