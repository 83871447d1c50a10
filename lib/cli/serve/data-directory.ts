/**
 * The data directory of one server.
 *
 *     lamina.lock    held (flock) while a server runs on the directory
 *     lamina.pid     its process id, for people
 *     store.0        the device, unless --device names another
 *     scrub.json     when the last scrub ended and the next one is due
 *     admin.sock, admin.token, redis/
 */
import { chmodSync, existsSync, mkdirSync, rmSync, type Stats, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LaminaError } from "../../core/errors.js";
import { BLOCK_BYTES } from "../../core/limits.js";
import type { Engine } from "../../uring/api.js";
import { flockHolder } from "../../uring/lock.js";

const LOCK_FILE = "lamina.lock";
const PID_FILE = "lamina.pid";
export const SCRUB_FILE = "scrub.json";
export const STORE_FILE = "store.0";
export const REDIS_DIRECTORY = "redis";

/** The live process that runs on a data directory; null when there is none. */
export function holderOf(directory: string): { pid: number; command: string } | null {
  const lock = join(directory, LOCK_FILE);
  if (!existsSync(lock)) return null;
  const holder = flockHolder(lock);
  return holder?.state === "live" ? holder : null;
}

/** Throws DATA_DIRECTORY_BUSY or DATA_DIRECTORY_UNUSABLE. Changes nothing. */
export function checkDirectory(directory: string): void {
  const holder = holderOf(directory);
  if (holder !== null) throw busy(directory, `process ${holder.pid} (${holder.command})`);
  let found: Stats | undefined;
  try {
    found = statSync(directory, { throwIfNoEntry: false });
  } catch (error) {
    throw unusable(directory, error instanceof Error ? error.message : String(error));
  }
  if (found !== undefined && !found.isDirectory()) throw unusable(directory, "it is not a directory");
}

export interface HeldDirectory {
  readonly path: string;
  release(): void;
}

/** Creates the directory if need be and holds it. Throws DATA_DIRECTORY_BUSY or DATA_DIRECTORY_UNUSABLE. */
export async function holdDirectory(engine: Engine, directory: string): Promise<HeldDirectory> {
  try {
    // What it holds is everyone's data: nobody else reads it.
    if (mkdirSync(directory, { recursive: true, mode: 0o700 }) !== undefined) chmodSync(directory, 0o700);
  } catch (error) {
    throw unusable(directory, error instanceof Error ? error.message : String(error));
  }
  const lock = await openLock(engine, directory);
  const pidFile = join(directory, PID_FILE);
  writeFileSync(pidFile, `${process.pid}\n`);
  return {
    path: directory,
    release() {
      rmSync(pidFile, { force: true });
      lock.disk.close();
    },
  };
}

async function openLock(engine: Engine, directory: string): ReturnType<Engine["openDisk"]> {
  try {
    return await engine.openDisk({ path: join(directory, LOCK_FILE), createBytes: BLOCK_BYTES });
  } catch (error) {
    if (!(error instanceof LaminaError)) throw error;
    if (error.code === "DEVICE_BUSY") throw busy(directory, String(error.params["holder"]));
    throw unusable(directory, String(error.params["what"] ?? error.message));
  }
}

function busy(path: string, holder: string): LaminaError {
  return new LaminaError("DATA_DIRECTORY_BUSY", { path, holder });
}

function unusable(path: string, what: string): LaminaError {
  return new LaminaError("DATA_DIRECTORY_UNUSABLE", { path, what });
}
