/**
 * The gateway over connection threads, on the thread that owns the volumes: listens, deals connections out, and
 * carries out for the threads what only the owner can.
 *
 * Invariants
 *  1. The owner holds no connection: each is one thread's from its descriptor to its end.
 *  2. A new connection goes to the thread with the fewest, so threads differ by one where none ends.
 *  3. A connection comes to a volume only after every other thread has ended its own older ones whose peers have
 *     gone, as with one thread.
 *  4. A thread that fails ends the process: its connections' writes may be under way, and nobody would answer
 *     them. What was acknowledged is kept, as after any kill.
 */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { TlsMode } from "nbd-protocol-ts";
import { assert } from "../../core/assert.js";
import { LaminaError } from "../../core/errors.js";
import { CONNECTIONS_MAX, HANDSHAKES_MAX } from "../../core/limits.js";
import type {
  Engine,
  EngineOptions,
  ListenAddress,
  Listener,
  PoolShare,
  ThreadLinks,
} from "../../uring/api.js";
import type { OpenVolume, VolumeRegistry } from "../../volume/registry-api.js";
import { Counters, PLAIN_COUNTERS } from "../counters.js";
import type { Gateway, GatewayStats } from "../index.js";
import { SHUTDOWN_GRACE_MS } from "../limits.js";
import type { TlsCredentials } from "../tls-credentials.js";
import { Channel } from "./channel.js";
import type { Refusal, ThreadOrder, ToOwner, ToThread } from "./messages.js";
import { engineStatsOf, NUMBER, serverStatsOf } from "./numbers.js";
import { VolumePort } from "./volume-port.js";

/** Of each thread, the owner included: spinning takes the CPU from another one unless there is one for each. */
export function spinMicrosOf(threads: number): number {
  return availableParallelism() > threads + 1 ? SPIN_MICROS : 0;
}

/** How long a thread may take beyond the bound of its shutdown, before it is ended. */
const EXIT_GRACE_MS = 5_000;
/** Longest spin of a thread before it sleeps, where there is a CPU for each. */
const SPIN_MICROS = 64;

export interface ThreadedGatewayOptions {
  readonly engine: Engine;
  readonly registry: VolumeRegistry;
  /** One per thread. */
  readonly shares: readonly PoolShare[];
  readonly defaultExport?: string;
  readonly tls?: { readonly mode: TlsMode; readonly credentials: TlsCredentials };
  readonly tcpUserTimeoutMs?: number | undefined;
  readonly onConnectionLost?: (peer: string, volume: string, reason: string) => void;
  /** A thread failed. The process is to end; nothing is served on it any more. */
  readonly onFailure: (error: Error) => void;
}

/** One connection thread, for people. */
export interface ThreadInfo {
  readonly connections: number;
  /** Requests answered. */
  readonly requests: number;
}

export interface ThreadedGateway extends Gateway {
  threads(): ThreadInfo[];
  /** Engines and pools of the threads, added up. */
  engineStats(): ReturnType<Engine["stats"]>;
  poolStats(): { readonly capacityBytes: number; readonly freeBytes: number };
  /** What connections to come are shown and asked for. */
  useCredentials(credentials: TlsCredentials): void;
}

/** Resolves when every thread is ready to take connections. */
export async function startThreads(options: ThreadedGatewayOptions): Promise<ThreadedGateway> {
  const group = new ThreadGroup(options);
  try {
    await group.ready();
  } catch (error) {
    await group.close();
    throw error;
  }
  return group;
}

class ThreadGroup implements ThreadedGateway {
  readonly #options: ThreadedGatewayOptions;
  readonly #links: ThreadLinks;
  readonly #threads: ConnectionThread[];
  readonly #listeners: Listener[] = [];
  #refused = 0;
  #draining: Promise<void> | null = null;

  constructor(options: ThreadedGatewayOptions) {
    const { engine, registry, shares } = options;
    assert(engine.threads !== null, "connection threads need the ring");
    this.#options = options;
    this.#links = engine.threads;
    this.#threads = shares.map(
      (share, index) => new ConnectionThread(index, this.#order(share), options, this),
    );
    registry.onEvent((event) => {
      for (const thread of this.#threads) thread.heard(event);
    });
  }

  #order(poolShare: PoolShare): Omit<ThreadOrder, "channel"> {
    const { registry, defaultExport, tls, tcpUserTimeoutMs, shares } = this.#options;
    const engine: EngineOptions = {
      kind: "ring",
      poolBytes: poolShare.poolBytes,
      poolShare,
      spinMicros: spinMicrosOf(shares.length),
      ...(tcpUserTimeoutMs === undefined ? {} : { tcpUserTimeoutMs }),
    };
    return {
      ownerBell: this.#links.bell,
      engine,
      records: registry.list(),
      defaultExport,
      tls: tls ?? null,
      connectionsMax: CONNECTIONS_MAX,
      handshakesMax: Math.ceil(HANDSHAKES_MAX / shares.length),
    };
  }

  async ready(): Promise<void> {
    await Promise.all(this.#threads.map(async (thread) => thread.ready));
  }

  get listeners(): readonly Listener[] {
    return this.#listeners;
  }

  async listen(address: ListenAddress): Promise<Listener> {
    const listener = await this.#links.listen(address, (fd) => this.#deal(fd));
    this.#listeners.push(listener);
    return listener;
  }

  #deal(fd: number): void {
    let fewest = this.#threads[0]!;
    let all = 0;
    for (const thread of this.#threads) {
      all += thread.connections;
      if (thread.connections < fewest.connections) fewest = thread;
    }
    if (all < CONNECTIONS_MAX) {
      fewest.accept(fd);
    } else {
      this.#refused++;
      this.#links.discard(fd);
    }
  }

  /** `done` when no other thread than `asker` has a connection to the volume that could act late. */
  retireElsewhere(asker: ConnectionThread, volume: number, done: () => void): void {
    let waitsFor = this.#threads.length - 1;
    if (waitsFor === 0) done();
    for (const thread of this.#threads) {
      if (thread === asker) continue;
      thread.retire(volume, () => {
        waitsFor--;
        if (waitsFor === 0) done();
      });
    }
  }

  /** A thread has nothing left but handshakes, or has ended. */
  threadIsQuiet(): void {
    if (!this.#threads.every(({ quiet }) => quiet)) return;
    for (const thread of this.#threads) thread.finish();
  }

  stats(): GatewayStats {
    const sum = new Counters();
    const numbers = new Float64Array(NUMBER.plain);
    const counters: Record<string, number> = {};
    for (const name of PLAIN_COUNTERS) counters[name] = name === "connectionsRefused" ? this.#refused : 0;
    for (const { channel } of this.#threads) {
      sum.add(channel.counters);
      for (let i = 0; i < numbers.length; i++) numbers[i]! += channel.numbers[i]!;
      for (const [i, name] of PLAIN_COUNTERS.entries()) counters[name]! += channel.numbers[NUMBER.plain + i]!;
    }
    const { requests, errors, bytes, latency, latencySum } = sum;
    return { ...serverStatsOf(numbers), requests, errors, bytes, latency, latencySum, counters };
  }

  threads(): ThreadInfo[] {
    return this.#threads.map(({ channel }) => ({
      connections: channel.numbers[NUMBER.connections]!,
      requests: new Counters(channel.counters).requests.reduce((sum, count) => sum + count, 0),
    }));
  }

  engineStats(): ReturnType<Engine["stats"]> {
    const numbers = new Float64Array(NUMBER.plain);
    for (const { channel } of this.#threads) {
      for (let i = NUMBER.engine; i < NUMBER.plain; i++) numbers[i]! += channel.numbers[i]!;
    }
    return engineStatsOf(numbers);
  }

  poolStats(): { capacityBytes: number; freeBytes: number } {
    let freeBytes = 0;
    let capacityBytes = 0;
    for (const { from, to } of this.#options.shares) capacityBytes += to - from;
    for (const { channel } of this.#threads) freeBytes += channel.numbers[NUMBER.poolFreeBytes]!;
    return { capacityBytes, freeBytes };
  }

  useCredentials(credentials: TlsCredentials): void {
    for (const thread of this.#threads) thread.tell({ kind: "credentials", credentials });
  }

  drain(listeners: "close" | "hand-over"): Promise<void> {
    this.#draining ??= this.#drain(listeners === "hand-over");
    return this.#draining;
  }

  async close(): Promise<void> {
    await this.drain("close");
    await Promise.all(this.#threads.map(async (thread) => thread.gone));
  }

  async #drain(handOver: boolean): Promise<void> {
    await Promise.all(this.#listeners.map((listener) => (handOver ? listener.leave() : listener.close())));
    await Promise.all(this.#threads.map(async (thread) => thread.drain()));
  }
}

/** One worker, as the owner knows it. */
class ConnectionThread {
  readonly channel = Channel.create();
  readonly ready: Promise<void>;
  /** It has ended. */
  readonly gone: Promise<void>;
  readonly #index: number;
  readonly #options: ThreadedGatewayOptions;
  readonly #group: ThreadGroup;
  readonly #worker: Worker;
  readonly #port: VolumePort;
  /** While closing: it has no connection left but in the handshake, or has ended. */
  quiet = false;
  #bell = -1;
  #onReady: () => void = () => {};
  #onFailed: (error: Error) => void;
  #handed = 0;
  readonly #retiring = new Map<number, () => void>();
  #ticket = 0;
  #closing = false;
  #gone = false;
  #onGone: () => void = () => {};
  #onDrained: () => void = () => {};

  constructor(
    index: number,
    order: Omit<ThreadOrder, "channel">,
    options: ThreadedGatewayOptions,
    group: ThreadGroup,
  ) {
    this.#index = index;
    this.#options = options;
    this.#group = group;
    const links = options.engine.threads!;
    this.#port = new VolumePort(this.channel, options.engine, () => links.ring(this.#bell));
    links.addMailbox(this.#port);
    this.#onFailed = options.onFailure;
    this.gone = new Promise((resolve) => {
      this.#onGone = resolve;
    });
    this.ready = new Promise((resolve, reject) => {
      this.#onReady = resolve;
      this.#onFailed = reject;
    });
    const workerData: ThreadOrder = { ...order, channel: this.channel.memory };
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), {
      workerData,
      name: `lamina-connections-${index}`,
    });
    this.#worker.on("message", (message: ToOwner) => this.#heard(message));
    this.#worker.on("error", (error) => this.#failed(error));
    this.#worker.on("exit", (code) => this.#exited(code));
  }

  /** Handed over and not over. */
  get connections(): number {
    return this.#handed - this.channel.numbers[NUMBER.connectionsOver]!;
  }

  tell(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  accept(fd: number): void {
    this.#handed++;
    this.tell({ kind: "accept", fd });
  }

  heard(event: Parameters<Parameters<VolumeRegistry["onEvent"]>[0]>[0]): void {
    if (event.kind === "changed") this.#port.volumeChanged(event.record.id);
    if (!this.#gone) this.tell({ kind: "event", event });
  }

  retire(volume: number, done: () => void): void {
    if (this.#gone) {
      done();
      return;
    }
    const ticket = this.#ticket++;
    this.#retiring.set(ticket, done);
    this.tell({ kind: "retire", ticket, volume });
  }

  /** Those in the handshake need not be told any more that the server ends. */
  finish(): void {
    if (!this.#gone) this.tell({ kind: "all-quiet" });
  }

  /** Begins its end; resolves when its connections use no volume any more. */
  async drain(): Promise<void> {
    if (this.#gone) return;
    this.#closing = true;
    const timer = setTimeout(() => void this.#worker.terminate(), SHUTDOWN_GRACE_MS + EXIT_GRACE_MS);
    void this.gone.then(() => clearTimeout(timer));
    const drained = new Promise<void>((resolve) => {
      this.#onDrained = resolve;
    });
    this.tell({ kind: "close" });
    await Promise.race([drained, this.gone]);
  }

  #heard(message: ToOwner): void {
    switch (message.kind) {
      case "ready":
        this.#bell = message.bell;
        this.#onFailed = this.#options.onFailure;
        this.#onReady();
        break;
      case "open":
        void this.#open(message.ticket, message.name);
        break;
      case "release":
        this.#port.close(message.handle);
        break;
      case "admit":
        this.#group.retireElsewhere(this, message.volume, () =>
          this.tell({ kind: "admitted", ticket: message.ticket }),
        );
        break;
      case "retired":
        this.#retired(message.ticket);
        break;
      case "drained":
        this.#onDrained();
        break;
      case "quiet":
        this.quiet = true;
        this.#group.threadIsQuiet();
        break;
      case "lost":
        this.#options.onConnectionLost?.(message.peer, message.volume, message.reason);
        break;
    }
  }

  async #open(ticket: number, name: string): Promise<void> {
    let opened: OpenVolume;
    try {
      opened = await this.#options.registry.open(name);
    } catch (error) {
      // A mistake of the program: it must not pass as a missing volume.
      if (!(error instanceof LaminaError)) throw error;
      const refusal: Refusal = { code: error.code, params: error.params };
      this.tell({ kind: "refused", ticket, refusal });
      return;
    }
    const { record, volume } = opened;
    const handle = this.#port.open(opened);
    this.tell({ kind: "opened", ticket, handle, preferredBytes: volume.preferredBytes, record });
  }

  #retired(ticket: number): void {
    const done = this.#retiring.get(ticket);
    this.#retiring.delete(ticket);
    done?.();
  }

  #failed(error: unknown): void {
    const what = error instanceof Error ? error.message : String(error);
    this.#onFailed(new LaminaError("THREAD_FAILED", { thread: this.#index, what }, error));
  }

  #exited(code: number): void {
    this.#gone = true;
    this.quiet = true;
    this.#group.threadIsQuiet();
    if (!this.#closing) this.#failed(new Error(`it ended with code ${code}`));
    for (const done of this.#retiring.values()) done();
    this.#retiring.clear();
    this.#onGone();
  }
}
