/** lamina doctor: what this machine has and lacks for Lamina, before or while it runs. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { checkStore, describeTarget, findRedisServer, parseRedisUrl } from "../../catalog/index.js";
import { codecFault, LZ4 } from "../../cluster/lz4.js";
import { LaminaError } from "../../core/errors.js";
import { GIB, MIB, POOL_BYTES_DEFAULT, POOL_BYTES_MIN } from "../../core/limits.js";
import type { Engine } from "../../uring/api.js";
import { openEngine } from "../../uring/engine.js";
import { withData } from "../arguments.js";
import { print, printJson, table } from "../output.js";
import { holderOf } from "../serve/data-directory.js";
import { formatBytes } from "../size.js";
import type { Command } from "./command.js";

interface Check {
  readonly name: string;
  /** warning: it works, but not as well as it could. */
  readonly state: "ok" | "warning" | "failed";
  readonly text: string;
  /** What to do; empty when nothing. */
  readonly next: string;
}

export const doctor: Command = {
  register: (yargs, run) =>
    yargs.command(
      "doctor",
      "check what this machine has for Lamina: io_uring, lz4, memory, O_DIRECT, Redis, space",
      (y) =>
        withData(y)
          .option("redis", {
            describe: "check this Redis instead of the private one",
            type: "string",
            requiresArg: true,
          })
          .example(
            "lamina doctor --data /srv/lamina",
            "before the first start; exit code 1 when something is missing",
          ),
      run(async (args) => {
        const target = args.redis === undefined ? null : parseRedisUrl(args.redis);
        const checks = [
          checkNode(),
          ...(await checkEngine(nearest(args.data))),
          checkPacking(),
          checkMemlock(),
          checkMemory(),
          target === null ? checkPrivateRedis() : await checkRedis(target),
          checkSpace(args.data),
          checkServer(args.data),
        ];
        if (args.json) printJson({ checks });
        else show(checks);
        return checks.some(({ state }) => state === "failed") ? 1 : 0;
      }),
    ),
};

function show(checks: readonly Check[]): void {
  const rows = checks.map(({ name, state, text }) => [name, state, text]);
  print(table([{ title: "CHECK" }, { title: "STATE" }, { title: "FOUND" }], rows));
  for (const { name, next } of checks) if (next !== "") print(`→ ${name}: ${next}`);
}

function ok(name: string, text: string): Check {
  return { name, state: "ok", text, next: "" };
}

function checkNode(): Check {
  return ok("node", `${process.version} on ${process.platform} ${process.arch}`);
}

/** The engine that `serve` would take, and O_DIRECT where the data would be. */
async function checkEngine(directory: string): Promise<Check[]> {
  let engine: Engine;
  try {
    engine = openEngine({ kind: "auto", poolBytes: POOL_BYTES_MIN });
  } catch (error) {
    return [failed("io_uring", error)];
  }
  try {
    return [ringCheck(engine), await checkDirect(engine, directory)];
  } finally {
    await engine.close();
  }
}

function ringCheck({ fallbackReason }: Engine): Check {
  if (fallbackReason === null) return ok("io_uring", "works");
  const next = "allow io_uring (container profile, sysctl kernel.io_uring_disabled) for full speed";
  return { name: "io_uring", state: "warning", text: fallbackReason, next };
}

async function checkDirect(engine: Engine, directory: string): Promise<Check> {
  let scratch: string | null = null;
  try {
    scratch = mkdtempSync(join(directory, ".lamina-doctor-"));
    const opened = await engine.openDisk({ path: join(scratch, "probe"), createBytes: MIB });
    const { direct } = opened;
    const { alignBytes } = opened.disk;
    opened.disk.close();
    if (direct) return ok("O_DIRECT", `works in ${directory}, aligned to ${alignBytes} bytes`);
    const next = "use a file system or device with direct I/O: data is cached twice here";
    return { name: "O_DIRECT", state: "warning", text: `refused in ${directory}`, next };
  } catch (error) {
    return failed("O_DIRECT", error);
  } finally {
    if (scratch !== null) rmSync(scratch, { recursive: true, force: true });
  }
}

/** Only a cluster's processes pack anything. */
function checkPacking(): Check {
  const fault = codecFault(LZ4);
  if (fault === null) return ok("lz4", "works");
  const next =
    "install what its native part lacks, or npm ci on this machine; without it a cluster's background copies are not compressed";
  return { name: "lz4", state: "warning", text: fault, next };
}

/** Rings and registered buffers count against it for those who are not root. */
const MEMLOCK_MIN = 8 * MIB;

function checkMemlock(): Check {
  const limit =
    /^Max locked memory\s+(\S+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? "unknown";
  if (limit === "unlimited" || Number(limit) >= MEMLOCK_MIN) {
    return ok("memlock", limit === "unlimited" ? limit : formatBytes(Number(limit)));
  }
  const next = "raise it: ulimit -l, or LimitMEMLOCK= of the service";
  return { name: "memlock", state: "warning", text: `${limit} bytes`, next };
}

function checkMemory(): Check {
  const kib = Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1] ?? 0);
  const bytes = kib * 1024;
  if (bytes >= 2 * POOL_BYTES_DEFAULT) return ok("memory", `${formatBytes(bytes)} available`);
  const next = "make the buffer pool smaller: lamina serve --pool 64M";
  return { name: "memory", state: "warning", text: `${formatBytes(bytes)} available`, next };
}

function checkPrivateRedis(): Check {
  try {
    const { path, argv0 } = findRedisServer();
    const { stdout } = spawnSync(path, ["--version"], { argv0, encoding: "utf8" });
    const version = /v=(\S+)/.exec(stdout)?.[1] ?? "of unknown version";
    return ok("redis", `${path}, ${version}`);
  } catch (error) {
    return failed("redis", error);
  }
}

async function checkRedis(target: ReturnType<typeof parseRedisUrl>): Promise<Check> {
  try {
    await checkStore(target, null);
    return ok("redis", `${describeTarget(target)} can be used`);
  } catch (error) {
    // A mirror that is there may well be ours: without a server we cannot know.
    if (error instanceof LaminaError && error.code === "REDIS_FOREIGN") {
      return ok("redis", `${describeTarget(target)} holds the mirror of store ${error.params["found"]}`);
    }
    return failed("redis", error);
  }
}

function checkSpace(data: string): Check {
  const { bavail, bsize } = statfsSync(nearest(data));
  const free = bavail * bsize;
  if (free >= GIB) return ok("space", `${formatBytes(free)} free for ${resolve(data)}`);
  const text = `${formatBytes(free)} free for ${resolve(data)}`;
  return { name: "space", state: "warning", text, next: "free some, or name another directory with --data" };
}

function checkServer(data: string): Check {
  const holder = holderOf(data);
  return ok(
    "server",
    holder === null ? `none on ${resolve(data)}` : `process ${holder.pid} on ${resolve(data)}`,
  );
}

function failed(name: string, error: unknown): Check {
  const text = error instanceof Error ? error.message : String(error);
  return { name, state: "failed", text, next: error instanceof LaminaError ? error.next : "" };
}

/** The directory itself, or the closest one above it that exists. */
function nearest(directory: string): string {
  let at = resolve(directory);
  while (!existsSync(at)) at = dirname(at);
  return at;
}
