/**
 * All connections of one thread: limits, the hand-over between an old and a new connection of a volume,
 * shutdown. Streams are given to it (`accept`); it opens no socket itself.
 *
 * Invariants
 *  1. At most `connectionsMax` connections; one more is closed at once, before anything is allocated for it.
 *     At most `handshakesMax` of them are in the handshake; one more takes the place of the oldest, so that
 *     peers that connect and say nothing keep nobody out.
 *  2. Before a new connection of a volume executes anything, the older ones whose peers have gone are ended
 *     and what they had in the volume is done, or (after ADMISSION_WAIT_MS) keeps its place before what overlaps it, or
 *     is never begun. So a write that such a client sends again never loses to its own stale first copy.
 *  3. A connection never outlives its right to its volume by more than WITHDRAWAL_GRACE_MS.
 */
import type { Clock, Ticker, Timer } from "../core/clock.js";
import { CONNECTIONS_MAX, HANDSHAKES_MAX } from "../core/limits.js";
import type { Pool } from "../core/pool.js";
import type { ByteStream, StreamListener } from "../core/stream.js";
import type { VolumeRecord } from "../replica/record.js";
import { CommandPool } from "./command.js";
import { Connection, type ConnectionOptions, type ConnectionOwner } from "./connection.js";
import { Counters } from "./counters.js";
import { ADMISSION_WAIT_MS, PATIENCE_STEPS, SHUTDOWN_GRACE_MS, ZEROS_BYTES } from "./limits.js";
import { MapGate } from "./map-gate.js";
import { Memory } from "./memory.js";
import { SendScratch } from "./outlet.js";
import type { GatewayParts } from "./parts.js";

export interface ServerEnvironment {
  readonly pool: Pool;
  readonly clock: Clock;
  readonly ticker: Ticker;
}

export interface ServerOptions extends ConnectionOptions {
  readonly connectionsMax?: number;
  readonly handshakesMax?: number;
  /** Connections of the same volumes that other threads hold. */
  readonly elsewhere?: OtherConnections;
  /** Where to count; see Counters. */
  readonly counters?: Float64Array;
  /** A connection has ended; `reason` is empty when it ended as it should. */
  readonly onEnd?: (connection: Connection, reason: string) => void;
}

export interface OtherConnections {
  /** As `GatewayServer.retire`. `done` not from inside the call. */
  retire(volume: number, done: () => void): void;
  /** While shutting down, nothing but handshakes is left here: `then` when that is so everywhere. */
  whenOnlyHandshakes(then: () => void): void;
}

/** What is running now; the counters are in `counters`. */
export interface ServerStats {
  readonly connections: number;
  readonly handshakes: number;
  readonly requestsInFlight: number;
  readonly poolBytesHeld: number;
  readonly poolBytesLimit: number;
  readonly waitingForMemory: number;
}

interface Admission {
  /** Connections that must have left the volume first. */
  readonly before: Set<Connection>;
  readonly go: () => void;
  patience: Timer | null;
  stepsLeft: number;
}

export class GatewayServer implements ConnectionOwner {
  readonly counters: Counters;
  readonly #parts: GatewayParts;
  readonly #options: ServerOptions;
  readonly #connectionsMax: number;
  readonly #handshakesMax: number;
  readonly #connections = new Set<Connection>();
  /** Those in the handshake, the oldest first. */
  readonly #handshakes = new Set<Connection>();
  readonly #admissions = new Set<Admission>();
  #number = 0;
  #shuttingDown = false;
  #drained: (() => void) | null = null;
  /** While shutting down: the others have been asked whether only handshakes are left with them too. */
  #othersAsked = false;
  /** While shutting down: every connection is cut, and what they have in the volume nobody will hear of. */
  #allCut = false;
  #closed: (() => void) | null = null;

  constructor(environment: ServerEnvironment, options: ServerOptions) {
    const { pool, clock, ticker } = environment;
    this.#options = options;
    this.counters = new Counters(options.counters);
    this.#connectionsMax = options.connectionsMax ?? CONNECTIONS_MAX;
    this.#handshakesMax = options.handshakesMax ?? HANDSHAKES_MAX;
    const zeros = pool.allocate(ZEROS_BYTES);
    pool.bytes.fill(0, zeros, zeros + ZEROS_BYTES);
    this.#parts = {
      pool,
      memory: new Memory(pool, ticker),
      commands: new CommandPool(),
      maps: new MapGate(),
      scratch: new SendScratch(zeros),
      counters: this.counters,
      clock,
      ticker,
    };
  }

  get shuttingDown(): boolean {
    return this.#shuttingDown;
  }

  get connections(): ReadonlySet<Connection> {
    return this.#connections;
  }

  /** Connections in the handshake. */
  get handshakes(): number {
    return this.#handshakes.size;
  }

  get requestsInFlight(): number {
    return this.#parts.commands.commandsInUse;
  }

  get memory(): Memory {
    return this.#parts.memory;
  }

  stats(): ServerStats {
    const { memory } = this;
    return {
      connections: this.#connections.size,
      handshakes: this.#handshakes.size,
      requestsInFlight: this.requestsInFlight,
      poolBytesHeld: memory.usedBytes,
      poolBytesLimit: memory.limitBytes,
      waitingForMemory: memory.waiting,
    };
  }

  /** Takes a new stream over. At a limit, or while shutting down, it is closed at once. */
  accept(stream: ByteStream): void {
    const full = this.#connections.size >= this.#connectionsMax || !this.#roomForHandshake();
    const home = full || this.#shuttingDown ? -1 : this.#parts.memory.takeHome();
    if (home < 0) {
      this.counters.connectionsRefused++;
      stream.setListener(NOBODY);
      stream.close();
      return;
    }
    this.counters.connectionsAccepted++;
    this.#number++;
    const connection = new Connection(this.#number, stream, home, this.#parts, this.#options, this);
    this.#connections.add(connection);
    this.#handshakes.add(connection);
    connection.start();
  }

  /**
   * Whether one more handshake may begin, if need be in place of the oldest. Those that wait for their volume
   * are left alone: that is not their fault.
   */
  #roomForHandshake(): boolean {
    if (this.#handshakes.size < this.#handshakesMax) return true;
    for (const oldest of this.#handshakes) {
      if (oldest.phase !== "handshake") continue;
      this.counters.handshakesDisplaced++;
      oldest.cut("it was the oldest of too many handshakes");
      return true;
    }
    return false;
  }

  /**
   * A volume's record has changed: connections whose right it withdraws are ended once what they asked for is
   * answered.
   */
  recordChanged(record: VolumeRecord): void {
    for (const connection of [...this.#connections]) {
      if (connection.volume === record.id) connection.recordChanged(record);
    }
  }

  /** The volume cannot be served here any more: its connections are ended, and nothing they asked for is answered. */
  volumeLost(volume: number, reason: string): void {
    for (const connection of [...this.#connections]) {
      if (connection.volume === volume) connection.cut(reason);
    }
  }

  /**
   * Refuses new connections, answers the requests that have arrived, closes all connections, then calls `done`
   * once; before that, `drained` once no connection uses a volume any more. Requests that come later get no
   * answer: to kernels and to QEMU an error is an I/O error for good, but what was not answered is asked again on
   * the next connection. After SHUTDOWN_GRACE_MS connections that take no replies, or whose requests wait for space,
   * are cut. `drained` is called then although requests may still be in the volume: nobody hears their answers, and
   * those that wait end with the volume only.
   */
  close(done: () => void, drained: () => void = () => {}): void {
    this.#shuttingDown = true;
    this.#drained = drained;
    const timer = this.#parts.clock.setTimer(SHUTDOWN_GRACE_MS, () => this.#cutAll());
    this.#closed = () => {
      timer.cancel();
      this.#parts.pool.free(this.#parts.scratch.zeros);
      done();
    };
    for (const connection of this.#connections) connection.shutDown();
    this.#wind();
  }

  #cutAll(): void {
    for (const connection of [...this.#connections]) connection.cut("the server is shutting down");
    this.#allCut = true;
    this.#wind();
  }

  /** On shutdown: what can be done now that something has ended. */
  #wind(): void {
    if (!this.#shuttingDown) return;
    const all = [...this.#connections];
    // Those in the handshake are told so as long as others use a volume anyway, and not longer.
    if (!all.some((connection) => !connection.inHandshake && connection.usesVolume)) this.#endHandshakes();
    if (!this.#allCut && all.some((connection) => connection.usesVolume)) return;
    const drained = this.#drained;
    this.#drained = null;
    drained?.();
    if (this.#connections.size > 0) return;
    const closed = this.#closed;
    this.#closed = null;
    closed?.();
  }

  #endHandshakes(): void {
    const { elsewhere } = this.#options;
    if (elsewhere === undefined) {
      this.#cutHandshakes();
    } else if (!this.#othersAsked) {
      this.#othersAsked = true;
      elsewhere.whenOnlyHandshakes(() => this.#cutHandshakes());
    }
  }

  #cutHandshakes(): void {
    for (const connection of [...this.#handshakes]) connection.cut("the server is shutting down");
  }

  // ---- Told by connections ----------------------------------------------------------------------------------

  handshakeEnded(connection: Connection): void {
    this.#handshakes.delete(connection);
  }

  admit(connection: Connection, volume: number, go: () => void): void {
    const { elsewhere } = this.#options;
    if (elsewhere === undefined) {
      this.#retire(connection, volume, go);
      return;
    }
    let waitsFor = 2;
    const one = (): void => {
      waitsFor--;
      if (waitsFor === 0) go();
    };
    this.#retire(connection, volume, one);
    elsewhere.retire(volume, one);
  }

  /**
   * Ends the connections of a volume whose peers have gone; `done` when nothing of such connections is in the
   * volume any more, perhaps at once.
   */
  retire(volume: number, done: () => void): void {
    this.#retire(null, volume, done);
  }

  #retire(except: Connection | null, volume: number, go: () => void): void {
    const before = new Set<Connection>();
    for (const older of [...this.#connections]) {
      if (older === except || older.volume !== volume) continue;
      if (older.phase === "transmission" && older.peerGone) {
        this.counters.supersededConnections++;
        older.cut("its peer had gone when a new connection of the volume came");
      }
      if (older.phase === "closing" && older.inVolume > 0) before.add(older);
    }
    if (before.size === 0) {
      go();
      return;
    }
    this.#await({ before, go, patience: null, stepsLeft: PATIENCE_STEPS });
  }

  /** In steps: time in which the process itself stood still is not time in which the volume did not get on. */
  #await(admission: Admission): void {
    this.#admissions.add(admission);
    admission.patience = this.#parts.clock.setTimer(ADMISSION_WAIT_MS / PATIENCE_STEPS, () => {
      admission.stepsLeft--;
      if (admission.stepsLeft > 0) {
        this.#await(admission);
        return;
      }
      this.counters.admissionsForced++;
      this.#admit(admission);
    });
  }

  #admit(admission: Admission): void {
    this.#admissions.delete(admission);
    admission.patience?.cancel();
    admission.go();
  }

  connectionDrained(connection: Connection): void {
    for (const admission of [...this.#admissions]) {
      admission.before.delete(connection);
      if (admission.before.size === 0) this.#admit(admission);
    }
  }

  volumeReleased(): void {
    this.#wind();
  }

  connectionOver(connection: Connection, reason: string): void {
    this.#connections.delete(connection);
    this.counters.connectionsOver++;
    this.#options.onEnd?.(connection, reason);
    this.#wind();
  }
}

/** Listens to streams that are closed as soon as they come. */
const NOBODY: StreamListener = {
  streamReceived(): void {},
  streamSent(): void {},
  streamClosed(): void {},
};
