/** The extent store of one device. */
export type {
  BadBlock,
  DeviceIdentity,
  FormatOptions,
  InventoryVisitor,
  MemberStore,
  Stability,
  Store,
  StoreEnvironment,
  StoreEvents,
  StoreOptions,
  StoreStats,
} from "./api.js";
export { BAD_BLOCKS_MAX, WHOLE_EXTENT } from "./bad-blocks.js";
export { FORMAT_VERSION, type Layout, RECORD_BYTES_MAX } from "./format.js";
export { type FormatStoreOptions, formatStore, metadataBytes, planFormat } from "./format-store.js";
export { type Finding, type FsckOptions, type FsckReport, fsck } from "./fsck.js";
export { openStore } from "./open-store.js";
export { type OpenStoreOptions, STORE_DEFAULTS, type StoreTunables } from "./options.js";
export { type ProbeResult, probe } from "./probe.js";
export type { Superblock } from "./superblock.js";
export type { UpgradeStep, UpgradeSteps } from "./upgrade.js";
