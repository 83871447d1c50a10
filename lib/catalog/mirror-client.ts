/** What the mirror asks of Redis: the commands, and nothing else of the client. */
import type { SCRIPTS } from "./scripts.js";

type ScriptCommand = (...keysAndArguments: string[]) => Promise<unknown>;

interface Commands {
  get(key: string): Promise<string | null>;
  set(key: string, value: string): Promise<unknown>;
  hget(key: string, field: string): Promise<string | null>;
  hset(key: string, field: string, value: string): Promise<unknown>;
  hdel(key: string, field: string): Promise<unknown>;
  hgetall(key: string): Promise<Record<string, string>>;
  hmget(key: string, ...fields: string[]): Promise<(string | null)[]>;
  smembers(key: string): Promise<string[]>;
  unlink(...keys: string[]): Promise<unknown>;
  xrevrange(
    key: string,
    end: string,
    start: string,
    countToken: "COUNT",
    count: number,
  ): Promise<[id: string, fields: string[]][]>;
  /** Ends the client at once; its commands in flight are rejected. */
  disconnect(): void;
}

export type MirrorClient = Commands & { readonly [Name in keyof typeof SCRIPTS]: ScriptCommand };
