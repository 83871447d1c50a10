/** lamina status: one look at a server. */
import type { StatusView } from "../../admin/index.js";
import { clientOf, withTarget } from "../arguments.js";
import type { RoleStatusView } from "../cluster/views.js";
import { fields, print, printJson } from "../output.js";
import { formatBytes } from "../size.js";
import { describeRole, scrubText } from "./cluster.js";
import type { Command } from "./command.js";

export const status: Command = {
  register: (yargs, run) =>
    yargs.command(
      "status",
      "show the server, its device and its mirror, and what is wrong or waited for",
      (y) => withTarget(y),
      run(async (args) => {
        const view = await clientOf(args).ask<StatusView | RoleStatusView>("GET", "/v1/status");
        if (args.json) printJson(view);
        else print("role" in view ? describeRole(view) : describe(view));
        return 0;
      }),
    ),
};

const TLS_WORDS: Readonly<Record<StatusView["tls"], string>> = {
  notls: "off",
  selective: "allowed",
  forced: "required",
};

function describe(view: StatusView): string {
  const { store, device, io, mirror, gateway } = view;
  const pairs: (readonly [string, string])[] = [
    ["server", `lamina ${view.version}, process ${view.pid}, since ${view.startedAt}`],
    ["data", view.data],
    ...view.listeners.map((uri): readonly [string, string] => ["listens on", uri]),
    ["TLS", TLS_WORDS[view.tls]],
    ["state", view.ready ? "ready" : "not ready"],
    [
      "volumes",
      `${view.volumes}; ${gateway.connections} connection(s), ${gateway.requestsInFlight} request(s) in flight`,
    ],
    ...gateway.threads.map(({ connections, requests }, i): readonly [string, string] => [
      `thread ${i}`,
      `${connections} connection(s), ${requests} request(s) answered`,
    ]),
    [
      "device",
      `${device.path} (${device.kind}${device.direct ? ", O_DIRECT" : ""}), I/O engine ${io.engine}`,
    ],
    [
      "space",
      `${formatBytes(store.usedBytes)} used, ${formatBytes(store.freeBytes)} free of ${formatBytes(store.capacityBytes)}`,
    ],
    ["scrub", scrubText(view.scrub)],
    ["mirror", mirror.redis === null ? mirror.state : `${mirror.state} (${mirror.redis})`],
  ];
  return [fields(pairs), ...view.notices.map((notice) => `! ${notice}`)].join("\n");
}
