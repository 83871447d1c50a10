/**
 * The gateway: NBD listeners of an engine over the volumes of a registry. This file joins the connection code
 * (which knows neither sockets nor promises) to both.
 */
import type { TlsMode } from "nbd-protocol-ts";
import { LaminaError } from "../core/errors.js";
import type { Engine, ListenAddress, Listener } from "../uring/api.js";
import type { OpenVolume, VolumeRegistry } from "../volume/registry-api.js";
import { accessOf, listedAccessOf, needsTls } from "./access.js";
import type { Connection, Phase, TlsUpgrade, VolumeSource } from "./connection.js";
import { GatewayServer, type OtherConnections } from "./server.js";

/** The part of a registry that a gateway asks. */
export type GatewayRegistry = Pick<VolumeRegistry, "list" | "byName" | "open" | "onEvent">;

export interface GatewayOptions {
  readonly engine: Pick<Engine, "pool" | "clock" | "atTickEnd" | "listen">;
  readonly registry: GatewayRegistry;
  /** Volume of the empty export name; without it the only volume. */
  readonly defaultExport?: string;
  readonly tls?: TlsUpgrade;
  /** A volume without an access list is not there. By default it is open to everyone who can connect. */
  readonly accessListsRequired?: boolean;
  readonly connectionsMax?: number;
  readonly handshakesMax?: number;
  /** On a connection thread: the connections of the other threads, and where to count. */
  readonly elsewhere?: OtherConnections;
  readonly counters?: Float64Array;
  /** A connection ended other than in order: who, of which volume (or ""), and one sentence why. */
  readonly onConnectionLost?: (peer: string, volume: string, reason: string) => void;
}

/** One connection, for people. */
export interface SessionInfo {
  readonly number: number;
  /** "HOST:PORT", or "unix". */
  readonly peer: string;
  readonly phase: Phase;
  readonly volume: string;
  readonly tls: boolean;
  /** Name of its certificate or of its key, or null. */
  readonly identity: string | null;
  readonly requestsInFlight: number;
  readonly poolBytesHeld: number;
  /** Wall clock. */
  readonly startedAt: number;
}

/**
 * Numbers for metrics. Rows of the arrays are NBD command numbers, the last row is everything else; they are
 * the live arrays, not copies.
 */
export interface GatewayStats {
  readonly connections: number;
  readonly handshakes: number;
  readonly requestsInFlight: number;
  readonly poolBytesHeld: number;
  readonly poolBytesLimit: number;
  readonly waitingForMemory: number;
  readonly requests: Float64Array;
  readonly errors: Float64Array;
  readonly bytes: Float64Array;
  /** Row by row: requests of less than 2^i microseconds that were not less than 2^(i−1). */
  readonly latency: Float64Array;
  /** Microseconds. */
  readonly latencySum: Float64Array;
  readonly counters: Readonly<Record<string, number>>;
}

export interface Gateway {
  /** Serves on one more address. Resolves with the listener, which knows the real port. */
  listen(address: ListenAddress): Promise<Listener>;
  readonly listeners: readonly Listener[];
  /** Of all threads together. */
  stats(): GatewayStats;
  /**
   * Closes the listeners, or with "hand-over" leaves their sockets to whoever has them too; answers the requests
   * that have arrived and no others. Resolves when no connection uses a volume any more: the registry may be
   * closed, while clients still take their last replies. After SHUTDOWN_GRACE_MS all connections are cut, and it
   * resolves although requests that wait may still be in the volume. The first call counts.
   */
  drain(listeners: "close" | "hand-over"): Promise<void>;
  /** Drains, and resolves when all connections are closed. */
  close(): Promise<void>;
}

/** The connections of one thread. */
export interface LocalGateway extends Gateway {
  readonly server: GatewayServer;
  sessions(): SessionInfo[];
}

export function createGateway(options: GatewayOptions): LocalGateway {
  return new EngineGateway(options);
}

class EngineGateway implements LocalGateway {
  readonly #options: GatewayOptions;
  readonly server: GatewayServer;
  readonly #listeners: Listener[] = [];
  #draining: Promise<void> | null = null;
  #closed: Promise<void> | null = null;

  constructor(options: GatewayOptions) {
    const { engine, registry, defaultExport, connectionsMax, handshakesMax, elsewhere, counters } = options;
    const { accessListsRequired } = options;
    this.#options = options;
    this.server = new GatewayServer(
      { pool: engine.pool, clock: engine.clock, ticker: engine },
      {
        source: sourceOf(registry),
        policy: {
          accessOf: accessListsRequired === true ? listedAccessOf : accessOf,
          needsTls,
          ...(defaultExport === undefined ? {} : { defaultExport }),
        },
        tls: options.tls ?? null,
        onEnd: (connection, reason) => this.#ended(connection, reason),
        ...(connectionsMax === undefined ? {} : { connectionsMax }),
        ...(handshakesMax === undefined ? {} : { handshakesMax }),
        ...(elsewhere === undefined ? {} : { elsewhere }),
        ...(counters === undefined ? {} : { counters }),
      },
    );
    registry.onEvent((event) => {
      if (event.kind === "changed") this.server.recordChanged(event.record);
      else if (event.kind === "lost") this.server.volumeLost(event.record.id, event.reason);
    });
  }

  get listeners(): readonly Listener[] {
    return this.#listeners;
  }

  async listen(address: ListenAddress): Promise<Listener> {
    const listener = await this.#options.engine.listen(address, (stream) => this.server.accept(stream));
    this.#listeners.push(listener);
    return listener;
  }

  sessions(): SessionInfo[] {
    return [...this.server.connections].map(describe);
  }

  stats(): GatewayStats {
    const { counters } = this.server;
    const { requests, errors, bytes, latency, latencySum } = counters;
    const plain: Record<string, number> = {};
    for (const [name, value] of Object.entries(counters)) if (typeof value === "number") plain[name] = value;
    return { ...this.server.stats(), requests, errors, bytes, latency, latencySum, counters: plain };
  }

  drain(listeners: "close" | "hand-over"): Promise<void> {
    this.#draining ??= this.#drain(listeners === "hand-over");
    return this.#draining;
  }

  async close(): Promise<void> {
    await this.drain("close");
    await this.#closed;
  }

  async #drain(handOver: boolean): Promise<void> {
    await Promise.all(this.#listeners.map((listener) => (handOver ? listener.leave() : listener.close())));
    await new Promise<void>((drained) => {
      this.#closed = new Promise<void>((closed) => this.server.close(closed, drained));
    });
  }

  #ended(connection: Connection, reason: string): void {
    if (reason === "") return;
    this.#options.onConnectionLost?.(peerOf(connection), connection.volumeName, reason);
  }
}

function describe(connection: Connection): SessionInfo {
  const { client } = connection;
  return {
    number: connection.number,
    peer: peerOf(connection),
    phase: connection.phase,
    volume: connection.volumeName,
    tls: client.tls,
    identity: client.certificate ?? client.psk,
    requestsInFlight: connection.inFlight,
    poolBytesHeld: connection.heldBytes,
    startedAt: connection.startedAt,
  };
}

function peerOf(connection: Connection): string {
  const { family, host, port } = connection.client.peer;
  if (family === "unix") return "unix";
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** The registry's promises as callbacks. */
function sourceOf(registry: GatewayRegistry): VolumeSource {
  return {
    list: () => registry.list(),
    byName: (name) => registry.byName(name),
    open(name: string, done: (opened: OpenVolume | null, reason: string) => void): void {
      registry.open(name).then(
        (opened) => done(opened, ""),
        (error: unknown) => done(null, reasonOf(error)),
      );
    },
  };
}

function reasonOf(error: unknown): string {
  if (error instanceof LaminaError) return error.message;
  // A mistake of the program: it must not pass as a missing volume.
  throw error;
}

export type { TlsMode, TlsUpgrade };
export { accessOf };
