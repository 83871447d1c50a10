/**
 * One connection of the load generator: keeps as many requests in flight as it was told, and checks every reply by the
 * rules of the protocol (ClientTransmission is the oracle of the tests).
 *
 * Invariants
 *  1. The memory of headers and payloads is written only while no send is in flight.
 *  2. All requests that have become free since the last send leave in one.
 *
 * Two clocks readings a batch: a request counts from the moment it is handed to the socket to the moment at which its
 * reply has been received.
 */
import {
  ClientHandshake,
  type ClientRequest,
  ClientTransmission,
  NBD_CMD_FLUSH,
  NBD_CMD_WRITE,
  type ReplyListener,
} from "nbd-protocol-ts";
import { MIB } from "../../../lib/core/limits.js";
import type { ByteStream, StreamListener } from "../../../lib/core/stream.js";
import type { Engine } from "../../../lib/uring/api.js";
import type { Latencies } from "./latencies.js";
import { type Shape, Workload } from "./workload.js";

/** Of the pool for each connection: received bytes; what writes send; headers. */
const RECEIVE_BYTES = MIB;
const PAYLOAD_BYTES = MIB;
const HEADERS_BYTES = 64 * 1024;
export const CONNECTION_POOL_BYTES = RECEIVE_BYTES + PAYLOAD_BYTES + HEADERS_BYTES;

export class LoadConnection implements StreamListener, ReplyListener {
  readonly #engine: Engine;
  readonly #stream: ByteStream;
  readonly #workload: Workload;
  readonly #depth: number;
  readonly #latencies: Latencies;
  readonly #received: number;
  readonly #payload: number;
  readonly #headers: number;
  readonly #pieces: Uint32Array;
  readonly #begunAt: Float64Array;
  #handshake: ClientHandshake | null;
  #replies: ClientTransmission | null = null;
  #sending = false;
  #stopped = true;
  #now = 0;
  #onReady: () => void = () => {};
  #onFailed: (error: Error) => void = () => {};
  #onIdle: () => void = () => {};
  #onClosed: () => void = () => {};
  /** Bytes of reads and writes that were answered. */
  bytes = 0;

  constructor(
    engine: Engine,
    stream: ByteStream,
    shape: Shape,
    exportName: string,
    latencies: Latencies,
    seed: number,
  ) {
    this.#engine = engine;
    this.#stream = stream;
    this.#workload = new Workload(shape, seed);
    this.#depth = shape.depth;
    this.#latencies = latencies;
    this.#received = engine.pool.allocate(RECEIVE_BYTES);
    this.#payload = engine.pool.allocate(PAYLOAD_BYTES);
    this.#headers = engine.pool.allocate(HEADERS_BYTES);
    this.#pieces = new Uint32Array(4 * shape.depth);
    this.#begunAt = new Float64Array(shape.depth);
    // As fio's libnbd of Debian 12 asks.
    this.#handshake = new ClientHandshake({ exportName, extendedHeaders: false });
    // Incompressible, and never zeros.
    const payload = engine.pool.bytes.subarray(this.#payload, this.#payload + PAYLOAD_BYTES);
    for (let at = 0; at < PAYLOAD_BYTES; at += 65536)
      crypto.getRandomValues(payload.subarray(at, at + 65536));
    stream.setListener(this);
  }

  /** Through the handshake. */
  ready(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#onReady = resolve;
      this.#onFailed = reject;
      this.#receive();
    });
  }

  /** Asks until `stop`; rejects when the server breaks a rule or the connection. */
  start(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#onIdle = resolve;
      this.#onFailed = reject;
      this.#stopped = false;
      this.#now = performance.now();
      this.#ask();
    });
  }

  /** Nothing more is asked for; `start` resolves when everything has been answered. */
  stop(): void {
    this.#stopped = true;
    if (this.#replies!.inFlight === 0) this.#onIdle();
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#onClosed = resolve;
      this.#stream.close();
    });
  }

  // ---- Sending ------------------------------------------------------------------------------------------

  #ask(): void {
    if (this.#sending || this.#stopped) return;
    const replies = this.#replies!;
    const headerBytes = replies.requestBytes;
    let header = this.#headers;
    let count = 0;
    while (replies.inFlight < this.#depth) {
      this.#workload.next();
      const { type, offset, length } = this.#workload;
      const request = replies.begin(this.#engine.pool.view, header, type, 0, offset, length);
      this.#begunAt[request!.index] = this.#now;
      count = this.#add(count, header, headerBytes);
      if (type === NBD_CMD_WRITE) count = this.#add(count, this.#payloadOf(offset, length), length);
      header += headerBytes;
    }
    if (count > 0) this.#send(count);
  }

  /** Adds to the last piece what lies right behind it. Returns the number of pieces. */
  #add(count: number, offset: number, length: number): number {
    const pieces = this.#pieces;
    const last = 2 * (count - 1);
    if (count > 0 && pieces[last]! + pieces[last + 1]! === offset) {
      pieces[last + 1]! += length;
      return count;
    }
    pieces[2 * count] = offset;
    pieces[2 * count + 1] = length;
    return count + 1;
  }

  /** Other bytes for other blocks. */
  #payloadOf(offset: number, length: number): number {
    return this.#payload + (offset % (PAYLOAD_BYTES - length + 1));
  }

  #send(count: number): void {
    this.#sending = true;
    this.#stream.send(this.#pieces, count);
  }

  streamSent(result: number): void {
    this.#sending = false;
    if (result < 0) this.#fail(`sending failed (errno ${-result})`);
    else if (this.#handshake !== null) this.#shakeOn();
    else this.#ask();
  }

  // ---- Receiving ----------------------------------------------------------------------------------------

  #receive(): void {
    this.#stream.receive(this.#received, RECEIVE_BYTES);
  }

  streamReceived(result: number): void {
    if (result <= 0) {
      this.#fail(result === 0 ? "the server closed the connection" : `receiving failed (errno ${-result})`);
      return;
    }
    this.#now = performance.now();
    const end = this.#received + result;
    let at = this.#received;
    if (this.#handshake !== null) {
      at += this.#handshake.feed(this.#engine.pool.bytes, at, end);
      this.#shakeOn();
    }
    if (this.#replies !== null) {
      this.#replies.feed(this.#engine.pool.bytes, at, end);
      if (this.#replies.dead) {
        this.#fail(this.#replies.reason);
        return;
      }
      this.#ask();
    }
    this.#receive();
  }

  #shakeOn(): void {
    const handshake = this.#handshake!;
    if (this.#sending) return;
    const length = handshake.drainOutput(this.#engine.pool.bytes, this.#headers, HEADERS_BYTES);
    if (length > 0) {
      this.#pieces[0] = this.#headers;
      this.#pieces[1] = length;
      this.#send(1);
    }
    if (handshake.state === "dead" || handshake.state === "closed") this.#fail(handshake.reason);
    if (handshake.negotiated === null) return;
    this.#replies = new ClientTransmission(handshake.negotiated, this, this.#depth);
    this.#handshake = null;
    this.#onReady();
  }

  readData(): void {}

  readHole(): void {}

  blockStatus(): void {}

  requestDone(request: ClientRequest): void {
    if (request.errno !== 0) {
      this.#fail(`a request failed with error ${request.errno}: ${request.errorText}`);
      return;
    }
    if (request.type !== NBD_CMD_FLUSH) {
      this.#latencies.add(this.#now - this.#begunAt[request.index]!);
      this.bytes += request.length;
    }
    // The request itself is freed only behind this call.
    if (this.#stopped && this.#replies!.inFlight === 1) this.#onIdle();
  }

  streamClosed(): void {
    this.#onClosed();
  }

  #fail(reason: string): void {
    this.#stopped = true;
    this.#onFailed(new Error(reason));
  }
}
