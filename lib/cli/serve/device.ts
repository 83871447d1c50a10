/**
 * From a path to a device that can be opened as a store: looked at first, formatted only if it is new or
 * blank. A store file gets its name when it is whole: an interrupted format leaves nothing that looks used.
 */
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync, statfsSync } from "node:fs";
import { dirname, join } from "node:path";
import { LaminaError } from "../../core/errors.js";
import { MIB, TIB } from "../../core/limits.js";
import {
  FORMAT_VERSION,
  formatStore,
  metadataBytes,
  planFormat,
  probe,
  type StoreEnvironment,
  type StoreEvents,
} from "../../store/index.js";
import type { Engine, OpenedDisk } from "../../uring/api.js";
import { runRoutine } from "../routine.js";
import { bootIdOf } from "./boot-id.js";
import { STORE_FILE } from "./data-directory.js";
import type { ServeOptions } from "./options.js";

/** Part of the free space that a store file may grow to, when no capacity is given. */
const CAPACITY_SHARE = 0.8;
/** Largest store file by default: ext4 refuses files of 16 TiB. */
const CAPACITY_DEFAULT_MAX = 15 * TIB;
const ID_BYTES = 16;
const FORMATTING_SUFFIX = ".formatting";

export interface FoundDevice {
  readonly path: string;
  /** Null: a store file that does not exist yet. */
  readonly opened: OpenedDisk | null;
  /** Identities in hex; null when it has to be formatted. */
  readonly identity: DeviceIdentity | null;
  /** Bytes that a format would use. */
  readonly capacity: number;
}

export interface DeviceIdentity {
  readonly deviceId: string;
  readonly clusterId: string;
}

export interface ReadyDevice extends DeviceIdentity {
  readonly path: string;
  readonly opened: OpenedDisk;
  readonly formatted: boolean;
}

type OnWait = (reason: string) => void;

/** Looks without changing anything. Throws LaminaError: DEVICE_… when it cannot be used, NO_SPACE. */
export async function findDevice(
  engine: Engine,
  options: Pick<ServeOptions, "data" | "device" | "capacity">,
  onWait: OnWait,
): Promise<FoundDevice> {
  const path = options.device ?? join(options.data, STORE_FILE);
  if (options.device === null && !existsSync(path)) {
    const capacity = options.capacity ?? defaultCapacity(options.data);
    planNew(path, capacity, options.capacity === null);
    return { path, opened: null, identity: null, capacity };
  }
  const opened = await engine.openDisk({ path, onWait });
  try {
    const identity = await identify(engine, opened, path);
    const capacity = opened.disk.sizeBytes;
    if (identity === null) planNew(path, capacity, false);
    return { path, opened, identity, capacity };
  } catch (error) {
    opened.disk.close();
    throw error;
  }
}

/** Formats the device if it is new or blank, for a cluster that it names. It is the caller's to close. */
export async function readyDevice(
  engine: Engine,
  found: FoundDevice,
  cluster: Uint8Array = randomBytes(ID_BYTES),
): Promise<ReadyDevice> {
  const { path, opened, identity, capacity } = found;
  if (opened !== null && identity !== null) return { path, opened, ...identity, formatted: false };
  if (opened !== null) {
    const made = await format(engine, opened, path, capacity, false, cluster);
    return { path, opened, ...made, formatted: true };
  }
  const forming = path + FORMATTING_SUFFIX;
  rmSync(forming, { force: true });
  const fresh = await engine.openDisk({ path: forming, createBytes: capacity });
  try {
    const made = await format(engine, fresh, path, capacity, true, cluster);
    renameSync(forming, path);
    syncDirectory(dirname(path));
    return { path, opened: fresh, ...made, formatted: true };
  } catch (error) {
    fresh.disk.close();
    rmSync(forming, { force: true });
    throw error;
  }
}

/** What the store of a device takes from outside. */
export function storeEnvironment(
  engine: Engine,
  opened: OpenedDisk,
  bootId: string,
  events: StoreEvents,
): StoreEnvironment {
  const { pool, clock, random, checksums } = engine;
  return { disk: opened.disk, pool, clock, random, ticker: engine, checksums, bootId, events };
}

/** Null when it is blank. Throws when it is anything but blank or a whole store. */
export async function identify(
  engine: Engine,
  opened: OpenedDisk,
  path: string,
): Promise<DeviceIdentity | null> {
  const result = await runRoutine(probe(storeEnvironment(engine, opened, "", withoutEvents)));
  switch (result.kind) {
    case "store": {
      const { deviceId, clusterId } = result.superblock;
      return { deviceId: hex(deviceId), clusterId: hex(clusterId) };
    }
    case "blank":
      return null;
    case "foreign":
      throw new LaminaError("DEVICE_NOT_BLANK", { path, found: result.found });
    case "newer":
      throw new LaminaError("DEVICE_NEWER", { path, found: result.version, known: FORMAT_VERSION });
    case "damaged":
      throw new LaminaError("DEVICE_DAMAGED", { path, what: "neither copy of its superblock is valid" });
    case "unreadable":
      throw new LaminaError("DEVICE_FAILED", { path, what: "it cannot be read" });
  }
}

/** Makes the device an empty store, whatever it holds. */
export async function format(
  engine: Engine,
  opened: OpenedDisk,
  path: string,
  capacityBytes: number,
  knownZero: boolean,
  clusterId: Uint8Array = randomBytes(ID_BYTES),
): Promise<DeviceIdentity> {
  const deviceId = randomBytes(ID_BYTES);
  const options = { deviceId, clusterId, capacityBytes, path, knownZero };
  if (opened.kind === "file") await opened.reserve(0, metadataBytes(planFormat(options)));
  const bootId = bootIdOf(hex(deviceId), opened.instanceTag);
  await runRoutine(formatStore(storeEnvironment(engine, opened, bootId, withoutEvents), options));
  return { deviceId: hex(deviceId), clusterId: hex(clusterId) };
}

function planNew(path: string, capacityBytes: number, byDefault: boolean): void {
  const none = new Uint8Array(ID_BYTES);
  try {
    planFormat({ deviceId: none, clusterId: none, capacityBytes, path });
  } catch (error) {
    if (!byDefault || !(error instanceof LaminaError) || error.code !== "DEVICE_TOO_SMALL") throw error;
    throw new LaminaError("NO_SPACE", {
      path: dirname(path),
      free: Math.floor(capacityBytes / CAPACITY_SHARE),
    });
  }
}

function defaultCapacity(directory: string): number {
  let existing = directory;
  while (!existsSync(existing)) existing = dirname(existing);
  const { bavail, bsize } = statfsSync(existing);
  const share = Math.min(bavail * bsize * CAPACITY_SHARE, CAPACITY_DEFAULT_MAX);
  return Math.floor(share / MIB) * MIB;
}

function syncDirectory(path: string): void {
  const fd = openSync(path, "r");
  fsyncSync(fd);
  closeSync(fd);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Nothing happens to a device that is only looked at or formatted. */
export const withoutEvents: StoreEvents = {
  bitRot() {},
  full() {},
  failed() {},
  lossy() {},
  adopted() {},
  extentChanged() {},
};
