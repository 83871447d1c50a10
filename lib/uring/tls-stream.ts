/**
 * The two joints of TLS: a byte stream of the engine as the Duplex that node:tls encrypts over, and what
 * node:tls decrypts as a byte stream again.
 *
 * Invariants
 *  1. Ciphertext buffers lie in the pool and are given back when the stream below is closed.
 *  2. Plaintext is copied out of the pool before node:tls sees it, CHUNK_BYTES_MAX at a time and the next when the
 *     last was taken: so nothing that a reply named is used after `streamSent`, and Node never buffers more
 *     than that.
 *  3. Decrypted bytes that nobody has asked for yet are at most QUEUE_BYTES_MAX and what one receive of ciphertext
 *     comes to: then the socket is paused.
 *  4. Completions are never delivered from inside the call that asked.
 *  5. node:tls sees ciphertext where it was received only while it takes it in before `push` returns; otherwise it gets a
 *     copy. So the buffer is free for the next receive, whoever reads and whenever.
 */
import { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { assert } from "../core/assert.js";
import type { Pool } from "../core/pool.js";
import type { ByteStream, PeerAddress, StreamListener } from "../core/stream.js";
import { type CipherMemory, RECEIVE_CIPHER_BYTES } from "./cipher-memory.js";

const CHUNK_BYTES_MIN = 16 * 1024;
const CHUNK_BYTES_MAX = 256 * 1024;
const QUEUE_BYTES_MAX = 256 * 1024;
const ECANCELED = -125;
const ECONNRESET = -104;

type Callback = (error?: Error | null) => void;

interface Chunk {
  readonly chunk: Buffer;
}

/** A byte stream as a Duplex. Takes the stream and the memory for ciphertext; gives both back at its end. */
export class StreamDuplex extends Duplex implements StreamListener {
  readonly #stream: ByteStream;
  readonly #pool: Pool;
  readonly #memory: CipherMemory;
  readonly #pieces = new Uint32Array(2);
  readonly #onClosed: () => void;
  /** The last receive filled its buffer. */
  #receiveFilled = false;
  /** What is being written: chunks, the first that is not sent whole, and bytes of it that are. */
  #chunks: readonly Chunk[] = [];
  #chunk = 0;
  #chunkDone = 0;
  #written: Callback | null = null;
  #destroyed: Callback | null = null;

  /** `onClosed`: the stream touches no memory any more, and the buffers are back in the pool. */
  constructor(stream: ByteStream, pool: Pool, memory: CipherMemory, onClosed: () => void) {
    super({ allowHalfOpen: true, emitClose: true });
    this.#stream = stream;
    this.#pool = pool;
    this.#memory = memory;
    this.#onClosed = onClosed;
    stream.setListener(this);
  }

  /** Everything that was received has been taken or copied. */
  override _read(): void {
    if (this.#receiveFilled && this.#memory.receiveBytes < RECEIVE_CIPHER_BYTES) this.#memory.growReceive();
    this.#receiveFilled = false;
    this.#stream.receive(this.#memory.receiveAt, this.#memory.receiveBytes);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Callback): void {
    this._writev([{ chunk }], done);
  }

  /** All records of a batch of replies at once: each send is a way through the kernel and back. */
  override _writev(chunks: readonly Chunk[], done: Callback): void {
    this.#chunks = chunks;
    this.#chunk = 0;
    this.#chunkDone = 0;
    this.#written = done;
    this.#sendNext();
  }

  override _final(done: Callback): void {
    this.#stream.shutdown();
    done();
  }

  override _destroy(error: Error | null, done: Callback): void {
    this.#destroyed = () => done(error);
    this.#stream.close();
  }

  #sendNext(): void {
    const { sendBytes, sendAt } = this.#sendBuffer();
    const { bytes } = this.#pool;
    let filled = 0;
    while (filled < sendBytes && this.#chunk < this.#chunks.length) {
      const { chunk } = this.#chunks[this.#chunk]!;
      const count = Math.min(chunk.length - this.#chunkDone, sendBytes - filled);
      bytes.set(chunk.subarray(this.#chunkDone, this.#chunkDone + count), sendAt + filled);
      filled += count;
      this.#chunkDone += count;
      if (this.#chunkDone < chunk.length) break;
      this.#chunk++;
      this.#chunkDone = 0;
    }
    this.#pieces[0] = sendAt;
    this.#pieces[1] = filled;
    this.#stream.send(this.#pieces, 1);
  }

  #sendBuffer(): CipherMemory {
    let left = -this.#chunkDone;
    for (let i = this.#chunk; i < this.#chunks.length; i++) left += this.#chunks[i]!.chunk.length;
    if (left > this.#memory.sendBytes) this.#memory.growSend();
    return this.#memory;
  }

  streamReceived(result: number): void {
    if (this.destroyed) return;
    if (result > 0) {
      this.#pushReceived(result);
    } else if (result === 0) {
      this.push(null);
    } else {
      this.destroy(new Error("the connection broke"));
    }
  }

  #pushReceived(count: number): void {
    const { receiveAt, receiveBytes } = this.#memory;
    this.#receiveFilled = count === receiveBytes;
    const { buffer, byteOffset } = this.#pool.bytes;
    const there = Buffer.from(buffer, byteOffset + receiveAt, count);
    // Then Readable hands it to the listener at once: node:tls, which copies it into OpenSSL's buffer.
    const isTakenAtOnce =
      this.readableFlowing === true && this.readableLength === 0 && this.listenerCount("data") > 0;
    this.push(isTakenAtOnce ? there : Buffer.from(there));
    assert(!isTakenAtOnce || this.readableLength === 0, "ciphertext is taken in by who listens");
  }

  streamSent(result: number): void {
    if (this.destroyed) return;
    if (result < 0) {
      this.destroy(new Error("the connection broke"));
      return;
    }
    if (this.#chunk < this.#chunks.length) {
      this.#sendNext();
      return;
    }
    const written = this.#written;
    this.#chunks = [];
    this.#written = null;
    written?.();
  }

  streamClosed(): void {
    this.#memory.give();
    this.#onClosed();
    this.#destroyed?.();
  }
}

/** One sentence about an error of node:tls, whose messages have numbers of OpenSSL's source lines in them. */
export function tlsFault(error: Error): string {
  const { reason } = error as { reason?: unknown };
  return `TLS failed: ${typeof reason === "string" ? reason : error.message}`;
}

/** What a TLSSocket decrypts, as a byte stream. */
export class TlsStream implements ByteStream {
  readonly peer: PeerAddress;
  channelBinding: Uint8Array | null = null;
  fault: string | null = null;
  readonly #below: ByteStream;
  readonly #socket: TLSSocket;
  readonly #pool: Pool;
  #listener: StreamListener = NOBODY;
  #receiveAt = 0;
  #receiveLength = 0;
  #receiveWhole = false;
  /** Bytes of the receive under way that are there. */
  #received = 0;
  /** What was decrypted and not asked for, and bytes of its first that are taken. */
  #queue: Buffer[] = [];
  #queueTaken = 0;
  #queuedBytes = 0;
  #advanceAsked = false;
  #ended = false;
  /** Copies of what is being sent are made as they are needed: pairs, the next one, and bytes of it done. */
  #pieces: Uint32Array = new Uint32Array(64);
  #pieceCount = 0;
  #piece = 0;
  #pieceDone = 0;
  #chunk: Buffer = NOTHING;
  #sending = false;
  #closing = false;
  #closedBelow = false;
  #closed = false;

  constructor(socket: TLSSocket, below: ByteStream, pool: Pool) {
    this.peer = below.peer;
    this.#below = below;
    this.#socket = socket;
    this.#pool = pool;
    socket.on("data", (chunk: Buffer) => this.#decrypted(chunk));
    socket.on("end", () => {
      this.#ended = true;
      this.#askAdvance();
    });
    // What went wrong shows in the request that is under way: see #fail.
    socket.on("error", (error) => {
      this.fault = tlsFault(error);
    });
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

  receive(offset: number, length: number, whole = false): void {
    assert(this.#receiveLength === 0 && length > 0, "one receive at a time");
    this.#receiveAt = offset;
    this.#receiveLength = length;
    this.#receiveWhole = whole;
    this.#received = 0;
    if (this.#queuedBytes > 0 || this.#ended || this.#socket.destroyed) this.#askAdvance();
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

  #decrypted(chunk: Buffer): void {
    this.#queue.push(chunk);
    this.#queuedBytes += chunk.length;
    if (this.#receiveLength > 0) this.#askAdvance();
    if (this.#queuedBytes > QUEUE_BYTES_MAX) this.#socket.pause();
  }

  /** After all records of one receive have come: they are handed on together. */
  #askAdvance(): void {
    if (this.#advanceAsked) return;
    this.#advanceAsked = true;
    queueMicrotask(() => {
      this.#advanceAsked = false;
      this.#advance();
    });
  }

  #advance(): void {
    if (this.#receiveLength === 0) return;
    if (this.#socket.destroyed) {
      this.#endReceive(this.#closing ? ECANCELED : ECONNRESET);
      return;
    }
    this.#takeQueued();
    const full = this.#received === this.#receiveLength;
    if (full || this.#ended || (this.#received > 0 && !this.#receiveWhole)) this.#endReceive(this.#received);
  }

  #takeQueued(): void {
    while (this.#queuedBytes > 0 && this.#received < this.#receiveLength) {
      const first = this.#queue[0]!;
      const from = this.#queueTaken;
      const count = Math.min(first.length - from, this.#receiveLength - this.#received);
      this.#pool.bytes.set(first.subarray(from, from + count), this.#receiveAt + this.#received);
      this.#received += count;
      this.#queuedBytes -= count;
      this.#queueTaken += count;
      if (this.#queueTaken === first.length) {
        this.#queue.shift();
        this.#queueTaken = 0;
      }
    }
    if (this.#queuedBytes === 0 && this.#socket.isPaused()) this.#socket.resume();
  }

  #endReceive(result: number): void {
    this.#receiveLength = 0;
    this.#listener.streamReceived(result);
  }

  /** Up to CHUNK_BYTES_MAX of what is left, as one write. */
  #sendNext(): void {
    const chunk = this.#chunkOf(this.#unsentBytes());
    let filled = 0;
    while (filled < chunk.length && this.#piece < this.#pieceCount) {
      const from = this.#pieces[2 * this.#piece]! + this.#pieceDone;
      const left = this.#pieces[2 * this.#piece + 1]! - this.#pieceDone;
      const count = Math.min(left, chunk.length - filled);
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

  #unsentBytes(): number {
    let left = -this.#pieceDone;
    for (let i = this.#piece; i < this.#pieceCount; i++) left += this.#pieces[2 * i + 1]!;
    return left;
  }

  /** The last write has been taken when the next is made: one buffer does, as large as was needed once. */
  #chunkOf(bytes: number): Buffer {
    if (bytes > this.#chunk.length && this.#chunk.length < CHUNK_BYTES_MAX) {
      const room = Math.max(CHUNK_BYTES_MIN, 2 ** Math.ceil(Math.log2(bytes)));
      this.#chunk = Buffer.allocUnsafeSlow(Math.min(room, CHUNK_BYTES_MAX));
    }
    return this.#chunk;
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
    if (this.#receiveLength > 0) this.#endReceive(result);
    if (this.#sending) this.#sent(result);
  }

  #finish(): void {
    if (!this.#closing || !this.#closedBelow || this.#closed) return;
    this.#closed = true;
    this.#listener.streamClosed();
  }
}

const NOTHING = Buffer.alloc(0);

const NOBODY: StreamListener = {
  streamReceived(): void {},
  streamSent(): void {},
  streamClosed(): void {},
};
