/**
 * The two joints of TLS: a byte stream of the engine as the Duplex that node:tls encrypts over, and what
 * node:tls decrypts as a byte stream again.
 *
 * Invariants
 *  1. Ciphertext buffers lie in the pool and are given back when the stream below is closed.
 *  2. Plaintext is copied out of the pool before node:tls sees it, CHUNK_BYTES at a time and the next when the
 *     last was taken: so nothing that a reply named is used after `streamSent`, and Node never buffers more
 *     than that.
 *  3. Completions are never delivered from inside the call that asked.
 */
import { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { assert } from "../core/assert.js";
import type { Pool } from "../core/pool.js";
import type { ByteStream, PeerAddress, StreamListener } from "../core/stream.js";

/** Bytes of one ciphertext buffer: a TLS record is at most 16 KiB and a little. */
export const CIPHER_BYTES = 32 * 1024;
const CHUNK_BYTES = 64 * 1024;
const ECANCELED = -125;
const ECONNRESET = -104;

type Callback = (error?: Error | null) => void;

/** A byte stream as a Duplex. Takes the stream and two buffers of CIPHER_BYTES; gives both back at its end. */
export class StreamDuplex extends Duplex implements StreamListener {
  readonly #stream: ByteStream;
  readonly #pool: Pool;
  readonly #receiveAt: number;
  readonly #sendAt: number;
  readonly #pieces = new Uint32Array(2);
  readonly #onClosed: () => void;
  #rest: Buffer = NOTHING;
  #written: Callback | null = null;
  #destroyed: Callback | null = null;

  /** `onClosed`: the stream touches no memory any more, and the buffers are back in the pool. */
  constructor(stream: ByteStream, pool: Pool, receiveAt: number, sendAt: number, onClosed: () => void) {
    super({ allowHalfOpen: true, emitClose: true });
    this.#stream = stream;
    this.#pool = pool;
    this.#receiveAt = receiveAt;
    this.#sendAt = sendAt;
    this.#onClosed = onClosed;
    stream.setListener(this);
  }

  override _read(): void {
    this.#stream.receive(this.#receiveAt, CIPHER_BYTES);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Callback): void {
    this.#rest = chunk;
    this.#written = done;
    this.#sendRest();
  }

  override _final(done: Callback): void {
    this.#stream.shutdown();
    done();
  }

  override _destroy(error: Error | null, done: Callback): void {
    this.#destroyed = () => done(error);
    this.#stream.close();
  }

  #sendRest(): void {
    const count = Math.min(this.#rest.length, CIPHER_BYTES);
    this.#pool.bytes.set(this.#rest.subarray(0, count), this.#sendAt);
    this.#rest = this.#rest.subarray(count);
    this.#pieces[0] = this.#sendAt;
    this.#pieces[1] = count;
    this.#stream.send(this.#pieces, 1);
  }

  streamReceived(result: number): void {
    if (this.destroyed) return;
    if (result > 0)
      this.push(Buffer.from(this.#pool.bytes.subarray(this.#receiveAt, this.#receiveAt + result)));
    else if (result === 0) this.push(null);
    else this.destroy(new Error("the connection broke"));
  }

  streamSent(result: number): void {
    if (this.destroyed) return;
    if (result < 0) {
      this.destroy(new Error("the connection broke"));
      return;
    }
    if (this.#rest.length > 0) {
      this.#sendRest();
      return;
    }
    const written = this.#written;
    this.#written = null;
    written?.();
  }

  streamClosed(): void {
    this.#pool.free(this.#receiveAt);
    this.#pool.free(this.#sendAt);
    this.#onClosed();
    this.#destroyed?.();
  }
}

const NOTHING = Buffer.alloc(0);

/** What a TLSSocket decrypts, as a byte stream. */
export class TlsStream implements ByteStream {
  readonly peer: PeerAddress;
  readonly #below: ByteStream;
  readonly #socket: TLSSocket;
  readonly #pool: Pool;
  #listener: StreamListener = NOBODY;
  #receiveAt = 0;
  #receiveLength = 0;
  #ended = false;
  /** Copies of what is being sent are made as they are needed: pairs, the next one, and bytes of it done. */
  #pieces: Uint32Array = new Uint32Array(64);
  #pieceCount = 0;
  #piece = 0;
  #pieceDone = 0;
  #sending = false;
  #closing = false;
  #closedBelow = false;
  #closed = false;

  constructor(socket: TLSSocket, below: ByteStream, pool: Pool) {
    this.peer = below.peer;
    this.#below = below;
    this.#socket = socket;
    this.#pool = pool;
    socket.pause();
    socket.on("readable", () => this.#tryReceive());
    socket.on("end", () => {
      this.#ended = true;
      this.#tryReceive();
    });
    // What went wrong shows in the request that is under way: see #fail.
    socket.on("error", () => {});
    socket.on("close", () => this.#fail());
  }

  /** The stream below is closed: nothing of this one is left. */
  belowClosed(): void {
    this.#closedBelow = true;
    queueMicrotask(() => {
      this.#fail();
      this.#finish();
    });
  }

  setListener(listener: StreamListener): void {
    this.#listener = listener;
  }

  peerGone(): boolean {
    return this.#ended || this.#closedBelow || this.#below.peerGone?.() === true;
  }

  receive(offset: number, length: number): void {
    assert(this.#receiveLength === 0 && length > 0, "one receive at a time");
    this.#receiveAt = offset;
    this.#receiveLength = length;
    queueMicrotask(() => this.#tryReceive());
  }

  send(pieces: Uint32Array, count: number): void {
    assert(!this.#sending && count > 0, "one send at a time");
    this.#sending = true;
    if (this.#pieces.length < 2 * count) this.#pieces = new Uint32Array(2 * count);
    this.#pieces.set(pieces.subarray(0, 2 * count));
    this.#pieceCount = count;
    this.#piece = 0;
    this.#pieceDone = 0;
    this.#sendNext();
  }

  shutdown(): void {
    this.#socket.end();
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#socket.destroy();
    if (this.#closedBelow) queueMicrotask(() => this.#finish());
  }

  #tryReceive(): void {
    if (this.#receiveLength === 0) return;
    if (this.#socket.destroyed) {
      this.#received(this.#closing ? ECANCELED : ECONNRESET);
      return;
    }
    const available = Math.min(this.#socket.readableLength, this.#receiveLength);
    const chunk = available > 0 ? (this.#socket.read(available) as Buffer | null) : null;
    if (chunk !== null) {
      this.#pool.bytes.set(chunk, this.#receiveAt);
      this.#received(chunk.length);
    } else if (this.#ended) {
      this.#received(0);
    } else {
      // Asks for the next 'readable'.
      this.#socket.read(0);
    }
  }

  #received(result: number): void {
    this.#receiveLength = 0;
    this.#listener.streamReceived(result);
  }

  /** Up to CHUNK_BYTES of what is left, as one write. */
  #sendNext(): void {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    let filled = 0;
    while (filled < CHUNK_BYTES && this.#piece < this.#pieceCount) {
      const from = this.#pieces[2 * this.#piece]! + this.#pieceDone;
      const left = this.#pieces[2 * this.#piece + 1]! - this.#pieceDone;
      const count = Math.min(left, CHUNK_BYTES - filled);
      chunk.set(this.#pool.bytes.subarray(from, from + count), filled);
      filled += count;
      this.#pieceDone += count;
      if (count === left) {
        this.#piece++;
        this.#pieceDone = 0;
      }
    }
    this.#socket.write(chunk.subarray(0, filled), (error) => this.#written(error));
  }

  #written(error: Error | null | undefined): void {
    if (!this.#sending) return;
    if (error !== null && error !== undefined) this.#sent(this.#closing ? ECANCELED : ECONNRESET);
    else if (this.#piece < this.#pieceCount) this.#sendNext();
    else this.#sent(0);
  }

  #sent(result: number): void {
    this.#sending = false;
    this.#listener.streamSent(result);
  }

  /** The socket is gone: what is under way ends now. */
  #fail(): void {
    const result = this.#closing ? ECANCELED : ECONNRESET;
    if (this.#receiveLength > 0) this.#received(result);
    if (this.#sending) this.#sent(result);
  }

  #finish(): void {
    if (!this.#closing || !this.#closedBelow || this.#closed) return;
    this.#closed = true;
    this.#listener.streamClosed();
  }
}

const NOBODY: StreamListener = {
  streamReceived(): void {},
  streamSent(): void {},
  streamClosed(): void {},
};
