/**
 * The store's face to the rest of the program: one device with its extents and volume records.
 */
import type { Checksums } from "../core/checksum.js";
import type { Clock, Random, Ticker } from "../core/clock.js";
import type { Disk } from "../core/disk.js";
import type { LaminaError } from "../core/errors.js";
import type { ExtentIo } from "../core/extent-io.js";
import type { Pool } from "../core/pool.js";

/** Everything the store takes from outside. The simulator injects its own of each. */
export interface StoreEnvironment {
  readonly disk: Disk;
  readonly pool: Pool;
  readonly clock: Clock;
  readonly random: Random;
  readonly ticker: Ticker;
  readonly checksums: Checksums;
  /** OS boot id + disk sequence + mount id + failure count: differs when un-synced bytes may be gone. */
  readonly bootId: string;
  readonly events: StoreEvents;
}

export interface FormatOptions {
  /** 16 random bytes: identity of the device. */
  readonly deviceId: Uint8Array;
  /** 16 bytes: identity of the cluster it belongs to. */
  readonly clusterId: Uint8Array;
  /** Bytes of the device to use; rounded down to whole slots. */
  readonly capacityBytes: number;
  /** Blocks of an extent: 1024; tests use 16. A power of two. */
  readonly extentBlocks?: number;
  /** Bytes of the log ring; by default chosen from the capacity. */
  readonly logBytes?: number;
  /** Volume records the device can hold; by default chosen from the capacity. */
  readonly records?: number;
}

export interface StoreOptions {
  /** Bound of the entry-table cache in bytes; at it, tables are evicted (a dirty one by checkpoint). */
  readonly cacheBytes?: number;
  /** Other tunables that the simulator randomises live in lib/store/options.ts. */
  readonly path: string;
}

export interface Store extends ExtentIo {
  readonly extentBlocks: number;
  /** Extents of one volume that the device holds, in no order. */
  inventory(volume: number, visit: InventoryVisitor): void;
  /** Slots held by a volume. */
  slotsOf(volume: number): number;
  /** Volume ids with at least one slot. */
  volumesWithSlots(): number[];
  /** Frees every extent of a volume, by record; `done` when that is durable. Space comes back afterwards. */
  dropVolume(volume: number, done: (error: LaminaError | null) => void): void;

  /** Volume records, as they are durable. `bytes` is the register's own encoding, at most RECORD_BYTES_MAX. */
  records(): ReadonlyMap<number, Uint8Array>;
  /** Writes (or with null removes) a record; `done` when it is durable in both copies. One at a time per id. */
  putRecord(volume: number, bytes: Uint8Array | null, done: (error: LaminaError | null) => void): void;

  stats(): StoreStats;
  /** Blocks known bad (bit rot without a second copy), newest last; bounded. */
  badBlocks(volume: number): readonly BadBlock[];
  /** Reads everything once in the background and verifies it; `pace` in bytes per second. */
  startScrub(pace: number): void;
  /** Stops taking work, finishes what is in flight, checkpoints, marks clean. */
  close(done: (error: LaminaError | null) => void): void;
}

/** `created`: write sequence that created the extent; `hot`: its bytes may differ from its entries or the other copies. */
export type InventoryVisitor = (
  layer: number,
  extent: number,
  generation: number,
  created: number,
  hot: boolean,
) => void;

/** A store among several that hold the same extents (DESIGN §6). */
export interface MemberStore extends Store {
  readonly identity: DeviceIdentity;
  /**
   * What a power loss may have taken has been put right from other members. Until then a device that was opened
   * with `stability` stays LOSSY, through further openings too.
   */
  reconciled(): void;
}

export interface DeviceIdentity {
  /** 16 bytes each. */
  readonly deviceId: Uint8Array;
  readonly clusterId: Uint8Array;
  /** Number of this opening; the one before had a lower number, not always the next lower. */
  readonly incarnation: number;
  readonly bootId: string;
  readonly lossy: boolean;
}

/** Says when an extent may cool: everything about it is complete on all in-sync members. */
export interface Stability {
  isStable(volume: number, layer: number, extent: number): boolean;
}

export interface BadBlock {
  readonly volume: number;
  readonly layer: number;
  readonly extent: number;
  readonly block: number;
  /** Wall clock of the finding. */
  readonly foundAt: number;
}

export interface StoreEvents {
  /** A mismatch that no copy here can mend. */
  bitRot(bad: BadBlock): void;
  /** Writes wait for space (`full`), or no longer do. */
  full(full: boolean): void;
  /** The device answers nothing any more (invariant 22). */
  failed(reason: string): void;
  /** The device was opened after a power loss without a clean shutdown; and when all is settled again. */
  lossy(lossy: boolean): void;
  /** Blocks whose bytes were taken over after a power loss. */
  adopted(volume: number, extent: number, blocks: number): void;
  /** Extents that appear or go: the index mirror follows this. */
  extentChanged(volume: number, layer: number, extent: number, exists: boolean): void;
}

export interface StoreStats {
  readonly slots: number;
  readonly freeSlots: number;
  readonly liveSlots: number;
  /** Freed, not yet zeroed. */
  readonly freeingSlots: number;
  readonly hotSlots: number;
  readonly slotBytes: number;
  readonly logBytes: number;
  readonly logUsedBytes: number;
  readonly logAppends: number;
  readonly logAppendedBytes: number;
  readonly syncs: number;
  readonly checkpoints: number;
  readonly cacheBytes: number;
  readonly cacheLimitBytes: number;
  readonly cacheMisses: number;
  readonly blocksRead: number;
  readonly blocksWritten: number;
  readonly bytesZeroed: number;
  readonly zeroCalls: number;
  readonly bitRotBlocks: number;
  readonly adoptedBlocks: number;
  readonly waitingForSpace: number;
  readonly lossy: boolean;
  readonly failed: string | null;
  readonly scrub: { readonly running: boolean; readonly passes: number; readonly lastPassEndedAt: number };
}
