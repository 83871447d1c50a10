/** lamina fsck and lamina format: a device without a server. */
import { existsSync, rmSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { LaminaError } from "../../core/errors.js";
import { POOL_BYTES_MIN } from "../../core/limits.js";
import { type FsckReport, fsck as fsckStore, planFormat } from "../../store/index.js";
import type { Engine, OpenedDisk } from "../../uring/api.js";
import { openEngine } from "../../uring/engine.js";
import { withData } from "../arguments.js";
import { note, print, printJson } from "../output.js";
import { Progress } from "../progress.js";
import { runRoutine } from "../routine.js";
import { STORE_FILE } from "../serve/data-directory.js";
import { format as formatDevice, identify, storeEnvironment, withoutEvents } from "../serve/device.js";
import { formatBytes, parseBytes } from "../size.js";
import type { Command } from "./command.js";

/** Findings that are listed for a person; --json has all. */
const FINDINGS_LISTED = 50;
/** The check tells how far it is as a part of 1; bytes of the device make it readable. */
const WHOLE = 1;

export const fsck: Command = {
  register: (yargs, run) =>
    yargs.command(
      "fsck [device]",
      "check a store that no server uses; changes nothing, exit code 1 when something is wrong",
      (y) =>
        withData(y)
          .positional("device", {
            describe: "device or store file (default: the one in the data directory)",
            type: "string",
          })
          .option("metadata-only", { describe: "do not read the data", type: "boolean", default: false })
          .example("lamina fsck --data /srv/lamina", "check the store file of a stopped server")
          .example("lamina fsck /dev/sdb", "check a whole disk"),
      run(async (args) => {
        const path = resolve(args.device ?? join(args.data, STORE_FILE));
        const report = await withDevice({ path, readOnly: true }, async (engine, opened) => {
          const progress = new Progress("checking", opened.disk.sizeBytes, args.json);
          const env = storeEnvironment(engine, opened, "", withoutEvents);
          const onProgress = (done: number): void => progress.set((done / WHOLE) * opened.disk.sizeBytes);
          const options = { path, metadataOnly: args.metadataOnly, onProgress };
          return runRoutine(fsckStore(env, options)).finally(() => progress.end());
        });
        if (args.json) printJson(reportView(path, report));
        else describe(path, report);
        return report.findings.length === 0 ? 0 : 1;
      }),
    ),
};

export const format: Command = {
  register: (yargs, run) =>
    yargs.command(
      "format <device>",
      "make a device or file an empty store; refused unless it is blank",
      (y) =>
        y
          .positional("device", { describe: "device or file", type: "string", demandOption: true })
          .option("force", { describe: "destroy what it holds", type: "boolean", default: false })
          .option("capacity", {
            describe: "size of a file that does not exist yet",
            type: "string",
            requiresArg: true,
          })
          .example("lamina format /dev/sdb", "a blank disk")
          .example("lamina format --force /dev/sdb", "whatever is on it"),
      run(async (args) => {
        const path = resolve(args.device);
        const create = createBytes(path, args.capacity);
        const made = await withDevice({ path, ...create }, (engine, opened) =>
          formatOpened(engine, opened, path, args.force),
        );
        if (args.json) printJson(made);
        else print(`${path} is an empty store of ${formatBytes(made.capacityBytes)}`);
        return 0;
      }),
    ),
};

function createBytes(path: string, capacity: string | undefined): { createBytes?: number } {
  if (existsSync(path)) {
    if (capacity === undefined || statSync(path).isDirectory()) return {};
    throw new LaminaError("USAGE", {
      what: `--capacity is for a new file, and ${path} exists`,
      help: "lamina format --help",
    });
  }
  if (capacity === undefined) return {};
  const bytes = parseBytes(capacity);
  const none = new Uint8Array(16);
  planFormat({ deviceId: none, clusterId: none, capacityBytes: bytes, path });
  return { createBytes: bytes };
}

interface Formatted {
  readonly device: string;
  readonly deviceId: string;
  readonly clusterId: string;
  readonly capacityBytes: number;
}

async function formatOpened(
  engine: Engine,
  opened: OpenedDisk,
  path: string,
  force: boolean,
): Promise<Formatted> {
  const capacityBytes = opened.disk.sizeBytes;
  try {
    if (!force && (await identify(engine, opened, path)) !== null) {
      throw new LaminaError("DEVICE_NOT_BLANK", { path, found: "a Lamina store" });
    }
    const made = await formatDevice(engine, opened, path, capacityBytes, opened.created);
    return { device: path, ...made, capacityBytes };
  } catch (error) {
    if (opened.created) rmSync(path, { force: true });
    throw error;
  }
}

interface DeviceOptions {
  readonly path: string;
  readonly readOnly?: boolean;
  readonly createBytes?: number;
}

/** An engine of the smallest kind around one device. */
async function withDevice<T>(
  options: DeviceOptions,
  work: (engine: Engine, opened: OpenedDisk) => Promise<T>,
): Promise<T> {
  const engine = openEngine({ kind: "auto", poolBytes: POOL_BYTES_MIN });
  try {
    const opened = await engine.openDisk({ ...options, onWait: note });
    try {
      return await work(engine, opened);
    } finally {
      opened.disk.close();
    }
  } finally {
    await engine.close();
  }
}

function describe(path: string, report: FsckReport): void {
  for (const { rule, message } of report.findings.slice(0, FINDINGS_LISTED)) print(`${rule}: ${message}`);
  const more = report.findings.length - FINDINGS_LISTED;
  if (more > 0) print(`and ${more} more (--json lists them)`);
  const { liveSlots, freeSlots, hotSlots, slots, blocksVerified } = report;
  const summary = `${slots} slots, ${liveSlots} live, ${freeSlots} free, ${hotSlots} hot; ${blocksVerified} blocks verified`;
  const verdict = report.findings.length === 0 ? "clean" : `${report.findings.length} finding(s)`;
  print(`${path}: ${verdict}; ${summary}`);
}

function reportView(path: string, report: FsckReport): unknown {
  const { superblock, ...rest } = report;
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
  const identity =
    superblock === null
      ? null
      : { ...superblock, deviceId: hex(superblock.deviceId), clusterId: hex(superblock.clusterId) };
  return { device: path, clean: report.findings.length === 0, superblock: identity, ...rest };
}
