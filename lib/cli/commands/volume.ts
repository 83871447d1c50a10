/** lamina volume: create, ls, show, set, rename, resize, rm; export and import are in transfer.ts. */
import type { Argv } from "yargs";
import type { VolumeDetailView, VolumeView } from "../../admin/index.js";
import { LaminaError } from "../../core/errors.js";
import { BLOCK_BYTES } from "../../core/limits.js";
import { accessOption, formatAccessRule } from "../access-rules.js";
import { clientOf, type GlobalArguments, withTarget } from "../arguments.js";
import { fields, print, printJson, table } from "../output.js";
import { formatBytes, parseBytes, parseVolumeSize } from "../size.js";
import type { Command, Run } from "./command.js";
import { registerTransfer } from "./transfer.js";
import { checkName, parseCount, volumePath } from "./volume-names.js";

export const volume: Command = {
  register: (yargs, run) =>
    yargs.command("volume", "create, change, copy and remove volumes", (y) => {
      registerCreate(y, run);
      registerLs(y, run);
      registerShow(y, run);
      registerSet(y, run);
      registerRename(y, run);
      registerResize(y, run);
      registerRm(y, run);
      registerTransfer(y, run);
      return y.demandCommand(1, "say what to do with volumes");
    }),
};

/** Taken once or more often; all together are the list. */
const ALLOW = {
  describe:
    "who may use it: cert:NAME, psk:IDENTITY or address:PREFIX, :ro behind it for reading; repeatable",
  type: "string",
  array: true,
  requiresArg: true,
  nargs: 1,
} as const;

function named<T>(yargs: Argv<T>) {
  return withTarget(yargs).positional("name", { describe: "volume", type: "string", demandOption: true });
}

function registerCreate(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "create <name>",
    "create a volume",
    (y) =>
      named(y)
        .option("size", {
          describe: "size, for example 10G",
          type: "string",
          requiresArg: true,
          demandOption: true,
        })
        .option("description", {
          describe: "text that clients and operators see",
          type: "string",
          requiresArg: true,
        })
        .option("read-only", { describe: "refuse writes", type: "boolean" })
        .option("replicas", { describe: "copies of each extent", type: "string", requiresArg: true })
        .option("min-replicas", {
          describe: "copies in sync that writes need, with fewer they wait (default: more than half)",
          type: "string",
          requiresArg: true,
        })
        .option("stripe-count", {
          describe: "extents that a stream is dealt over",
          type: "string",
          requiresArg: true,
        })
        .option("stripe-unit", {
          describe: "size of one stripe, for example 256K",
          type: "string",
          requiresArg: true,
        })
        .option("on-full", {
          describe: "what a write to a full device gets",
          choices: ["wait", "enospc"] as const,
          requiresArg: true,
        })
        .option("allow", ALLOW)
        .example("lamina volume create disk1 --size 10G", "a volume of 10 GiB")
        .example("lamina volume create disk2 --size 10G --allow cert:alice", "for the client 'alice' alone"),
    run(async (args) => {
      const body = {
        name: checkName(args.name),
        size: parseVolumeSize(args.size),
        description: args.description,
        readOnly: args.readOnly,
        replicas: parseCount(args.replicas, "--replicas"),
        minReplicas: parseCount(args.minReplicas, "--min-replicas"),
        stripeCount: parseCount(args.stripeCount, "--stripe-count"),
        stripeUnit: args.stripeUnit === undefined ? undefined : parseBytes(args.stripeUnit),
        onFull: args.onFull,
        access: accessOption(args.allow),
      };
      const made = await clientOf(args).ask<VolumeDetailView>("POST", "/v1/volumes", body);
      if (args.json) printJson(made);
      else print(`created volume ${made.name} of ${formatBytes(made.size)}`);
      return 0;
    }),
  );
}

function registerLs(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    ["ls", "list"],
    "list volumes",
    (y) => withTarget(y),
    run(async (args) => {
      const answer = await clientOf(args).ask<{ volumes: readonly VolumeView[] }>("GET", "/v1/volumes");
      if (args.json) {
        printJson(answer);
        return 0;
      }
      const columns = [
        { title: "NAME" },
        { title: "SIZE", right: true },
        { title: "USED", right: true },
        { title: "CLIENTS", right: true },
        { title: "STATE" },
        { title: "DESCRIPTION" },
      ];
      const rows = answer.volumes.map((v) => [
        v.name,
        formatBytes(v.size),
        formatBytes(v.usage.bytes),
        String(v.usage.connections),
        stateOf(v),
        v.description,
      ]);
      print(table(columns, rows));
      return 0;
    }),
  );
}

function stateOf({ usage, readOnly }: VolumeView): string {
  if (usage.badBlocks > 0) return `${usage.badBlocks} bad block(s)`;
  return readOnly ? "read-only" : "ok";
}

function registerShow(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "show <name>",
    "show one volume, with its damaged blocks",
    (y) => named(y),
    run(async (args) => {
      show(await clientOf(args).ask<VolumeDetailView>("GET", volumePath(args.name)), args.json);
      return 0;
    }),
  );
}

function registerSet(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "set <name>",
    "change description, read-only flag, access list or what a full device means",
    (y) =>
      named(y)
        .option("description", { describe: "text that clients and operators see", type: "string" })
        .option("read-only", { describe: "refuse writes (--no-read-only allows them)", type: "boolean" })
        .option("on-full", {
          describe: "what a write to a full device gets",
          choices: ["wait", "enospc"] as const,
        })
        .option("allow", ALLOW)
        .example(
          "lamina volume set disk1 --allow cert:alice --allow address:10.0.0.0/8:ro",
          "a new access list",
        )
        .example("lamina volume set disk1 --no-allow", "no access list: everyone who can connect")
        .example("lamina volume set disk1 --read-only", "refuse writes, also of who has it open"),
    run(async (args) => {
      const { description, readOnly, onFull } = args;
      const body = { description, readOnly, onFull, access: accessOption(args.allow) };
      if (Object.values(body).every((value) => value === undefined)) {
        throw new LaminaError("USAGE", {
          what: "nothing to change was given",
          help: "lamina volume set --help",
        });
      }
      show(await clientOf(args).ask<VolumeDetailView>("PATCH", volumePath(args.name), body), args.json);
      return 0;
    }),
  );
}

function registerRename(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "rename <name> <new-name>",
    "give a volume another name",
    (y) =>
      named(y).positional("new-name", {
        describe: "its name from now on",
        type: "string",
        demandOption: true,
      }),
    run(async (args) => {
      const body = { name: checkName(args.newName) };
      const path = volumePath(args.name, "/rename");
      const changed = await clientOf(args).ask<VolumeDetailView>("POST", path, body);
      if (args.json) printJson(changed);
      else print(`volume ${args.name} is now ${changed.name}`);
      return 0;
    }),
  );
}

function registerResize(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "resize <name>",
    "grow a volume; open clients see it at once",
    (y) =>
      named(y)
        .option("size", {
          describe: "new size, for example 20G",
          type: "string",
          requiresArg: true,
          demandOption: true,
        })
        .example("lamina volume resize disk1 --size 20G", "grow it to 20 GiB"),
    run(async (args) => {
      const body = { size: parseVolumeSize(args.size) };
      const path = volumePath(args.name, "/resize");
      const changed = await clientOf(args).ask<VolumeDetailView>("POST", path, body);
      if (args.json) printJson(changed);
      else print(`volume ${changed.name} now has ${formatBytes(changed.size)}`);
      return 0;
    }),
  );
}

function registerRm(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    ["rm <name>", "remove <name>"],
    "remove a volume and its data; refused while it is open",
    (y) => named(y),
    run(async (args) => {
      await clientOf(args).ask("DELETE", volumePath(args.name));
      if (args.json) printJson({ removed: args.name });
      else print(`removed volume ${args.name}`);
      return 0;
    }),
  );
}

function accessLines(rules: VolumeDetailView["access"]): (readonly [string, string])[] {
  if (rules.length === 0) return [["access", "everyone who can connect"]];
  return rules.map((rule, i) => [i === 0 ? "access" : "", formatAccessRule(rule)]);
}

/** Bad blocks that are listed for a person; --json has all. */
const BAD_BLOCKS_LISTED = 20;

function show(v: VolumeDetailView, json: boolean): void {
  if (json) {
    printJson(v);
    return;
  }
  const stripes = v.stripeCount === 1 ? "none" : `${v.stripeCount} × ${formatBytes(v.stripeUnit)}`;
  const bad = v.badBlocks
    .slice(-BAD_BLOCKS_LISTED)
    .map(({ extent, block, offset, foundAt }): readonly [string, string] => {
      return [
        "bad block",
        `bytes ${offset} to ${offset + BLOCK_BYTES - 1} (block ${block} of extent ${extent}), found ${foundAt}`,
      ];
    });
  const left = v.badBlocks.length - bad.length;
  print(
    fields([
      ["name", v.name],
      ["size", `${formatBytes(v.size)} (${v.size} bytes)`],
      ["used", `${formatBytes(v.usage.bytes)} in ${v.usage.extents} extent(s)`],
      ["clients", String(v.usage.connections)],
      ["state", stateOf(v)],
      ["description", v.description === "" ? "-" : v.description],
      ["replicas", v.replicas === 1 ? "1" : `${v.replicas}; writes need ${v.minReplicas}`],
      ["stripes", stripes],
      ["when full", v.onFull === "wait" ? "writes wait" : "writes get ENOSPC"],
      ...accessLines(v.access),
      ["created", v.createdAt],
      ["id", String(v.id)],
      ...bad,
      ...(left > 0 ? [["", `and ${left} more (--json lists them)`] as const] : []),
    ]),
  );
}
