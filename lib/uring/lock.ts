/**
 * The exclusive flock of a data descriptor, and who holds it.
 *
 * The lock belongs to the open file, and the kernel keeps that until its last request has ended. So after
 * kill -9 it is held a little longer by nobody alive: a ghost, to be waited for. A live holder is named.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { LaminaError } from "../core/errors.js";
import { Errno } from "./abi.js";
import { type Addon, systemError } from "./addon.js";

const RETRY_MS = 20;
/**
 * A ghost is waited for without end: giving up would not make its writes go away. But a holder that cannot
 * be seen (another container) may be alive: that one is waited for this long.
 */
const UNSEEN_HOLDER_WAIT_MS = 15_000;

/** What /proc says about the holder of a lock. */
export type Holder =
  | { readonly state: "live"; readonly pid: number; readonly command: string }
  | { readonly state: "ghost"; readonly pid: number }
  | { readonly state: "unseen" };

/** Waits for a ghost; throws DEVICE_BUSY for a live holder. */
export async function takeLock(
  addon: Addon,
  fd: number,
  path: string,
  onWait?: (reason: string) => void,
): Promise<void> {
  let told = false;
  let unseenMs = 0;
  for (;;) {
    const result = addon.fileLock(fd);
    if (result === 0) return;
    if (result !== Errno.EAGAIN) throw systemError(`flock of ${path}`, result);
    const holder = lockHolder(fd);
    if (holder.state === "live") throw busy(path, `process ${holder.pid} (${holder.command})`);
    if (holder.state === "unseen") {
      unseenMs += RETRY_MS;
      if (unseenMs > UNSEEN_HOLDER_WAIT_MS) throw busy(path, "a process that cannot be seen from here");
    }
    if (!told) {
      told = true;
      onWait?.(waitReason(path, holder));
    }
    await sleep(RETRY_MS);
  }
}

function busy(path: string, holder: string): LaminaError {
  return new LaminaError("DEVICE_BUSY", { path, holder });
}

function waitReason(path: string, holder: Holder): string {
  const whose = holder.state === "ghost" ? `the killed process ${holder.pid}` : "a process that is gone";
  return `${path} waits for the last requests of ${whose} to end`;
}

/** Who holds the flock of the file or device at `path`, without touching it; null when nobody is seen to. */
export function flockHolder(path: string): Holder | null {
  const holder = holderOf(path);
  return holder.state === "unseen" ? null : holder;
}

function lockHolder(fd: number): Holder {
  return holderOf(`/proc/self/fd/${fd}`);
}

function holderOf(path: string): Holder {
  const { ino } = statSync(path, { bigint: true });
  const pid = holderPid(readFileSync("/proc/locks", "utf8"), String(ino));
  if (pid === 0) return { state: "unseen" };
  if (!hasFileOpen(pid, ino)) return { state: "ghost", pid };
  return { state: "live", pid, command: commandOf(pid) };
}

/**
 * The pid in /proc/locks of the flock on an inode; 0 when there is none. A line reads
 * "7: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF"; of waiters, "7: -> FLOCK …".
 */
export function holderPid(locks: string, inode: string): number {
  for (const line of locks.split("\n")) {
    const fields = line.trim().split(/\s+/);
    if (fields[1] !== "FLOCK") continue;
    if (fields[5]?.split(":").at(-1) === inode) return Number(fields[4]);
  }
  return 0;
}

/**
 * Whether the process is alive and has the file open: the number may belong to another process by now, and a
 * dying one has closed its files. Where we may not look, it counts as alive.
 */
function hasFileOpen(pid: number, inode: bigint): boolean {
  let descriptors: string[];
  try {
    descriptors = readdirSync(`/proc/${pid}/fd`);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ENOENT";
  }
  return descriptors.some((descriptor) => {
    try {
      return statSync(`/proc/${pid}/fd/${descriptor}`, { bigint: true }).ino === inode;
    } catch {
      return false;
    }
  });
}

/** The program's name as it was started or calls itself; the thread's name (`comm`) is Node's own from 24 on. */
function commandOf(pid: number): string {
  try {
    const [command] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    return command === undefined || command === "" ? "unknown" : basename(command);
  } catch {
    return "unknown";
  }
}
