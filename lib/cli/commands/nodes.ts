/** lamina node ls, drain, rm: the nodes of a cluster, at a node or gateway of it. */
import type { Argv } from "yargs";
import { clientOf, type GlobalArguments, withTarget } from "../arguments.js";
import { ApiError } from "../client.js";
import type { ClusterView, DrainView } from "../cluster/views.js";
import { print, printFailure, printJson } from "../output.js";
import { text } from "../server-options.js";
import { nodeTable, volumesOf } from "./cluster.js";
import type { Run } from "./command.js";

export function registerNodeCommands<T extends GlobalArguments>(yargs: Argv<T>, run: Run): Argv<T> {
  registerLs(yargs, run);
  registerDrain(yargs, run);
  registerRm(yargs, run);
  return yargs;
}

function registerLs<T extends GlobalArguments>(yargs: Argv<T>, run: Run): void {
  yargs.command(
    "ls",
    "list the nodes of a cluster, as a node or gateway of it sees them",
    (y) => withTarget(y),
    run(async (args) => {
      const { nodes } = await clientOf(args).ask<ClusterView>("GET", "/v1/cluster");
      if (args.json) printJson({ nodes });
      else print(nodeTable(nodes));
      return 0;
    }),
  );
}

function named<T>(yargs: Argv<T>) {
  return withTarget(yargs).positional("node", {
    describe: "its address, or the beginning of its id",
    type: "string",
    demandOption: true,
  });
}

function registerDrain<T extends GlobalArguments>(yargs: Argv<T>, run: Run): void {
  yargs.command(
    "drain <node>",
    "give the seats of a node to others, at a gateway: it is lost, or is to be emptied",
    (y) =>
      named(y)
        .option("to", text("node that gets them (default: for each the one with the most free space)"))
        .option("volume", text("only its seat in this volume"))
        .example("lamina node drain 127.0.0.1:10822 --data g1", "its copies are made on other nodes"),
    run(async (args) => {
      const path = `/v1/cluster/nodes/${encodeURIComponent(args.node)}/drain`;
      const wanted = args.to === undefined ? {} : { to: args.to };
      const seats: DrainView["seats"][number][] = [];
      // One volume at a time: each may have to wait for the end of a lease.
      for (const volume of args.volume === undefined ? await volumesOrNone(args) : [args.volume]) {
        const body = volume === null ? wanted : { ...wanted, volume };
        const done = await clientOf(args).ask<DrainView>("POST", path, body);
        seats.push(...done.seats);
        if (!args.json) for (const seat of done.seats) printSeat(seat);
      }
      if (args.json) printJson({ node: args.node, seats });
      else if (seats.length === 0) print(`${args.node} has no seat`);
      return seats.some(({ refused }) => refused !== null) ? 1 : 0;
    }),
  );
}

/** Which of them have a seat there, the gateway knows. One null for none: whether the node exists, it knows as well. */
async function volumesOrNone(args: Parameters<typeof clientOf>[0]): Promise<readonly (string | null)[]> {
  const names = await volumesOf(args);
  return names.length === 0 ? [null] : names;
}

function printSeat({ volume, to, refused }: DrainView["seats"][number]): void {
  if (to !== null) print(`volume ${volume}: ${to} has the seat, and gets its copy now`);
  else if (refused === null) print(`volume ${volume}: the seat is given up, which did not count yet`);
  else printFailure(new ApiError(refused.code, refused.message, refused.next), false);
}

function registerRm<T extends GlobalArguments>(yargs: Argv<T>, run: Run): void {
  yargs.command(
    "rm <node>",
    "take a node without seats out of the cluster, at a gateway; its device is not let in again",
    (y) => named(y),
    run(async (args) => {
      await clientOf(args).ask("DELETE", `/v1/cluster/nodes/${encodeURIComponent(args.node)}`);
      if (args.json) printJson({ removed: args.node });
      else print(`node ${args.node} is not of the cluster any more`);
      return 0;
    }),
  );
}
