/**
 * The boot id of a device: differs from the one of an earlier opening exactly when bytes that were not synced
 * then may be gone (DESIGN "Lossy"). It is made of the boot of the operating system, of the instance of disk
 * or mount, and of the number of times the device has failed since: after a failed fsync the kernel may have
 * dropped what it could not write.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** In memory: gone with the boot, which is in the id as well. */
const FAILURES_DIRECTORY = "/dev/shm/lamina";

/** `deviceId` in hex; `instanceTag` as the engine gives it. */
export function bootIdOf(deviceId: string, instanceTag: string): string {
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return `${boot}/${instanceTag}/${failures(deviceId)}`;
}

/** Counts a failure of the device, so that its next opening is a lossy one. */
export function recordFailure(deviceId: string): void {
  mkdirSync(FAILURES_DIRECTORY, { recursive: true, mode: 0o700 });
  writeFileSync(join(FAILURES_DIRECTORY, deviceId), `${failures(deviceId) + 1}\n`);
}

function failures(deviceId: string): number {
  try {
    return Number.parseInt(readFileSync(join(FAILURES_DIRECTORY, deviceId), "utf8"), 10) || 0;
  } catch {
    return 0;
  }
}
