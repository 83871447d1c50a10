/** The catalogue: the mirror in Redis, the private redis-server, the event log. */
export type { MirrorSource, MirrorState, MirrorStatus } from "./api.js";
export { checkStore, connectRedis, disposeRedis, type RedisClient } from "./connection.js";
export { compareEventIds, EVENT_ID, type EventKind, EventLog, type LaminaEvent } from "./events.js";
export { Mirror, mirrorOff } from "./mirror.js";
export { findRedisServer, PrivateRedis } from "./private-redis.js";
export { SOCKET_PATH_BYTES_MAX, type SocketPath, socketPath } from "./socket-path.js";
export { describeTarget, parseRedisUrl, type RedisTarget } from "./url.js";
