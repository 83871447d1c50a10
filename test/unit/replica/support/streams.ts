/** Two ends of a connection within one engine, cut into parts as a test wants. */
import type { ByteStream, PeerAddress, StreamListener } from "../../../../lib/core/stream.js";
import type { Engine } from "../../store/support/engine.js";

const ECANCELED = -125;
const ECONNRESET = -104;

export class PipeEnd implements ByteStream {
  readonly peer: PeerAddress = { family: "unix", host: "", port: 0 };
  readonly #engine: Engine;
  readonly #partOf: () => number;
  other: PipeEnd | null = null;
  listener: StreamListener | null = null;
  #inbox: Uint8Array = new Uint8Array(0);
  #ended = false;
  #reset = false;
  #closed = false;
  #at = 0;
  #wanted = 0;
  #sending = false;
  /** What is sent goes nowhere, and is kept here. */
  readonly taken: Uint8Array[] = [];
  /** Sends do not end while true. */
  stuck = false;
  #stuckSend = false;

  /** `partOf`: most bytes of the next receive. */
  constructor(engine: Engine, partOf: () => number = () => Number.POSITIVE_INFINITY) {
    this.#engine = engine;
    this.#partOf = partOf;
  }

  setListener(listener: StreamListener): void {
    this.listener = listener;
  }

  receive(offset: number, length: number): void {
    if (this.#wanted > 0 || this.#closed || length <= 0) throw new Error("a receive out of place");
    this.#at = offset;
    this.#wanted = length;
    this.#try();
  }

  send(pieces: Uint32Array, count: number): void {
    if (this.#sending || this.#closed || count < 1 || count > 512) throw new Error("a send out of place");
    this.#sending = true;
    const { bytes } = this.#engine.pool;
    for (let i = 0; i < count; i++) {
      const part = bytes.slice(pieces[2 * i]!, pieces[2 * i]! + pieces[2 * i + 1]!);
      this.taken.push(part);
      this.other?.feed(part);
    }
    if (this.stuck) this.#stuckSend = true;
    else this.#sent(0);
  }

  /** Lets a send that was stuck end. */
  unstick(): void {
    this.stuck = false;
    if (this.#stuckSend) this.#sent(0);
    this.#stuckSend = false;
  }

  #sent(result: number): void {
    this.#engine.complete(() => {
      if (!this.#sending) return;
      this.#sending = false;
      this.listener!.streamSent(result);
    });
  }

  /** Bytes arrive here. */
  feed(bytes: Uint8Array): void {
    this.#inbox = Uint8Array.from(Buffer.concat([this.#inbox, bytes]));
    this.#try();
  }

  end(): void {
    this.#ended = true;
    this.#try();
  }

  /** The connection breaks for this end. */
  break(): void {
    this.#reset = true;
    this.#inbox = new Uint8Array(0);
    this.#try();
  }

  get closed(): boolean {
    return this.#closed;
  }

  #try(): void {
    if (this.#wanted === 0 || (this.#inbox.length === 0 && !this.#ended && !this.#reset)) return;
    this.#engine.complete(() => {
      if (this.#wanted === 0) return;
      if (this.#inbox.length === 0 && !this.#ended && !this.#reset) return;
      const count = Math.min(this.#wanted, this.#inbox.length, this.#partOf());
      this.#engine.pool.bytes.set(this.#inbox.subarray(0, count), this.#at);
      this.#inbox = this.#inbox.subarray(count);
      this.#wanted = 0;
      this.listener!.streamReceived(count > 0 ? count : this.#reset ? ECONNRESET : 0);
    });
  }

  shutdown(): void {}

  close(): void {
    if (this.#closed) throw new Error("closed twice");
    this.#closed = true;
    this.#engine.complete(() => {
      if (this.#wanted > 0) {
        this.#wanted = 0;
        this.listener!.streamReceived(ECANCELED);
      }
      if (this.#sending) {
        this.#sending = false;
        this.listener!.streamSent(ECANCELED);
      }
      this.other?.end();
      this.listener!.streamClosed();
    });
  }
}

export function pipe(engine: Engine, partOf?: () => number): { near: PipeEnd; far: PipeEnd } {
  const near = new PipeEnd(engine, partOf);
  const far = new PipeEnd(engine, partOf);
  near.other = far;
  far.other = near;
  return { near, far };
}
