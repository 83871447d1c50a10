/** lamina cluster: init makes a key, status shows nodes and volumes, rebalance and config change who has what. */
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Argv } from "yargs";
import type { StatusView } from "../../admin/index.js";
import { createKey } from "../../cluster/key.js";
import { clientOf, type GlobalArguments, withData, withTarget } from "../arguments.js";
import { ApiError } from "../client.js";
import { KEY_FILE } from "../cluster/options.js";
import { clusterIdText } from "../cluster/role.js";
import type {
  BalanceView,
  CareView,
  ClusterView,
  ClusterVolumeView,
  ConfigNodesView,
  CopyView,
  MemberView,
  NodeView,
  OwnedView,
  RoleStatusView,
} from "../cluster/views.js";
import { fields, print, printFailure, printJson, table } from "../output.js";
import { text } from "../server-options.js";
import { formatBytes } from "../size.js";
import type { Command, Run } from "./command.js";

export const cluster: Command = {
  register: (yargs, run) =>
    yargs.command("cluster", "make a cluster's key, look at a cluster, change who does what in it", (y) => {
      registerInit(y, run);
      registerStatus(y, run);
      registerRebalance(y, run);
      registerConfig(y, run);
      return y.demandCommand(1, "say what to do with the cluster");
    }),
};

function registerInit(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "init",
    "make the key of a new cluster; every node and gateway gets a copy",
    (y) => withData(y).example("lamina cluster init --data c1", `writes c1/${KEY_FILE}`),
    run(async (args) => {
      mkdirSync(args.data, { recursive: true, mode: 0o700 });
      const path = join(resolve(args.data), KEY_FILE);
      const id = clusterIdText(createKey(path));
      if (args.json) printJson({ cluster: id, key: path });
      else print(`cluster ${id}: its key is in ${path}; give it to every node and gateway with --key`);
      return Promise.resolve(0);
    }),
  );
}

function registerStatus(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "status",
    "show the nodes and volumes of a cluster, and what is wrong or waited for",
    (y) => withTarget(y),
    run(async (args) => {
      const view = await clientOf(args).ask<ClusterView>("GET", "/v1/cluster");
      if (args.json) {
        printJson(view);
        return 0;
      }
      const parts = [`cluster ${view.cluster}`, nodeTable(view.nodes), volumeTable(view.volumes)];
      print([...parts, ...view.notices.map((notice) => `! ${notice}`)].join("\n"));
      return 0;
    }),
  );
}

function registerRebalance(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command(
    "rebalance",
    "give each volume a further seat, on a node that has none in it, at a gateway: nodes were added",
    (y) =>
      withTarget(y)
        .option("volume", text("only this volume"))
        .option("dry-run", { describe: "say only what would be done", type: "boolean", default: false })
        .example("lamina cluster rebalance --data g1", "a new node gets its share of every volume"),
    run(async (args) => {
      const volumes: BalanceView["volumes"][number][] = [];
      // One volume at a time: each may have to wait for the end of a lease.
      for (const volume of args.volume === undefined ? await volumesOf(args) : [args.volume]) {
        const body = { dryRun: args.dryRun, volume };
        const done = await clientOf(args).ask<BalanceView>("POST", "/v1/cluster/rebalance", body);
        volumes.push(...done.volumes);
        if (!args.json) for (const one of done.volumes) printBalance(one, args.dryRun);
      }
      if (args.json) printJson({ dryRun: args.dryRun, volumes });
      else if (volumes.length === 0) print("there is no volume");
      return volumes.some(({ refused }) => refused !== null) ? 1 : 0;
    }),
  );
}

export async function volumesOf(args: Parameters<typeof clientOf>[0]): Promise<readonly string[]> {
  const { volumes } = await clientOf(args).ask<ClusterView>("GET", "/v1/cluster");
  return volumes.map(({ name }) => name);
}

function printBalance(one: BalanceView["volumes"][number], isDryRun: boolean): void {
  const { volume, to, settled, refused } = one;
  if (refused !== null) printFailure(new ApiError(refused.code, refused.message, refused.next), false);
  else if (settled !== null) print(`volume ${volume}: nothing to do: ${settled}`);
  else if (isDryRun) print(`volume ${volume}: ${to} would get a further seat`);
  else print(`volume ${volume}: ${to} gets a further seat, and its share of the extents now`);
}

function registerConfig(yargs: Argv<GlobalArguments>, run: Run): void {
  yargs.command("config", "change the config nodes, which decide", (y) => {
    registerReplace(y, run);
    return y.demandCommand(1, "say what to do with the config nodes");
  });
}

function registerReplace(yargs: Argv<GlobalArguments>, run: Run): void {
  const describe = "its address, or the beginning of its id";
  yargs.command(
    "replace <old> <new>",
    "give the vote of a config node, lost or not, to another node, at a gateway",
    (y) =>
      withTarget(y)
        .positional("old", { describe, type: "string", demandOption: true })
        .positional("new", { describe, type: "string", demandOption: true })
        .example(
          "lamina cluster config replace 127.0.0.1:10822 127.0.0.1:10824 --data g1",
          "the second one votes",
        ),
    run(async (args) => {
      const path = `/v1/cluster/config/${encodeURIComponent(args.old)}/replace`;
      const view = await clientOf(args).ask<ConfigNodesView>("POST", path, { by: args.new });
      if (args.json) printJson(view);
      else print(configText(view, args.new));
      return 0;
    }),
  );
}

function configText({ version, nodes, votes }: ConfigNodesView, joined: string): string {
  const now = `config nodes, version ${version}: ${nodes.map(({ address }) => address).join(" ")}`;
  const state = votes ? "votes" : "copies what was decided before, and votes then: see lamina cluster status";
  return `${now}\n${joined} ${state}`;
}

export function nodeTable(nodes: readonly NodeView[]): string {
  const columns = [
    { title: "NODE" },
    { title: "ADDRESS" },
    { title: "ROLE" },
    { title: "STATE" },
    { title: "USED", right: true },
    { title: "CAPACITY", right: true },
    { title: "SESSIONS", right: true },
    { title: "VOLUMES", right: true },
    { title: "BAD", right: true },
  ];
  const rows = nodes.map(
    ({
      node,
      address,
      config,
      copying,
      volumes,
      up,
      lossy,
      usedBytes,
      capacityBytes,
      sessions,
      badBlocks,
    }) => [
      node.slice(0, 8),
      address,
      config ? "config" : "data",
      stateOf({ up, lossy, copying }),
      up ? formatBytes(usedBytes) : "-",
      up ? formatBytes(capacityBytes) : "-",
      up ? String(sessions) : "-",
      String(volumes),
      up ? String(badBlocks) : "-",
    ],
  );
  return table(columns, rows);
}

function stateOf({ up, lossy, copying }: Pick<NodeView, "up" | "lossy" | "copying">): string {
  if (!up) return "down";
  if (lossy) return "lossy";
  return copying ? "copying" : "up";
}

export function volumeTable(volumes: readonly ClusterVolumeView[]): string {
  const columns = [
    { title: "VOLUME" },
    { title: "SIZE", right: true },
    { title: "IN SYNC", right: true },
    { title: "OWNED" },
    { title: "EPOCH", right: true },
    { title: "COPIES" },
  ];
  const rows = volumes.map(({ name, size, members, owned, keptBy, epoch }) => [
    name,
    formatBytes(size),
    `${members.filter(({ state }) => state === "insync").length}/${members.filter(({ state }) => state !== "joining").length}`,
    keptBy !== null ? "kept" : owned ? "yes" : "no",
    String(epoch),
    members.map(copyOf).join(" "),
  ]);
  return table(columns, rows);
}

function copyOf({ address, state, badBlocks }: MemberView): string {
  const remarks = [
    ...(state === "insync" ? [] : [state]),
    ...(badBlocks === 0 ? [] : [`${badBlocks} bad block(s)`]),
  ];
  return remarks.length === 0 ? address : `${address} (${remarks.join(", ")})`;
}

/** `lamina status` of a node or gateway. */
export function describeRole(view: RoleStatusView): string {
  const pairs: (readonly [string, string])[] = [
    [view.role, `lamina ${view.version}, process ${view.pid}, since ${view.startedAt}`],
    ["data", view.data],
    ...view.listeners.map((one): readonly [string, string] => ["listens on", one]),
    ["state", view.ready ? "ready" : "not ready"],
    ["links", view.linkTls ? "encrypted" : "plain"],
    ...view.links.map(({ address, linked }): readonly [string, string] => [
      "node",
      `${address} ${linked ? "linked" : "not linked"}`,
    ]),
    ...(view.role === "node" ? nodeLines(view) : gatewayLines(view)),
  ];
  return [fields(pairs), ...view.notices.map((notice) => `! ${notice}`)].join("\n");
}

export function scrubText({ running, lastEndedAt, nextAt }: StatusView["scrub"]): string {
  const last = lastEndedAt === null ? "none has ended yet" : `last ended ${lastEndedAt}`;
  return `${last}; ${running ? "one is running" : `next ${nextAt}`}`;
}

function nodeLines(view: Extract<RoleStatusView, { role: "node" }>): (readonly [string, string])[] {
  const { device, ioEngine, usedBytes, capacityBytes } = view;
  const direct = device.direct ? ", O_DIRECT" : "";
  return [
    ["id", view.node],
    ["device", `${device.path} (${device.kind}${direct}), I/O engine ${ioEngine}`],
    ["space", `${formatBytes(usedBytes)} used of ${formatBytes(capacityBytes)}`],
    ["sessions", String(view.sessions)],
    ["scrub", scrubText(view.scrub)],
  ];
}

function gatewayLines(view: Extract<RoleStatusView, { role: "gateway" }>): (readonly [string, string])[] {
  return [
    [
      "mirror",
      view.mirror.redis === null ? view.mirror.state : `${view.mirror.state} (${view.mirror.redis})`,
    ],
    ["clients", `${view.connections} connection(s), ${view.requestsInFlight} request(s) in flight`],
    ["caretaker", careText(view.care)],
    ...view.owned.flatMap(ownedLines),
    ...view.closed.map((name): readonly [string, string] => ["volume", `${name}: nobody has it open`]),
    ...view.elsewhere.map((name): readonly [string, string] => [
      "volume",
      view.keepers[name] === undefined
        ? `${name}: another gateway has it open, or died with it`
        : `${name}: kept for its copies by gateway ${view.keepers[name]}`,
    ]),
    ...view.care.volumes.flatMap(careLines),
  ];
}

function careText({ afterSeconds, kept, inNeed }: CareView): string {
  if (afterSeconds === null) return "off";
  return `keeps ${kept} volume(s), knows of ${inNeed} in need; opens them after ${afterSeconds} s`;
}

function careLines({ volume, state, why, inSeconds }: CareView["volumes"][number]): [string, string][] {
  // Of those that are kept their lines say how far they are; of those that wait a notice what for.
  return state === "due" ? [["in need", `${volume}: ${why}; is opened in about ${inSeconds} s`]] : [];
}

function ownedLines({
  name,
  state,
  clients,
  kept,
  epoch,
  copies,
  toReconcile,
  toGiveUp,
}: OwnedView): (readonly [string, string])[] {
  const compared = toReconcile === 0 ? "" : `, ${toReconcile} extent(s) to compare`;
  const surplus = toGiveUp === 0 ? "" : `, ${toGiveUp} extent(s) to give up`;
  const care = kept ? ", kept for its copies" : "";
  return [
    ["volume", `${name}: ${state}, epoch ${epoch}, ${clients} client(s)${care}${compared}${surplus}`],
    ...copies.map((copy): readonly [string, string] => ["", `copy on ${copy.address}: ${copyText(copy)}`]),
  ];
}

function copyText({ inSync, joining, linked, awaySince, resync }: CopyView): string {
  const state = joining ? "joins" : inSync ? "in sync" : "stale";
  if (!linked) return `${state}, away since ${awaySince?.slice(11, 19)}`;
  if (resync === null) return inSync ? state : `${state}, waits for its resync`;
  const left = resync.secondsLeft === null ? "" : `, about ${resync.secondsLeft} s`;
  return `${joining ? state : "resync"}, ${resync.toGo} of ${resync.total} extent(s) to go${left}`;
}
