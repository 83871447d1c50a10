/** Real redis-servers for tests: on a unix socket in a directory of the test's own. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { findRedisServer } from "../../../../lib/catalog/index.js";

export class TestRedis {
  readonly directory: string;
  readonly socket: string;
  readonly port: number;
  #process: ChildProcess | null = null;
  readonly #extra: readonly string[];

  /** `port` 0: only the unix socket. The directory is short, as a socket's path has to be. */
  constructor(extra: readonly string[] = [], port: number = 0) {
    this.directory = mkdtempSync(join(tmpdir(), "lamina-redis-"));
    this.socket = join(this.directory, "r.sock");
    this.port = port;
    this.#extra = extra;
  }

  get url(): string {
    return `unix://${this.socket}`;
  }

  async start(): Promise<void> {
    rmSync(this.socket, { force: true });
    const { path, argv0 } = findRedisServer();
    const common = [
      "--unixsocket",
      "r.sock",
      "--port",
      String(this.port),
      "--save",
      "",
      "--appendonly",
      "yes",
    ];
    const quiet = ["--logfile", "log", "--bind", "127.0.0.1"];
    this.#process = spawn(path, [...common, ...quiet, ...this.#extra], {
      argv0,
      cwd: this.directory,
      stdio: "ignore",
    });
    await this.waitReady();
  }

  async waitReady(): Promise<void> {
    for (let tries = 0; tries < 200; tries++) {
      const ping = spawnSync("redis-cli", ["-s", this.socket, "ping"], { encoding: "utf8" });
      if (ping.stdout.startsWith("PONG")) return;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error(`the redis-server of the test did not start in ${this.directory}`);
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name);
  }

  /** Ends it without saving anything. */
  async kill(): Promise<void> {
    const running = this.#process;
    this.#process = null;
    if (running === null || running.exitCode !== null || running.signalCode !== null) return;
    const gone = new Promise((resolve) => running.once("exit", resolve));
    running.kill("SIGKILL");
    await gone;
  }

  async destroy(): Promise<void> {
    await this.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }

  client(): Redis {
    return new Redis({ path: this.socket, maxRetriesPerRequest: 1 });
  }
}

/** Every key with its value, in one comparable shape; without stamps, events and their cursors, and sessions. */
export async function dump(client: Redis): Promise<Record<string, unknown>> {
  const all: Record<string, unknown> = {};
  for (const key of (await client.keys("*")).sort()) {
    const type = await client.type(key);
    if (key.endsWith(":stamp") || key.endsWith(":events") || key.endsWith(":cursors")) continue;
    if (type === "hash") all[key] = sorted(await client.hgetall(key));
    else if (type === "set") all[key] = (await client.smembers(key)).sort();
    else all[key] = type;
    if (key.endsWith(":identity")) all[key] = (all[key] as Record<string, string>)["store"];
  }
  return all;
}

function sorted(hash: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(hash).sort(([a], [b]) => (a < b ? -1 : 1)));
}
