/**
 * Whole messages over a byte stream before a link takes it over: one send or receive at a time, each with what
 * follows it.
 *
 * Invariants
 *  1. Nothing is received but what was asked for: what comes behind it is the next one's, or the link's.
 *  2. `failed` is told once, and nothing after it. The buffer goes back when the stream touches it no more.
 */
import { assert } from "../core/assert.js";
import type { Clock, Timer } from "../core/clock.js";
import type { Pool } from "../core/pool.js";
import type { ByteStream, StreamListener } from "../core/stream.js";

const BUFFER_BYTES = 4096;

export interface TalkEnvironment {
  readonly pool: Pool;
  readonly clock: Clock;
}

type Received = (bytes: Uint8Array) => void;

export class Talk implements StreamListener {
  readonly #pool: Pool;
  readonly #stream: ByteStream;
  readonly #failed: (reason: string) => void;
  readonly #memory: number;
  readonly #deadline: Timer;
  readonly #piece = new Uint32Array(2);
  #reason = "the connection was closed";
  #over = false;
  #sending: { readonly bytes: Uint8Array; at: number; readonly then: () => void } | null = null;
  #receiving: { readonly into: Uint8Array; at: number; readonly then: Received } | null = null;

  /** The stream is its own from now on, for `deadlineMs`. */
  constructor(
    { pool, clock }: TalkEnvironment,
    stream: ByteStream,
    deadlineMs: number,
    failed: (reason: string) => void,
  ) {
    this.#pool = pool;
    this.#stream = stream;
    this.#failed = failed;
    this.#memory = pool.allocate(BUFFER_BYTES);
    this.#deadline = clock.setTimer(deadlineMs, () => this.close("it took too long"));
    stream.setListener(this);
    if (this.#memory < 0) this.close("there is no memory for a connection");
  }

  /** All of `bytes`; then `then`. */
  send(bytes: Uint8Array, then: () => void): void {
    if (this.#over) return;
    assert(this.#sending === null, "one send at a time");
    this.#sending = { bytes, at: 0, then };
    this.#sendNext();
  }

  #sendNext(): void {
    const sending = this.#sending!;
    const part = sending.bytes.subarray(sending.at, sending.at + BUFFER_BYTES);
    this.#pool.bytes.set(part, this.#memory);
    sending.at += part.length;
    this.#piece[0] = this.#memory;
    this.#piece[1] = part.length;
    this.#stream.send(this.#piece, 1);
  }

  streamSent(result: number): void {
    if (this.#over) return;
    if (result < 0) {
      this.close("the connection broke");
      return;
    }
    const sending = this.#sending!;
    if (sending.at < sending.bytes.length) {
      this.#sendNext();
      return;
    }
    this.#sending = null;
    sending.then();
  }

  /** Exactly `length` bytes, which are the receiver's to keep. */
  receive(length: number, then: Received): void {
    if (this.#over) return;
    assert(this.#receiving === null, "one receive at a time");
    this.#receiving = { into: new Uint8Array(length), at: 0, then };
    this.#receiveNext();
  }

  #receiveNext(): void {
    const { into, at } = this.#receiving!;
    this.#stream.receive(this.#memory, Math.min(BUFFER_BYTES, into.length - at));
  }

  streamReceived(result: number): void {
    if (this.#over) return;
    const receiving = this.#receiving!;
    if (result <= 0) {
      this.close(result === 0 ? "the other side ended the connection" : "the connection broke");
      return;
    }
    receiving.into.set(this.#pool.bytes.subarray(this.#memory, this.#memory + result), receiving.at);
    receiving.at += result;
    if (receiving.at < receiving.into.length) {
      this.#receiveNext();
      return;
    }
    this.#receiving = null;
    receiving.then(receiving.into);
  }

  /** Hands the stream on, whose listener is the taker's to set. */
  release(): ByteStream {
    assert(this.#sending === null && this.#receiving === null && !this.#over, "handed on between messages");
    this.#over = true;
    this.#deadline.cancel();
    this.#pool.free(this.#memory);
    return this.#stream;
  }

  close(reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#reason = reason;
    this.#deadline.cancel();
    this.#stream.close();
  }

  streamClosed(): void {
    if (!this.#over) this.close("the connection was closed");
    if (this.#memory >= 0) this.#pool.free(this.#memory);
    this.#failed(this.#reason);
  }
}
