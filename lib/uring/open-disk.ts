/**
 * Opening a file or block device for direct I/O: the same for both engines.
 *
 * Invariants
 *  1. The descriptor that does the I/O is the one that holds the lock. The kernel keeps both until the last
 *     request in flight has ended, also after kill -9: so when we have the lock, no write of a dead holder
 *     can still land.
 *  2. The second descriptor, for appends through the page cache, is opened after the lock is held, from the
 *     first one, so that it is the same file whatever happens to the name.
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
} from "node:fs";
import { dirname } from "node:path";
import { LaminaError } from "../core/errors.js";
import { BLOCK_BYTES } from "../core/limits.js";
import type { Pool } from "../core/pool.js";
import { Errno } from "./abi.js";
import { type Addon, checkNative, type FileFacts } from "./addon.js";
import type { OpenDiskOptions } from "./api.js";
import { errnoOf, errnoText } from "./errno.js";
import { instanceTag } from "./instance-tag.js";
import { takeLock } from "./lock.js";

/** Smallest unit of any device; what buffered I/O is held to as well, so that nobody relies on less. */
const SECTOR_BYTES = 512;

export interface OpenFile {
  readonly path: string;
  /** Data, past the page cache where `direct`. */
  readonly fd: number;
  /** Appends, through the page cache; −1 when opened for reading only. */
  readonly appendFd: number;
  readonly kind: "file" | "block";
  readonly created: boolean;
  readonly direct: boolean;
  /** On a file system in memory: its I/O never waits for a device. */
  readonly inMemory: boolean;
  readonly sizeBytes: number;
  readonly alignBytes: number;
  readonly zeroGrainBytes: number;
  readonly instanceTag: string;
}

export async function openFile(addon: Addon, pool: Pool, options: OpenDiskOptions): Promise<OpenFile> {
  const { path } = options;
  const access = options.readOnly === true ? constants.O_RDONLY : constants.O_RDWR;
  const created = createIfWanted(options);
  let fd = openData(path, access | constants.O_DIRECT);
  let direct = fd >= 0;
  // File systems without direct I/O refuse the flag itself.
  if (fd === Errno.EINVAL) fd = openData(path, access);
  if (fd < 0) throw unopenable(path, errnoText(fd));
  try {
    await takeLock(addon, fd, path, options.onWait);
    refuseClaimed(path, fd, access);
    const facts = checkNative(`statx of ${path}`, addon.fileFacts(fd));
    if (facts.kind === "other") throw unopenable(path, "it is neither a file nor a block device");
    const align = direct ? directAlign(fd, facts, pool) : 0;
    if (direct && align === 0) {
      fd = await reopenBuffered(addon, fd, access, path, options);
      direct = false;
    }
    return {
      path,
      fd,
      appendFd: options.readOnly === true ? -1 : openSync(`/proc/self/fd/${fd}`, access),
      kind: facts.kind,
      created,
      direct,
      inMemory: facts.inMemory,
      sizeBytes: facts.size,
      alignBytes: direct ? align : SECTOR_BYTES,
      zeroGrainBytes: zeroGrain(facts),
      instanceTag: instanceTag(fd, facts),
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Makes the file, as long as wanted and known to its directory even after a power loss. */
function createIfWanted(options: OpenDiskOptions): boolean {
  if (options.createBytes === undefined) return false;
  const { O_CREAT, O_EXCL, O_RDWR } = constants;
  let fd: number;
  try {
    fd = openSync(options.path, O_CREAT | O_EXCL | O_RDWR, 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw unopenable(options.path, errnoText(errnoOf(error)));
  }
  try {
    ftruncateSync(fd, options.createBytes);
    fsyncSync(fd);
    const directory = openSync(dirname(options.path), constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  } catch (error) {
    throw unopenable(options.path, errnoText(errnoOf(error)));
  } finally {
    closeSync(fd);
  }
  return true;
}

/** A descriptor (close-on-exec, as all of Node's), or −errno. */
function openData(path: string, flags: number): number {
  try {
    return openSync(path, flags);
  } catch (error) {
    return errnoOf(error);
  }
}

/**
 * A block device may be in use by the kernel itself (mounted, part of another device), which takes no flock.
 * Asking for it exclusively tells; the descriptor that asks is closed again, since the lock is ours.
 */
function refuseClaimed(path: string, fd: number, access: number): void {
  if (!fstatSync(fd).isBlockDevice()) return;
  const claim = openData(`/proc/self/fd/${fd}`, access | constants.O_EXCL);
  if (claim === Errno.EBUSY) {
    throw new LaminaError("DEVICE_BUSY", {
      path,
      holder: "the kernel: it is mounted or part of another device",
    });
  }
  if (claim >= 0) closeSync(claim);
}

/**
 * Alignment that direct I/O needs here, or 0 when it does not work. What statx says is believed; where it
 * says nothing (tmpfs, old kernels), a read is tried.
 */
function directAlign(fd: number, facts: FileFacts, pool: Pool): number {
  if (facts.memoryAlign !== undefined && facts.offsetAlign !== undefined) {
    const align = Math.max(facts.memoryAlign, facts.offsetAlign, SECTOR_BYTES);
    if (facts.memoryAlign > 0 && align <= BLOCK_BYTES) return align;
    return 0;
  }
  const memory = pool.allocate(BLOCK_BYTES);
  if (memory < 0) return 0;
  try {
    for (const align of [facts.sectorBytes ?? SECTOR_BYTES, BLOCK_BYTES]) {
      if (align <= BLOCK_BYTES && readsAt(fd, pool, memory, align)) return align;
    }
    return 0;
  } finally {
    pool.free(memory);
  }
}

/** Whether `align` bytes at that offset can be read into memory aligned no better than that. */
function readsAt(fd: number, pool: Pool, memory: number, align: number): boolean {
  const at = align < BLOCK_BYTES ? memory + align : memory;
  try {
    readSync(fd, pool.bytes, at, align, align);
    return true;
  } catch {
    return false;
  }
}

async function reopenBuffered(
  addon: Addon,
  fd: number,
  access: number,
  path: string,
  options: OpenDiskOptions,
): Promise<number> {
  const buffered = openSync(`/proc/self/fd/${fd}`, access);
  closeSync(fd);
  // The lock went with the old descriptor; nothing was in flight on it.
  await takeLock(addon, buffered, path, options.onWait);
  return buffered;
}

/** What really is given back: a block of the file system, or what the device discards. */
function zeroGrain(facts: FileFacts): number {
  let grain = facts.blockBytes;
  if (facts.kind === "block") {
    const queue = `/sys/dev/block/${facts.deviceMajor}:${facts.deviceMinor}/queue/discard_granularity`;
    grain = numberIn(queue);
  }
  const usable = grain >= BLOCK_BYTES && grain % BLOCK_BYTES === 0 && grain <= ZERO_GRAIN_MAX;
  return usable ? grain : BLOCK_BYTES;
}

/** Larger grains (2 MiB pages of tmpfs) say how space is kept, not what can be zeroed. */
const ZERO_GRAIN_MAX = 1024 * 1024;

function numberIn(path: string): number {
  try {
    return Number(readFileSync(path, "utf8"));
  } catch {
    return 0;
  }
}

export function unopenable(path: string, what: string): LaminaError {
  return new LaminaError("DEVICE_UNOPENABLE", { path, what });
}

/** Makes sure of the blocks of a range of a file, on the thread pool. */
export async function reserveRange(
  addon: Addon,
  file: OpenFile,
  offset: number,
  length: number,
): Promise<void> {
  if (file.kind !== "file") throw unopenable(file.path, "space can be reserved in a file only");
  const result = await new Promise<number>((resolve) => {
    const started = addon.fileAllocate(file.fd, 0, offset, length, resolve);
    if (started < 0) resolve(started);
  });
  // A file system without fallocate gives no promise; writing will find out.
  if (result < 0 && result !== Errno.EOPNOTSUPP)
    throw unopenable(file.path, `reserving: ${errnoText(result)}`);
}
