/**
 * A simulated connection. The server's side is lib/core's ByteStream; the client's side are the methods that begin
 * with `client`.
 *
 * Fault model: bytes arrive in order, after a while, in parts of any size; the server's output is fetched from
 * memory when it is sent, so memory that is reused too early shows; a slow reader takes little at a time; a
 * connection breaks at any byte, and what the server had not received by then it may still receive, or not.
 */
import type { ByteStream, PeerAddress, StreamListener } from "../../lib/core/stream.js";
import type { SimPool } from "./memory.js";
import type { Prng } from "./prng.js";
import type { EventTarget } from "./queue.js";
import { Violation } from "./violation.js";
import type { SimProcess, SimWorld } from "./world.js";

const ECANCELED = -125;
const ECONNRESET = -104;

const EVENT_RECEIVE = 20;
const EVENT_SEND = 21;
const EVENT_CLOSE = 22;
const EVENT_CLOSED = 23;

export interface SimStreamOptions {
  readonly delayUs: number;
  /** Most bytes that one receive gets, or that a send gives away at a time. */
  readonly partMax: number;
}

export class SimStream implements ByteStream, EventTarget {
  readonly peer: PeerAddress = { family: "tcp", host: "127.0.0.1", port: 50_000 };
  readonly #world: SimWorld;
  readonly #process: SimProcess;
  readonly #pool: SimPool;
  readonly #random: Prng;
  readonly #options: SimStreamOptions;
  #listener: StreamListener | null = null;
  readonly #inbox: Uint8Array[] = [];
  #reset = false;
  /** The client has ended its side. */
  #ended = false;
  #closing = false;
  #receiveAt = 0;
  #receiveBytes = 0;
  #receivePosted = false;
  /** Pieces of the send in progress, as (offset, length) pairs, and how far it has got. */
  #pieces: Uint32Array = new Uint32Array(0);
  #pieceCount = 0;
  #pieceAt = 0;
  #pieceDone = 0;
  #sending = false;
  #onBytes: ((bytes: Uint8Array) => void) | null = null;
  #onEnd: (() => void) | null = null;

  constructor(world: SimWorld, process: SimProcess, pool: SimPool, random: Prng, options: SimStreamOptions) {
    this.#world = world;
    this.#process = process;
    this.#pool = pool;
    this.#random = random;
    this.#options = options;
  }

  // --- server's side -----------------------------------------------------------------------------------------

  setListener(listener: StreamListener): void {
    this.#listener = listener;
  }

  peerGone(): boolean {
    return this.#reset || this.#ended;
  }

  receive(offset: number, length: number): void {
    if (this.#receiveBytes > 0 || this.#closing || length <= 0)
      throw new Violation(
        "CONTRACT",
        `a receive of ${length} bytes while another, or none, may be asked for`,
      );
    this.#receiveAt = offset;
    this.#receiveBytes = length;
    this.#tryReceive();
  }

  send(pieces: Uint32Array, count: number): void {
    if (this.#sending || this.#closing || count < 1 || count > 512)
      throw new Violation("CONTRACT", `a send of ${count} pieces while another, or none, may be asked for`);
    if (this.#pieces.length < 2 * count) this.#pieces = new Uint32Array(4 * count);
    this.#pieces.set(pieces.subarray(0, 2 * count));
    this.#pieceCount = count;
    this.#pieceAt = 0;
    this.#pieceDone = 0;
    this.#sending = true;
    this.#later(EVENT_SEND);
  }

  shutdown(): void {}

  close(): void {
    if (this.#closing) throw new Violation("CONTRACT", "a stream was closed twice");
    this.#closing = true;
    this.#later(EVENT_CLOSE);
  }

  simEvent(code: number): void {
    switch (code) {
      case EVENT_RECEIVE:
        this.#receiveNow();
        break;
      case EVENT_SEND:
        this.#sendNow();
        break;
      case EVENT_CLOSE:
        this.#closeNow();
        break;
      case EVENT_CLOSED:
        this.#listener!.streamClosed();
        this.#onEnd?.();
        break;
    }
  }

  #later(code: number): void {
    const delay = 1 + this.#random.below(this.#options.delayUs);
    this.#world.at(delay, this, this.#process, code, 0);
  }

  #tryReceive(): void {
    if (this.#receivePosted || this.#receiveBytes === 0) return;
    if (this.#inbox.length === 0 && !this.#reset && !this.#ended) return;
    this.#receivePosted = true;
    this.#later(EVENT_RECEIVE);
  }

  #receiveNow(): void {
    this.#receivePosted = false;
    if (this.#receiveBytes === 0) return;
    // What had arrived before the connection broke may be read, or be lost with it.
    const broken = this.#reset && (this.#inbox.length === 0 || this.#random.chance(0.3));
    const result = broken ? ECONNRESET : this.#moveIn();
    this.#receiveBytes = 0;
    this.#listener!.streamReceived(result);
  }

  #moveIn(): number {
    let room = Math.min(this.#receiveBytes, 1 + this.#random.below(this.#options.partMax));
    let moved = 0;
    while (room > 0 && this.#inbox.length > 0) {
      const first = this.#inbox[0]!;
      const count = Math.min(room, first.length);
      this.#pool.bytes.set(first.subarray(0, count), this.#receiveAt + moved);
      moved += count;
      room -= count;
      if (count === first.length) this.#inbox.shift();
      else this.#inbox[0] = first.subarray(count);
    }
    return moved;
  }

  #sendNow(): void {
    if (!this.#sending) return;
    if (this.#reset) {
      this.#sending = false;
      this.#listener!.streamSent(ECONNRESET);
      return;
    }
    let room = 1 + this.#random.below(this.#options.partMax);
    while (room > 0 && this.#pieceAt < this.#pieceCount) {
      const offset = this.#pieces[2 * this.#pieceAt]! + this.#pieceDone;
      const left = this.#pieces[2 * this.#pieceAt + 1]! - this.#pieceDone;
      const count = Math.min(room, left);
      this.#onBytes?.(this.#pool.bytes.slice(offset, offset + count));
      room -= count;
      this.#pieceDone += count;
      if (count === left) {
        this.#pieceAt++;
        this.#pieceDone = 0;
      }
    }
    if (this.#pieceAt < this.#pieceCount) {
      this.#later(EVENT_SEND);
      return;
    }
    this.#sending = false;
    this.#listener!.streamSent(0);
  }

  #closeNow(): void {
    if (this.#receiveBytes > 0) {
      this.#receiveBytes = 0;
      this.#listener!.streamReceived(ECANCELED);
    }
    if (this.#sending) {
      this.#sending = false;
      this.#listener!.streamSent(ECANCELED);
    }
    this.#later(EVENT_CLOSED);
  }

  // --- client's side -----------------------------------------------------------------------------------------

  clientListen(onBytes: (bytes: Uint8Array) => void, onEnd: () => void): void {
    this.#onBytes = onBytes;
    this.#onEnd = onEnd;
  }

  /** `bytes` are the stream's from now on. */
  clientSend(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.#closing) return;
    this.#inbox.push(bytes);
    this.#tryReceive();
  }

  /** The client ends its side in order. */
  clientEnd(): void {
    this.#ended = true;
    this.#tryReceive();
  }

  /** The connection breaks; the client hears nothing more. */
  clientReset(): void {
    this.#reset = true;
    this.#onBytes = null;
    this.#onEnd = null;
    this.#tryReceive();
  }
}
