/**
 * Connections to Redis. The client never repeats a command and never queues one while it is not connected:
 * what a failure left undone is found by comparing stamps, so a failed client is thrown away and the mirror
 * makes a new one. Every wait has a bound.
 */
import { Cluster, type ClusterOptions, Redis, type RedisOptions } from "ioredis";
import { LaminaError } from "../core/errors.js";
import { IDENTITY_KEY } from "./keys.js";
import { checkRequirements, parseInfo } from "./requirements.js";
import { SCRIPTS } from "./scripts.js";
import { withDeadline } from "./timing.js";
import { describeTarget, type RedisTarget } from "./url.js";

/** A command that has no answer by then has failed, and the connection with it. */
export const COMMAND_TIMEOUT_MS = 2000;
export const CONNECT_TIMEOUT_MS = 2000;
/** Everything that one step of the mirror waits for together. */
export const STEP_TIMEOUT_MS = 5000;

/** Maps arrive as objects and doubles as strings, whatever the protocol version. */
type Options = RedisOptions & { replyMapping: "legacy" };
type ClusterOptionsOfLegacy = ClusterOptions & {
  redisOptions: ClusterOptions["redisOptions"] & { replyMapping: "legacy" };
};
type ScriptCommand = (...keysAndArguments: string[]) => Promise<unknown>;
export type RedisClient = (Redis | Cluster) & { readonly [Name in keyof typeof SCRIPTS]: ScriptCommand };

/** Connected and known to satisfy the requirements. Throws LaminaError; REDIS_UNREACHABLE is worth retrying. */
export async function connectRedis(target: RedisTarget): Promise<RedisClient> {
  const client = makeClient(target);
  // Failures arrive through the commands; an "error" event without a listener would end the process.
  client.on("error", () => {});
  const redis = describeTarget(target);
  try {
    await withDeadline(client.connect(), STEP_TIMEOUT_MS);
    const masters = client instanceof Cluster ? client.nodes("master") : [client];
    for (const master of masters) {
      checkRequirements(parseInfo(await withDeadline(master.info(), STEP_TIMEOUT_MS)), redis);
    }
    return client as RedisClient;
  } catch (error) {
    disposeRedis(client);
    if (error instanceof LaminaError) throw error;
    throw new LaminaError("REDIS_UNREACHABLE", { redis, what: reasonOf(error) }, error);
  }
}

/** Ends a client at once; its commands in flight are rejected. */
export function disposeRedis(client: Redis | Cluster): void {
  client.disconnect();
}

function makeClient(target: RedisTarget): Redis | Cluster {
  const common: Options = {
    replyMapping: "legacy",
    lazyConnect: true,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    commandTimeout: COMMAND_TIMEOUT_MS,
    connectTimeout: CONNECT_TIMEOUT_MS,
    retryStrategy: () => null,
    disableClientInfo: true,
    connectionName: "lamina",
    ...(target.username === null ? {} : { username: target.username }),
    ...(target.password === null ? {} : { password: target.password }),
  };
  const single: Options = { ...common, enableAutoPipelining: true, scripts: SCRIPTS };
  switch (target.kind) {
    case "tcp":
      return new Redis({
        ...single,
        host: target.at.host,
        port: target.at.port,
        db: target.db,
        ...(target.tls ? { tls: {} } : {}),
      });
    case "unix":
      return new Redis({ ...single, path: target.path, db: target.db });
    case "sentinel":
      return new Redis({
        ...single,
        sentinels: target.hosts.map((at) => ({ host: at.host, port: at.port })),
        name: target.master,
        db: target.db,
        sentinelRetryStrategy: () => null,
        sentinelCommandTimeout: COMMAND_TIMEOUT_MS,
        // A master that was demoted while we are connected answers READONLY: then ask the sentinels again.
        failoverDetector: true,
      });
    case "cluster":
      return new Cluster(
        target.hosts.map((at) => ({ host: at.host, port: at.port })),
        clusterOptions(target.tls, common),
      );
  }
}

function clusterOptions(tls: boolean, common: Options): ClusterOptionsOfLegacy {
  const { retryStrategy: _, enableOfflineQueue: __, ...redisOptions } = common;
  return {
    lazyConnect: true,
    enableOfflineQueue: false,
    enableAutoPipelining: true,
    clusterRetryStrategy: () => null,
    slotsRefreshTimeout: COMMAND_TIMEOUT_MS,
    scripts: SCRIPTS,
    redisOptions: { ...redisOptions, ...(tls ? { tls: {} } : {}) },
  };
}

/** The innermost cause, in a few words. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const nested = "lastNodeError" in error ? error.lastNodeError : error.cause;
  if (nested instanceof Error && nested.message !== "") return reasonOf(nested);
  if (error.message !== "") return error.message;
  return "code" in error ? String(error.code) : error.name;
}

/**
 * Connects, checks the requirements and whose mirror is there, and disconnects; writes nothing. `storeId`
 * null: any mirror is another store's. Throws REDIS_UNREACHABLE, REDIS_FOREIGN, REDIS_TOO_OLD, REDIS_EVICTS or
 * REDIS_READ_ONLY.
 */
export async function checkStore(target: RedisTarget, storeId: string | null): Promise<void> {
  const client = await connectRedis(target);
  const redis = describeTarget(target);
  try {
    const found = await withDeadline(client.hget(IDENTITY_KEY, "store"), STEP_TIMEOUT_MS);
    if (found === null || found === storeId) return;
    throw new LaminaError("REDIS_FOREIGN", { redis, found, own: storeId ?? "new" });
  } catch (error) {
    if (error instanceof LaminaError) throw error;
    throw new LaminaError("REDIS_UNREACHABLE", { redis, what: reasonOf(error) }, error);
  } finally {
    disposeRedis(client);
  }
}
