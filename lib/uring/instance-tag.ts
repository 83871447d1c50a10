/**
 * Which life of a disk or file system an opening belongs to: while the tag is the same, nothing that was written can
 * have been lost by what happened to it in between (DESIGN "Lossy").
 *
 * A file system is named by its superblock, not by its mount: the same one is mounted anew in every mount namespace,
 * and a service manager gives each start of a service a namespace of its own. What names a superblock is the inode of
 * its directory in sysfs (ext4, xfs, f2fs), whose number is not used again before the next boot. Other file systems have none:
 * there the mount counts, so a start in another namespace looks like a power loss, which costs work but no data.
 */
import { fstatSync, readdirSync, readlinkSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import type { FileFacts } from "./addon.js";

const FILE_SYSTEMS = "/sys/fs";
const BLOCK_DEVICES = "/sys/dev/block";

export function instanceTag(fd: number, facts: FileFacts): string {
  if (facts.kind === "block") return `disk-${facts.diskSequence ?? "unknown"}`;
  const { dev } = fstatSync(fd, { bigint: true });
  // With its memory goes the file.
  if (facts.inMemory) return `memory-${dev}`;
  const superblock = superblockOf(dev);
  return superblock === null ? `mount-${facts.mountId ?? "unknown"}` : `superblock-${superblock}`;
}

/** The number of the life of the file system on a device; null where the kernel does not show it. */
function superblockOf(dev: bigint): bigint | null {
  try {
    const device = basename(readlinkSync(join(BLOCK_DEVICES, deviceNumbers(dev))));
    for (const type of readdirSync(FILE_SYSTEMS)) {
      const found = statSync(join(FILE_SYSTEMS, type, device), { bigint: true, throwIfNoEntry: false });
      if (found?.isDirectory() === true) return found.ino;
    }
  } catch {
    // No sysfs here, or a file system that is on no block device.
  }
  return null;
}

/** As sysfs writes them; of Linux's 64-bit dev_t, whose parts are split. */
function deviceNumbers(dev: bigint): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}
