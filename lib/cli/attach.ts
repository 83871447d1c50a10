/**
 * lamina attach, detach and attached: volumes as block devices of this machine. The work is done by the native
 * program lamina-attach, which also runs where Node is not installed; here names of volumes become URIs.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { formatNbdUri, parseNbdUri } from "nbd-protocol-ts";
import type { Argv } from "yargs";
import type { StatusView } from "../admin/index.js";
import { LaminaError } from "../core/errors.js";
import { clientOf, type TargetArguments, withTarget } from "./arguments.js";
import type { Command } from "./commands/command.js";

const PROGRAM = "lamina-attach";
const ROOT = new URL("../../", import.meta.url).pathname.replace(/dist\/$/, "");
/** Where it is: as built here, or as installed. */
const FOLDERS: readonly string[] = [
  join(ROOT, "addon", "attach", "build"),
  ...(process.env["PATH"] ?? "").split(delimiter),
  "/usr/local/sbin",
];

/** Options that are handed on as they are, each with a value. */
const VALUE_OPTIONS = ["device", "connections", "timeout", "deadTimeout", "wait", "blockSize"] as const;

export interface AttachArguments extends TargetArguments {
  readonly volume: string;
  readonly device?: string | undefined;
  readonly connections?: string | undefined;
  readonly timeout?: string | undefined;
  readonly deadTimeout?: string | undefined;
  readonly wait?: string | undefined;
  readonly blockSize?: string | undefined;
  readonly address?: readonly string[] | undefined;
  readonly readOnly: boolean;
}

export const attach: Command = {
  register: (yargs, run) =>
    yargs.command(
      "attach <volume>",
      "make a block device of a volume, one that waits while its server restarts",
      (y) => withAttachOptions(withTarget(y)),
      run(async (args) => runProgram(["attach", ...passedOn(args), await uriOf(args)])),
    ),
};

export const detach: Command = {
  register: (yargs, run) =>
    yargs.command(
      "detach <target>",
      "write out what is cached and let a device go",
      (y) =>
        y
          .positional("target", {
            describe: "device, URI or name of the volume",
            type: "string",
            demandOption: true,
          })
          .option("force", {
            describe: "even while I/O waits: it fails then",
            type: "boolean",
            default: false,
          }),
      run((args) =>
        Promise.resolve(runProgram(["detach", deviceOf(args.target), ...(args.force ? ["--force"] : [])])),
      ),
    ),
};

export const attached: Command = {
  register: (yargs, run) =>
    yargs.command(
      "attached",
      "list what is attached, and what it waits for",
      (y) => y,
      run((args) => Promise.resolve(runProgram(["list", ...(args.json ? ["--json"] : [])]))),
    ),
};

const text = (describe: string) => ({ describe, type: "string", requiresArg: true }) as const;

// The builder's type is what the handler gets.
function withAttachOptions<T>(yargs: Argv<T>) {
  return yargs
    .positional("volume", {
      describe: "name of a volume of the server, or nbd://HOST/VOLUME",
      type: "string",
      demandOption: true,
    })
    .option("device", text("the device, for example /dev/nbd0 (default: the first free one)"))
    .option("connections", text("connections, 1 to 16 (default 2)"))
    .option("timeout", text("seconds without an answer after which another connection is used (default 10)"))
    .option("dead-timeout", text("seconds for which I/O waits without any connection (default 86400)"))
    .option("wait", text("seconds to keep trying when the server does not answer (default 0)"))
    .option("block-size", text("512 to 4096 (default: 4096 where the size allows)"))
    .option("address", {
      describe: "HOST[:PORT] of another gateway of the volume; may be repeated",
      type: "string",
      array: true,
      requiresArg: true,
      nargs: 1,
    })
    .option("read-only", { describe: "writes are refused", type: "boolean", default: false })
    .example("lamina attach disk1", "prints /dev/nbd0")
    .example("lamina attach nbd://storage1/disk1 --address storage2", "two gateways, tried in order")
    .epilogue("To reconnect after a restart a monitor must run: see docs/attach.md");
}

function passedOn(args: AttachArguments): string[] {
  const words: string[] = [];
  for (const name of VALUE_OPTIONS) {
    const value = args[name];
    if (value !== undefined) words.push(`--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`, value);
  }
  for (const address of args.address ?? []) words.push("--address", address);
  if (args.readOnly) words.push("--read-only");
  if (args.json) words.push("--json");
  return words;
}

/** A name is a volume of the server that --data or --server names, on its first listener without TLS. */
async function uriOf(args: AttachArguments): Promise<string> {
  if (args.volume.includes("://")) return args.volume;
  const { listeners } = await clientOf(args).ask<StatusView>("GET", "/v1/status");
  const uris = listeners.filter((uri) => uri.startsWith("nbd"));
  const listener = uris.find((uri) => !uri.startsWith("nbds")) ?? uris[0];
  if (listener === undefined) throw new LaminaError("ATTACH_NO_LISTENER", { name: args.volume });
  return volumeUri(listener, args.volume);
}

const EVERYWHERE: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };

/** A listener's URI with the volume's name; one that listens everywhere is reached over loopback. */
export function volumeUri(listener: string, volume: string): string {
  const uri = { ...parseNbdUri(listener), exportName: volume };
  const { endpoint } = uri;
  if (endpoint.kind !== "tcp") return formatNbdUri(uri);
  return formatNbdUri({
    ...uri,
    endpoint: { ...endpoint, host: EVERYWHERE[endpoint.host] ?? endpoint.host },
  });
}

/** The device of a volume's name; anything else is the program's to understand. */
function deviceOf(target: string): string {
  if (target.includes("/") || /^nbd\d+$/.test(target)) return target;
  const listed = spawnSync(programPath(), ["list", "--json"], { encoding: "utf8" });
  if (listed.status !== 0) return target;
  const { attached: all } = JSON.parse(listed.stdout) as { attached: { device: string; uri: string }[] };
  const [device, another] = all.filter(({ uri }) => parseNbdUri(uri).exportName === target);
  if (device === undefined) throw new LaminaError("ATTACH_UNKNOWN", { name: target });
  if (another !== undefined) {
    throw new LaminaError("ATTACH_AMBIGUOUS", { name: target, first: device.device, second: another.device });
  }
  return device.device;
}

function programPath(): string {
  for (const folder of FOLDERS) {
    const path = join(folder, PROGRAM);
    if (existsSync(path)) return path;
  }
  throw new LaminaError("ATTACH_MISSING");
}

/** Its output is ours, and so is its exit code, which has the same meaning. */
function runProgram(args: readonly string[]): number {
  const path = programPath();
  const result = spawnSync(path, args, { stdio: "inherit" });
  if (result.error !== undefined) throw result.error;
  return result.status ?? 1;
}
