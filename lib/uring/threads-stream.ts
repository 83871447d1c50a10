/**
 * ByteStream on a socket of node:net. Bytes are copied once more than on the ring: Node reads into memory of
 * its own.
 */
import type { Socket } from "node:net";
import { assert } from "../core/assert.js";
import type { ByteStream, PeerAddress, StreamListener } from "../core/stream.js";
import { Errno } from "./abi.js";
import type { EventTarget } from "./batch.js";
import type { EngineNet } from "./engine-base.js";
import { errnoOf } from "./errno.js";
import { probesWithin, tuneTcp } from "./tcp.js";
import type { ThreadsLoop } from "./threads-loop.js";

/** What the streams of an engine share. */
export type ThreadsNetContext = EngineNet<ThreadsLoop>;

export class ThreadsStream implements ByteStream {
  readonly peer: PeerAddress;
  readonly #context: ThreadsNetContext;
  readonly #socket: Socket;
  #listener: StreamListener = NOBODY;

  readonly #onReceived: EventTarget = { eventDone: (result) => this.#received(result) };
  /** A receive was asked for; it is answered once, by `#answerReceive`. */
  #receiving = false;
  #answered = false;
  #receiveAt = 0;
  #receiveLength = 0;
  /** Why the stream is dead, −errno; 0 while it lives. */
  #dead = 0;
  #ended = false;

  readonly #onSent: EventTarget = { eventDone: (result) => this.#sent(result) };
  #sending = false;
  #sendAnswered = false;
  #sendBytes = 0;
  #closing = false;

  /** Takes a paused, connected socket that allows half-open connections. */
  constructor(context: ThreadsNetContext, socket: Socket) {
    this.#context = context;
    this.#socket = socket;
    this.peer = peerOfSocket(socket);
    socket.on("readable", () => this.#tryReceive());
    socket.on("end", () => {
      this.#ended = true;
      this.#tryReceive();
    });
    socket.on("error", (error) => {
      this.#dead = errnoOf(error);
    });
    socket.on("close", () => this.#socketClosed());
    this.#tuneTcp();
  }

  setListener(listener: StreamListener): void {
    this.#listener = listener;
  }

  receive(offset: number, length: number): void {
    assert(!this.#receiving && length > 0, "one receive at a time");
    this.#receiving = true;
    this.#answered = false;
    this.#receiveAt = offset;
    this.#receiveLength = length;
    if (this.#socket.destroyed) this.#answerReceive(this.#dead === 0 ? Errno.ECANCELED : this.#dead);
    else this.#tryReceive();
  }

  send(pieces: Uint32Array, count: number): void {
    assert(!this.#sending && count > 0, "one send at a time");
    this.#sending = true;
    this.#sendAnswered = false;
    const { bytes } = this.#context.memory.pool;
    this.#sendBytes = 0;
    this.#socket.cork();
    for (let i = 0; i < count; i++) {
      const at = pieces[i * 2]!;
      const length = pieces[i * 2 + 1]!;
      this.#sendBytes += length;
      const last = i === count - 1;
      this.#socket.write(bytes.subarray(at, at + length), last ? (error) => this.#written(error) : undefined);
    }
    this.#socket.uncork();
  }

  peerGone(): boolean {
    const fd = descriptorOf(this.#socket);
    return this.#dead !== 0 || this.#ended || (fd >= 0 && this.#context.addon.socketGone(fd) === 1);
  }

  shutdown(): void {
    this.#socket.end();
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#socket.closed) this.#context.loop.run(() => this.#listener.streamClosed());
    else this.#socket.destroy();
  }

  #tryReceive(): void {
    if (!this.#receiving || this.#answered) return;
    const available = Math.min(this.#socket.readableLength, this.#receiveLength);
    const chunk: Buffer | null = available > 0 ? (this.#socket.read(available) as Buffer | null) : null;
    if (chunk !== null) {
      this.#context.memory.pool.bytes.set(chunk, this.#receiveAt);
      this.#context.traffic.bytesReceived += chunk.length;
      this.#answerReceive(chunk.length);
    } else if (this.#ended) {
      this.#answerReceive(0);
    } else {
      // Asks for the next 'readable'.
      this.#socket.read(0);
    }
  }

  #answerReceive(result: number): void {
    this.#answered = true;
    this.#context.loop.post(this.#onReceived, result);
  }

  #received(result: number): void {
    this.#receiving = false;
    this.#listener.streamReceived(result);
  }

  #written(error: Error | null | undefined): void {
    // A destroyed socket may still have the memory in hand until it is closed: see #socketClosed.
    if (this.#socket.destroyed) return;
    if (error === null || error === undefined) this.#context.traffic.bytesSent += this.#sendBytes;
    this.#answerSend(error === null || error === undefined ? 0 : errnoOf(error));
  }

  #answerSend(result: number): void {
    this.#sendAnswered = true;
    this.#context.loop.post(this.#onSent, result);
  }

  #sent(result: number): void {
    this.#sending = false;
    this.#listener.streamSent(result);
  }

  /** Nothing of this stream touches memory any more: what is unanswered is answered now. */
  #socketClosed(): void {
    if (this.#dead === 0) this.#dead = this.#closing ? Errno.ECANCELED : Errno.ECONNRESET;
    if (this.#receiving && !this.#answered) this.#answerReceive(this.#dead);
    if (this.#sending && !this.#sendAnswered) this.#answerSend(this.#dead);
    if (this.#closing) this.#context.loop.run(() => this.#listener.streamClosed());
  }

  #tuneTcp(): void {
    const { addon, tcpUserTimeoutMs } = this.#context;
    if (this.peer.family !== "tcp") return;
    const fd = descriptorOf(this.#socket);
    if (fd >= 0) {
      tuneTcp(addon, fd, tcpUserTimeoutMs);
      return;
    }
    // What Node can do without: the time of the first probe is ours, the rest is Node's.
    this.#socket.setNoDelay(true);
    const idle = tcpUserTimeoutMs === undefined ? 0 : probesWithin(tcpUserTimeoutMs).idle;
    this.#socket.setKeepAlive(true, idle * 1000);
  }
}

/** Node does not publish a socket's descriptor; where it cannot be had, −1. */
function descriptorOf(socket: Socket): number {
  const handle = (socket as { _handle?: { fd?: number } | null })._handle;
  return handle?.fd ?? -1;
}

function peerOfSocket(socket: Socket): PeerAddress {
  const address = socket.remoteAddress;
  if (address === undefined) return { family: "unix", host: "", port: 0 };
  const host = address.startsWith("::ffff:") ? address.slice("::ffff:".length) : address;
  return { family: "tcp", host, port: socket.remotePort ?? 0 };
}

const NOBODY: StreamListener = {
  streamReceived(): void {},
  streamSent(): void {},
  streamClosed(): void {},
};
