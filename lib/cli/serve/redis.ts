/** Redis of one server: looked at before anything is written, then mirrored into. */
import { join } from "node:path";
import type { Logger } from "pino";
import {
  checkStore,
  type EventLog,
  findRedisServer,
  Mirror,
  type MirrorSource,
  PrivateRedis,
  type RedisTarget,
} from "../../catalog/index.js";
import { LaminaError } from "../../core/errors.js";
import { REDIS_DIRECTORY } from "./data-directory.js";
import type { ServeOptions } from "./options.js";

export interface RedisSide {
  readonly mirror: Mirror;
  close(): Promise<void>;
}

/** Throws REDIS_SERVER_MISSING when the private one is wanted and cannot be had. */
export function checkRedisProgram(redis: ServeOptions["redis"]): void {
  if (redis === "private") findRedisServer();
}

/**
 * Refuses a Redis that must not be written to, as an operator's mistake, while nothing has been changed. One
 * that does not answer is no reason not to serve. `storeId` null: the store is to be made.
 */
export async function checkRedis(
  redis: ServeOptions["redis"],
  storeId: string | null,
  log: Logger,
): Promise<void> {
  if (redis === "private" || redis === "none") return;
  try {
    await checkStore(redis, storeId);
  } catch (error) {
    if (!(error instanceof LaminaError) || error.code !== "REDIS_UNREACHABLE") throw error;
    log.warn(`${error.message}; volumes are served without it, and it is mirrored into once it answers`);
  }
}

/** Starts the mirror, and the private redis-server if that is what was asked for. Null for `--redis none`. */
export async function startRedis(
  options: ServeOptions,
  source: MirrorSource,
  events: EventLog,
  log: Logger,
): Promise<RedisSide | null> {
  if (options.redis === "none") return null;
  let server: PrivateRedis | null = null;
  let target: RedisTarget;
  if (options.redis === "private") {
    server = new PrivateRedis(join(options.data, REDIS_DIRECTORY), {
      restarted(reason) {
        log.warn(reason);
        events.record("redis-restarted", null, reason);
      },
    });
    await server.start();
    target = { kind: "unix", path: server.socketPath, db: 0, username: null, password: null };
  } else {
    target = options.redis;
  }
  const mirror = new Mirror({ target, source, events, wall: () => Date.now() });
  mirror.start();
  return {
    mirror,
    async close() {
      await mirror.close();
      await server?.stop();
    },
  };
}
