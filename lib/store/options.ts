/**
 * Tunables of a store. Every one may take any value in its range at any time: the simulator draws them at
 * random, and no promise depends on them.
 */
import { assert } from "../core/assert.js";
import { MIB } from "../core/limits.js";
import type { Stability, StoreOptions } from "./api.js";
import type { UpgradeSteps } from "./upgrade.js";

export interface StoreTunables {
  /** Bound of the entry-table cache in bytes. At it, tables are evicted, dirty ones by checkpoint. */
  readonly cacheBytes: number;
  /** Free slots whose hot bit is set in advance, so that allocation waits for no sync. */
  readonly preHotSlots: number;
  /**
   * Extents after the one that a sequential writer begins that are made hot with it, so that he does not wait at each.
   * Alone on a device only: a member's extent that nobody writes is called stable by nobody, and would not cool.
   */
  readonly heatAheadExtents: number;
  /** Live slots that may be hot. Above, the longest idle cool early: bounds what a crash leaves to settle. */
  readonly hotSlotsMax: number;
  /** A slot that saw no write for this long is cooled. */
  readonly coolAfterMs: number;
  /** Background sync: bounds what a power loss can take from those who never flush. Also the cooling tick. */
  readonly syncIntervalMs: number;
  /** Part of the ring in use above which checkpoints begin, and below which they end (0 … 1). */
  readonly checkpointAbove: number;
  readonly checkpointBelow: number;
  /** Tables, or directory pages, written by one checkpoint round. */
  readonly checkpointBatch: number;
  /** Share of the slots that new extents may not take. */
  readonly reserveShare: number;
  /** Freed slots zeroed by one round. */
  readonly freeingBatch: number;
  /** Shortest run of blocks that is given back instead of overwritten, in bytes. */
  readonly punchBytesMin: number;
  /** A failed data or metadata write is repeated this often before the device is failed. */
  readonly writeRetries: number;
  /** Pause before a write that met a full file system is tried again. */
  readonly spaceRetryMs: number;
}

export const STORE_DEFAULTS: StoreTunables = {
  cacheBytes: 64 * MIB,
  preHotSlots: 64,
  heatAheadExtents: 8,
  hotSlotsMax: 4096,
  coolAfterMs: 5000,
  syncIntervalMs: 1000,
  checkpointAbove: 0.5,
  checkpointBelow: 0.25,
  checkpointBatch: 128,
  reserveShare: 0.05,
  freeingBatch: 64,
  punchBytesMin: 64 * 1024,
  writeRetries: 3,
  spaceRetryMs: 1000,
};

export interface OpenStoreOptions extends StoreOptions, Partial<StoreTunables> {
  /**
   * Opens a device whose log is corrupt, with what the log says before the damage. Free slots that may hold
   * bytes are then neither zeroed nor used. For an operator who has looked at `lamina fsck`.
   */
  readonly acceptLogLoss?: boolean;
  /** This device is the only member of its volumes: every write is stable as soon as it is synced. */
  readonly soleMember?: boolean;
  /** Where there are other members: says which extents may cool, and keeps LOSSY until `reconciled`. */
  readonly stability?: Stability;
  /** How older formats become this one; default UPGRADE_STEPS. Tests have older formats of their own. */
  readonly upgradeSteps?: UpgradeSteps;
}

export function tunablesOf(
  options: Partial<StoreTunables> & Pick<OpenStoreOptions, "soleMember" | "stability">,
): StoreTunables {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const alone = options.soleMember === true;
  assert(!alone || options.stability === undefined, "alone, there is nobody to call an extent stable");
  const all = { ...STORE_DEFAULTS, ...given, ...(alone ? {} : { heatAheadExtents: 0 }) } as StoreTunables;
  assert(all.preHotSlots >= 1, "allocation needs a slot whose hot bit is set in advance");
  assert(all.heatAheadExtents >= 0, "a count of extents");
  assert(all.hotSlotsMax >= 1 && all.checkpointBatch >= 1 && all.freeingBatch >= 1, "batches are not empty");
  assert(all.checkpointBelow <= all.checkpointAbove && all.checkpointAbove < 1, "checkpoint thresholds");
  assert(all.reserveShare >= 0 && all.reserveShare < 1, "the reserve is a share of the slots");
  assert(all.syncIntervalMs >= 1 && all.spaceRetryMs >= 1, "intervals are positive");
  return all;
}
