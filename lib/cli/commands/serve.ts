/** lamina serve: the server in the foreground. */
import type { Logger } from "pino";
import type { Argv } from "yargs";
import { LaminaError } from "../../core/errors.js";
import { sdNotify } from "../../uring/notify.js";
import { printFailure } from "../output.js";
import { takeInherited } from "../serve/activation.js";
import { makeLog } from "../serve/log.js";
import {
  ADMIN_DEFAULT,
  DATA_DEFAULT,
  LISTEN_DEFAULT,
  resolveServeOptions,
  type ServeArguments,
  type ServeOptions,
} from "../serve/options.js";
import { reloadTls } from "../serve/reload.js";
import { type Server, startServer } from "../serve/server.js";
import { stopSignal } from "../serve/signals.js";
import { Successor } from "../serve/successor.js";
import { TakeOver } from "../serve/take-over.js";
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

export const serve: Command = {
  register: (yargs, run) =>
    yargs.command(
      "serve",
      "run a server in the foreground",
      (y) => options(y),
      run(async (args) => {
        const { config, replace, ...rest } = args;
        return serveUntilStopped(pick(rest), config, replace === true, args.json);
      }),
    ),
};

// The builder's type is what the handler gets.
function options<T>(yargs: Argv<T>) {
  return yargs
    .option("data", text(`directory of the server's data (default ${DATA_DEFAULT})`))
    .option("capacity", CAPACITY)
    .option("device", DEVICE)
    .option("listen", LISTEN)
    .option("admin", text(`address of the admin API and metrics (default ${ADMIN_DEFAULT})`))
    .option("redis", text("URL of a Redis to mirror into, or none (default: a private one)"))
    .option("default-export", DEFAULT_EXPORT)
    .option("pool", text("memory for requests in flight (default 256M)"))
    .option("threads", {
      describe: "connection threads beside the one that owns the volumes (default 0: that one does both)",
      type: "number",
      requiresArg: true,
    })
    .option("io-engine", IO_ENGINE)
    .option("tls", TLS)
    .option("tls-dir", TLS_DIR)
    .option("insecure", {
      describe: "listen beyond this machine without encryption and authentication",
      type: "boolean",
    })
    .option("replace", {
      describe: "take over from the server that runs on the same data, without refusing a client",
      type: "boolean",
    })
    .option("config", text("JSON file with these options; those given here take precedence"))
    .example("lamina serve", `serve ${DATA_DEFAULT} on ${LISTEN_DEFAULT}`)
    .example("lamina serve --data /srv/lamina --capacity 500G", "a store file of at most 500 GiB")
    .example(
      "lamina serve --listen 0.0.0.0:10809 --tls require --tls-dir /etc/lamina/tls",
      "for other machines; every volume needs an access list",
    )
    .example("lamina serve --device /dev/sdb --listen unix:/run/lamina.sock", "a whole disk, a unix socket");
}

/** What was given, without what yargs adds; a repeated option that takes one value is refused. */
function pick(args: Readonly<Record<string, unknown>>): ServeArguments {
  const names = [
    "data",
    "capacity",
    "device",
    "listen",
    "admin",
    "redis",
    "default-export",
    "pool",
    "threads",
    "io-engine",
    "tls",
    "tls-dir",
    "insecure",
  ];
  const given = names.filter((name) => args[name] !== undefined).map((name) => [name, args[name]] as const);
  return Object.fromEntries(given);
}

async function serveUntilStopped(
  given: ServeArguments,
  config: string | undefined,
  replace: boolean,
  json: boolean,
): Promise<number> {
  // First of all: what is started from here on must not take the variables for its own.
  const inherited = takeInherited();
  const log = makeLog();
  let server: Server | null = null;
  const successor = new Successor(log);
  // It would end a server that is not ready yet.
  process.on("SIGUSR2", () => (server === null ? undefined : successor.start()));
  const first = resolveServeOptions(given, config, inherited);
  const takeOver = replace ? await TakeOver.begin(first.data) : null;
  const theirs = takeOver?.inherited() ?? [];
  const resolved =
    theirs.length === 0 ? first : resolveServeOptions(given, config, [...inherited, ...theirs]);
  server = await startServer(resolved, log, takeOver);
  const running = server;
  process.on("SIGHUP", () => reloadTls(running, log));
  // Whoever reads that the server is ready may stop it at once.
  const stopped = stopSignal();
  announce(server, resolved);
  const end = await Promise.race([stopped, server.replaced]);
  tellEnd(end, log);
  return stop(server, json);
}

function announce(server: Server, { listen }: ServeOptions): void {
  for (const [i, uri] of server.uris.entries()) {
    // Who handed a socket over knows where it is, and may use our standard output for its own answer.
    if (listen[i]?.kind !== "fd") process.stdout.write(`lamina ready ${uri}\n`);
  }
  sdNotify("READY=1");
}

/** `end`: the signal that stops the server, or the process that takes over. */
function tellEnd(end: string | number, log: Logger): void {
  if (typeof end === "string") {
    log.info({ signal: end }, "stopping: finishing what is in flight");
    sdNotify("STOPPING=1");
  } else {
    log.info({ new: end }, `process ${end} takes over: finishing what is in flight`);
    // The service goes on, in another process, whose word counts from now on.
    sdNotify(`MAINPID=${end}`);
  }
}

async function stop(server: Server, json: boolean): Promise<number> {
  try {
    await server.close();
    return 0;
  } catch (error) {
    if (!(error instanceof LaminaError)) throw error;
    return printFailure(error, json);
  }
}
