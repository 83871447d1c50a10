/** What faces the clients of one server: its engine, its gateway, and the connection threads it was asked for. */
import type { Logger } from "pino";
import { createGateway, type Gateway } from "../../gateway/index.js";
import { dealPool } from "../../gateway/threads/arenas.js";
import {
  spinMicrosOf,
  startThreads,
  type ThreadedGateway,
  type ThreadInfo,
} from "../../gateway/threads/group.js";
import { createTls } from "../../gateway/tls.js";
import { readTlsCredentials } from "../../gateway/tls-credentials.js";
import type { Engine, EngineStats } from "../../uring/api.js";
import { CipherBudget } from "../../uring/cipher-memory.js";
import { openEngine } from "../../uring/engine.js";
import type { VolumeRegistry } from "../../volume/registry-api.js";
import type { ServeOptions } from "./options.js";

export interface Front {
  readonly gateway: Gateway;
  /** Connection threads; none when the owner serves its clients itself. */
  threads(): ThreadInfo[];
  /** Of all threads together. */
  engineStats(): EngineStats;
  poolStats(): { readonly capacityBytes: number; readonly freeBytes: number };
  /** Keys and certificates anew, for connections to come; false without TLS. Throws TLS_FILES: the old ones stay. */
  reloadTls(): boolean;
}

/** The owner's engine; beside connection threads it has only its part of the pool. */
export async function openOwnerEngine(options: ServeOptions): Promise<Engine> {
  const { threads } = options;
  if (threads === 0) return openEngine(options.engine);
  const { ownerBytes } = dealPool(options.engine.poolBytes, threads);
  const spinMicros = spinMicrosOf(threads);
  const engine = openEngine({ ...options.engine, spinMicros, poolOwnBytes: ownerBytes });
  if (engine.threads !== null) return engine;
  // Without the ring there are no connection threads to keep the rest for.
  await engine.close();
  return openEngine(options.engine);
}

/** `onFailure`: a connection thread failed, and with it the server. */
export async function startFront(
  options: ServeOptions,
  engine: Engine,
  registry: VolumeRegistry,
  log: Logger,
  onFailure: (error: Error) => void,
): Promise<Front> {
  const common = {
    engine,
    registry,
    ...(options.defaultExport === null ? {} : { defaultExport: options.defaultExport }),
    onConnectionLost: (peer: string, volume: string, reason: string) =>
      log.info({ peer, volume }, `connection ended: ${reason}`),
  };
  if (options.threads > 0) {
    if (engine.threads !== null) return threaded(options, common, engine, onFailure);
    log.warn("connection threads need io_uring: one thread serves all connections");
  }
  const tls = options.tls === null ? null : createTls(options.tls, new CipherBudget(engine.pool));
  return {
    gateway: createGateway({ ...common, ...(tls === null ? {} : { tls }) }),
    threads: () => [],
    engineStats: () => engine.stats(),
    poolStats: () => ({ capacityBytes: engine.pool.capacityBytes, freeBytes: engine.pool.freeBytes }),
    reloadTls() {
      if (options.tls !== null) tls?.use(readTlsCredentials(options.tls.directory));
      return tls !== null;
    },
  };
}

async function threaded(
  options: ServeOptions,
  common: Pick<
    Parameters<typeof startThreads>[0],
    "engine" | "registry" | "defaultExport" | "onConnectionLost"
  >,
  engine: Engine,
  onFailure: (error: Error) => void,
): Promise<Front> {
  const { tls } = options;
  const { tcpUserTimeoutMs, poolBytes } = options.engine;
  const gateway: ThreadedGateway = await startThreads({
    ...common,
    shares: dealPool(poolBytes, options.threads).parts.map(({ from, to }) => engine.poolShare(from, to)),
    tcpUserTimeoutMs,
    ...(tls === null ? {} : { tls: { mode: tls.mode, credentials: readTlsCredentials(tls.directory) } }),
    onFailure,
  });
  return {
    gateway,
    threads: () => gateway.threads(),
    engineStats: () => added(engine.stats(), gateway.engineStats()),
    poolStats() {
      const { pool } = engine;
      const { capacityBytes, freeBytes } = gateway.poolStats();
      return { capacityBytes: pool.capacityBytes + capacityBytes, freeBytes: pool.freeBytes + freeBytes };
    },
    reloadTls() {
      if (tls !== null) gateway.useCredentials(readTlsCredentials(tls.directory));
      return tls !== null;
    },
  };
}

function added(a: EngineStats, b: EngineStats): EngineStats {
  return {
    enters: a.enters + b.enters,
    submissions: a.submissions + b.submissions,
    completions: a.completions + b.completions,
    wakeups: a.wakeups + b.wakeups,
    bytesReceived: a.bytesReceived + b.bytesReceived,
    bytesSent: a.bytesSent + b.bytesSent,
  };
}
