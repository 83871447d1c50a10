/** A redis-server of the test's own, on a unix socket, and what is asked of any Redis through redis-cli. */
import { cpSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { check, Program } from "./process.js";

export class OwnRedis {
  readonly folder: string;
  readonly socket: string;
  #program: Program | null = null;

  constructor(folder: string) {
    this.folder = folder;
    this.socket = join(folder, "redis.sock");
    mkdirSync(folder, { recursive: true });
  }

  get url(): string {
    return `unix://${this.socket}`;
  }

  async start(): Promise<void> {
    const args = ["--port", "0", "--unixsocket", this.socket, "--dir", this.folder, "--appendonly", "yes"];
    const script = 'exec -a redis-server "$(command -v redis-server || command -v redis-check-rdb)" "$@"';
    const policy = ["--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no"];
    this.#program = new Program("bash", ["-c", script, "redis", ...args, ...policy]);
    await this.#program.printed(/Ready to accept connections|ready to accept connections/);
  }

  async kill(): Promise<void> {
    await this.#program?.end("SIGKILL");
  }

  /** Stands still, connections and all. */
  pause(): void {
    this.#program?.child.kill("SIGSTOP");
  }

  goOn(): void {
    this.#program?.child.kill("SIGCONT");
  }

  /** Copies its files while it is stopped or idle. */
  saveTo(folder: string): void {
    rmSync(folder, { recursive: true, force: true });
    cpSync(join(this.folder, "appendonlydir"), folder, { recursive: true });
  }

  /** Puts older files in place of its own; it must be stopped. */
  restoreFrom(folder: string): void {
    rmSync(join(this.folder, "appendonlydir"), { recursive: true, force: true });
    cpSync(folder, join(this.folder, "appendonlydir"), { recursive: true });
  }
}

export async function redisCli(socket: string, ...command: string[]): Promise<string> {
  return (await check("redis-cli", ["-s", socket, ...command])).trimEnd();
}

/** Everything that a Redis holds, in an order of its own; streams (events) left out. */
export async function dump(socket: string): Promise<string[]> {
  const keys = (await redisCli(socket, "KEYS", "*")).split("\n").filter((key) => key !== "");
  const lines: string[] = [];
  for (const key of keys.sort()) {
    const type = await redisCli(socket, "TYPE", key);
    if (type === "stream") continue;
    lines.push(`${key} ${type} ${await content(socket, type, key)}`);
  }
  return lines;
}

async function content(socket: string, type: string, key: string): Promise<string> {
  const pairs = async (...command: string[]): Promise<string> => {
    const flat = (await redisCli(socket, ...command)).split("\n");
    const entries: string[] = [];
    for (let i = 0; i < flat.length; i += 2) entries.push(`${flat[i]}=${flat[i + 1]}`);
    return entries.sort().join(" ");
  };
  switch (type) {
    case "string":
      return redisCli(socket, "GET", key);
    case "hash":
      return pairs("HGETALL", key);
    case "zset":
      return pairs("ZRANGE", key, "0", "-1", "WITHSCORES");
    case "set":
      return (await redisCli(socket, "SMEMBERS", key)).split("\n").sort().join(" ");
    case "list":
      return redisCli(socket, "LRANGE", key, "0", "-1");
    default:
      throw new Error(`a key of type ${type}`);
  }
}

/** Pids of the redis-server processes whose working directory lies in `folder`. */
export function redisPidsBelow(folder: string): number[] {
  const pids: number[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const command = readFileSync(`/proc/${name}/cmdline`, "utf8");
      if (/redis-(server|check-rdb)/.test(command) && readlinkSync(`/proc/${name}/cwd`).startsWith(folder)) {
        pids.push(Number(name));
      }
    } catch {
      // It has just ended.
    }
  }
  return pids;
}
