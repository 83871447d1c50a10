/** lamina node and lamina gateway: the processes of a cluster. */
import type { Argv, Options } from "yargs";
import { startGateway } from "../cluster/gateway-server.js";
import { startNode } from "../cluster/node-server.js";
import {
  CARE_AFTER_DEFAULT,
  KEY_FILE,
  NODE_LISTEN_DEFAULT,
  resolveGatewayOptions,
  resolveNodeOptions,
} from "../cluster/options.js";
import type { Role } from "../cluster/role.js";
import { print } from "../output.js";
import { makeLog } from "../serve/log.js";
import { DATA_DEFAULT } from "../serve/options.js";
import { reloadTls } from "../serve/reload.js";
import { stopSignal } from "../serve/signals.js";
import {
  CAPACITY,
  DEFAULT_EXPORT,
  DEVICE,
  IO_ENGINE,
  LISTEN,
  TLS,
  TLS_DIR,
  text,
} from "../server-options.js";
import type { Command } from "./command.js";
import { registerNodeCommands } from "./nodes.js";

export const node: Command = {
  register: (yargs, run) =>
    yargs.command(
      "node",
      "run a storage node of a cluster in the foreground; node ls lists them",
      (y) => registerNodeCommands(nodeOptions(y), run),
      run(async (args) => serveRole((log) => startNode(resolveNodeOptions(args), log))),
    ),
};

export const gateway: Command = {
  register: (yargs, run) =>
    yargs.command(
      "gateway",
      "run a gateway of a cluster in the foreground",
      (y) => gatewayOptions(y),
      run(async (args) => serveRole((log) => startGateway(resolveGatewayOptions(args), log))),
    ),
};

/** Of the process itself: commands like `node ls` do not take it. */
function own<T extends Options>(option: T): T & { readonly global: false } {
  return { ...option, global: false };
}

// The builder's type is what the handler gets.
function roleOptions<T>(yargs: Argv<T>) {
  return yargs
    .option("data", own(text(`directory of its data (default ${DATA_DEFAULT})`)))
    .option(
      "cluster",
      own(text("addresses of all config nodes: HOST:PORT, or three or five with commas between")),
    )
    .option("key", own(text(`file with the cluster's key (default ${KEY_FILE} in the data directory)`)))
    .option("admin", own(text("address of the admin API and metrics (default: any free port of 127.0.0.1)")))
    .option("pool", own(text("memory for requests in flight (default 64M for a node, 256M for a gateway)")))
    .option("io-engine", own(IO_ENGINE))
    .option(
      "link-tls",
      own(text("directory of link-cert.pem, link-key.pem and ca-cert.pem: links are encrypted")),
    )
    .option(
      "insecure",
      own({ describe: "listen beyond this machine without encryption", type: "boolean" } as const),
    );
}

function nodeOptions<T>(yargs: Argv<T>) {
  return roleOptions(yargs)
    .option("listen", own(text(`address for the cluster (default ${NODE_LISTEN_DEFAULT})`)))
    .option("capacity", own(CAPACITY))
    .option("device", own(DEVICE))
    .example(
      "lamina node --data n1 --listen 127.0.0.1:11001 --cluster 127.0.0.1:11001,127.0.0.1:11002,127.0.0.1:11003 --key cluster.key",
      "the first of three nodes",
    );
}

function gatewayOptions<T>(yargs: Argv<T>) {
  return roleOptions(yargs)
    .option("listen", LISTEN)
    .option("default-export", DEFAULT_EXPORT)
    .option(
      "redis",
      text("URL of a Redis to mirror the cluster into, the same at every gateway (default none)"),
    )
    .option(
      "care-after",
      text(
        `seconds after which a volume is opened for its copies if nobody else has it open, or off (default ${CARE_AFTER_DEFAULT})`,
      ),
    )
    .option("tls", TLS)
    .option("tls-dir", TLS_DIR);
}

async function serveRole(start: (log: ReturnType<typeof makeLog>) => Promise<Role>): Promise<number> {
  const log = makeLog();
  const role = await start(log);
  process.on("SIGHUP", () => reloadTls(role, log));
  // Whoever reads that it is ready may stop it at once.
  const stopped = stopSignal();
  for (const line of role.ready) print(line);
  const signal = await stopped;
  log.info({ signal }, "stopping: finishing what is in flight");
  await role.close();
  return 0;
}
