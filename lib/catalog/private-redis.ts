/**
 * A redis-server of our own: on a unix socket inside the data directory, append-only, never evicting.
 *
 * Invariants
 *  1. It lives no longer than this process: stopped with us, and when we are killed a watchdog (a shell that
 *     waits for the end of a pipe we hold) ends it. The watchdog is there before the server is. One that
 *     outlived both is found by its pid file, verified by its working directory, and ended before a new one
 *     starts.
 *  2. Its data is disposable. When it cannot read it, it starts with none and the mirror fills it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import {
  accessSync,
  constants,
  mkdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { basename, delimiter, join } from "node:path";
import { LaminaError } from "../core/errors.js";
import { type SocketPath, socketPath } from "./socket-path.js";

const SOCKET = "redis.sock";
const PID_FILE = "redis.pid";
const LOG_FILE = "redis.log";
const APPEND_DIRECTORY = "appendonlydir";

/** How long a server that is told to end may take before it is killed. */
const STOP_GRACE_MS = 5000;
const RESTART_FIRST_MS = 100;
const RESTART_MAX_MS = 5000;
/** One that lived this long was not a failed start. */
const STEADY_MS = 3000;
/** After so many failed starts in a row its data is put aside. */
const FAILED_STARTS_MAX = 3;

/**
 * Becomes the server, and leaves a watchdog behind that waits until our end of standard input is closed. Then,
 * if the process is still the one it was (pids are used again; start times are not), the watchdog ends it:
 * first kindly (and continued, should it be stopped), after five seconds by force.
 */
const LAUNCHER = `exec 3<&0 </dev/null
born() { cut -d' ' -f22 /proc/$$/stat; }
start=$(born)
(
  read -r _ <&3
  [ "$(born)" = "$start" ] || exit 0
  kill -TERM $$; kill -CONT $$
  i=0
  while [ $i -lt 50 ] && [ "$(born)" = "$start" ]; do sleep 0.1; i=$((i + 1)); done
  [ "$(born)" = "$start" ] && kill -KILL $$
) 2>/dev/null &
exec 3<&- "$LAMINA_REDIS" "$@"`;

/** What to run, and the name to call it by. */
export interface RedisProgram {
  readonly path: string;
  readonly argv0: string;
}

export interface PrivateRedisEvents {
  /** It ended without being told to and is started again. */
  restarted(reason: string): void;
}

export class PrivateRedis {
  readonly #directory: string;
  readonly #program: string;
  readonly #events: PrivateRedisEvents;
  readonly #socket: SocketPath;
  #server: ChildProcess | null = null;
  #restart: NodeJS.Timeout | null = null;
  #failedStarts = 0;
  #stopping = false;

  /** `directory` is created. Throws REDIS_SERVER_MISSING. */
  constructor(directory: string, events: PrivateRedisEvents) {
    const { path, argv0 } = findRedisServer();
    this.#directory = directory;
    this.#events = events;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#program = basename(path) === argv0 ? path : callable(directory, path, argv0);
    this.#socket = socketPath(directory, SOCKET);
  }

  /** Path to connect to; short enough for the kernel. */
  get socketPath(): string {
    return this.#socket.short;
  }

  get pid(): number | null {
    return this.#server?.pid ?? null;
  }

  /** Returns as soon as it is running, not when it answers: the mirror finds that out. */
  async start(): Promise<void> {
    await this.#endLeftOver();
    this.#spawn();
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.#restart !== null) clearTimeout(this.#restart);
    const server = this.#server;
    if (server !== null && server.exitCode === null && server.signalCode === null) {
      const gone = new Promise<void>((resolve) => server.once("exit", () => resolve()));
      server.kill("SIGTERM");
      server.kill("SIGCONT");
      const force = setTimeout(() => server.kill("SIGKILL"), STOP_GRACE_MS);
      await gone;
      clearTimeout(force);
    }
    this.#socket.release();
  }

  #spawn(): void {
    const startedAt = performance.now();
    // A session of its own: an interrupt typed at the terminal reaches us, and we end it.
    const server = spawn("/bin/sh", ["-c", LAUNCHER, "lamina-redis", ...SERVER_ARGUMENTS], {
      cwd: this.#directory,
      env: { ...process.env, LAMINA_REDIS: this.#program },
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
    });
    this.#server = server;
    server.once("error", (error) => this.#ended(server, startedAt, error.message));
    server.once("exit", (code, signal) => {
      this.#ended(server, startedAt, signal === null ? `exit code ${code}` : `signal ${signal}`);
    });
    server.stdin?.once("error", () => {});
    server.unref();
    unrefStream(server.stdin);
  }

  #ended(server: ChildProcess, startedAt: number, reason: string): void {
    // The watchdog has nothing to watch any more, and sees that.
    server.stdin?.destroy();
    if (this.#server !== server) return;
    this.#server = null;
    if (this.#stopping) return;
    this.#failedStarts = performance.now() - startedAt < STEADY_MS ? this.#failedStarts + 1 : 0;
    if (this.#failedStarts === FAILED_STARTS_MAX) this.#putDataAside();
    const delay = Math.min(RESTART_FIRST_MS * 2 ** this.#failedStarts, RESTART_MAX_MS);
    this.#events.restarted(`the private redis-server ended (${reason}) and is started again`);
    this.#restart = setTimeout(() => this.#spawn(), delay);
    this.#restart.unref();
  }

  #putDataAside(): void {
    const data = join(this.#directory, APPEND_DIRECTORY);
    rmSync(`${data}.bad`, { recursive: true, force: true });
    try {
      renameSync(data, `${data}.bad`);
    } catch {
      // There is none: its data was not why it failed.
    }
  }

  async #endLeftOver(): Promise<void> {
    const pid = this.#leftOver();
    if (pid !== null) {
      signal(pid, "SIGTERM");
      signal(pid, "SIGCONT");
      const end = performance.now() + STOP_GRACE_MS;
      while (this.#leftOver() === pid && performance.now() < end) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      if (this.#leftOver() === pid) signal(pid, "SIGKILL");
    }
    rmSync(join(this.#directory, PID_FILE), { force: true });
    rmSync(join(this.#directory, SOCKET), { force: true });
  }

  /** Pid of a redis-server that works in our directory although we have just begun; else null. */
  #leftOver(): number | null {
    try {
      const pid = Number(readFileSync(join(this.#directory, PID_FILE), "utf8"));
      if (!Number.isSafeInteger(pid) || pid < 2) return null;
      const name = readFileSync(`/proc/${pid}/comm`, "utf8");
      const here = readlinkSync(`/proc/${pid}/cwd`) === realpathSync(this.#directory);
      return here && name.startsWith("redis") ? pid : null;
    } catch {
      return null;
    }
  }
}

/** The directory is its working directory, so every name is short and relative. */
const SERVER_ARGUMENTS = [
  ["--port", "0"],
  ["--unixsocket", SOCKET],
  ["--unixsocketperm", "600"],
  ["--pidfile", PID_FILE],
  ["--logfile", LOG_FILE],
  ["--loglevel", "warning"],
  ["--daemonize", "no"],
  ["--appendonly", "yes"],
  ["--appendfsync", "everysec"],
  ["--appenddirname", APPEND_DIRECTORY],
  ["--save", ""],
  ["--maxmemory-policy", "noeviction"],
  ["--databases", "1"],
].flat();

/**
 * redis-server on PATH or, where only its tools are installed, redis-check-aof: the same program, which goes
 * by the name it is called with.
 */
export function findRedisServer(path: string = process.env["PATH"] ?? "/usr/bin:/bin"): RedisProgram {
  const directories = path.split(delimiter).filter((part) => part !== "");
  for (const name of ["redis-server", "redis-check-aof", "redis-check-rdb"]) {
    for (const directory of directories) {
      const candidate = join(directory, name);
      if (isExecutable(candidate)) return { path: candidate, argv0: "redis-server" };
    }
  }
  throw new LaminaError("REDIS_SERVER_MISSING");
}

/** A program that goes by the name it is called with, under that name. */
function callable(directory: string, path: string, name: string): string {
  const link = join(directory, name);
  rmSync(link, { force: true });
  symlinkSync(path, link);
  return link;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has just ended by itself.
  }
}

/** Keeps the pipe open without keeping this process alive. */
function unrefStream(stream: unknown): void {
  if (
    typeof stream === "object" &&
    stream !== null &&
    "unref" in stream &&
    typeof stream.unref === "function"
  ) {
    stream.unref();
  }
}
