/**
 * A byte stream in memory. The server's side is a ByteStream; the client's side are the methods that begin
 * with `client`. Bytes are copied when they move, not when they are asked for, as a kernel would do it.
 */
import type { ByteStream, PeerAddress, StreamListener } from "../../../../lib/core/stream.js";
import type { Loop } from "./loop.js";

const ECANCELED = -125;
const ECONNRESET = -104;

export interface StreamOptions {
  /** Largest number of bytes that one receive gets. */
  readonly receiveMax?: number;
  /** Bytes that are taken from a send at a time. */
  readonly sendMax?: number;
  /** The stream can tell that its peer has gone. */
  readonly tellsPeerGone?: boolean;
  readonly peer?: PeerAddress;
}

export class MemoryStream implements ByteStream {
  readonly peer: PeerAddress;
  readonly #loop: Loop;
  readonly #options: StreamOptions;
  #listener: StreamListener | null = null;
  #inbox: Uint8Array[] = [];
  #inboxBytes = 0;
  #ended = false;
  #reset = false;
  #closing = false;
  #closed = false;
  #receiveAt = 0;
  #receiveBytes = 0;
  #receivePosted = false;
  #send: { pieces: number[]; at: number; done: number } | null = null;
  #sendPosted = false;
  #paused = false;
  #onBytes: ((bytes: Uint8Array) => void) | null = null;
  /** The server has ended its side, or closed. */
  serverEnded = false;
  /** Bytes taken by the client. */
  takenBytes = 0;
  /** Most pieces that one send had. */
  mostPieces = 0;
  sends = 0;

  constructor(loop: Loop, options: StreamOptions = {}) {
    this.#loop = loop;
    this.#options = options;
    this.peer = options.peer ?? { family: "tcp", host: "127.0.0.1", port: 50_000 };
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** A receive is being waited for: the server reads its socket. */
  get wantsBytes(): boolean {
    return this.#receiveBytes > 0;
  }

  get unreadBytes(): number {
    return this.#inboxBytes;
  }

  // ---- Server's side ----------------------------------------------------------------------------------------

  setListener(listener: StreamListener): void {
    this.#listener = listener;
  }

  peerGone(): boolean {
    return this.#options.tellsPeerGone === true && (this.#ended || this.#reset);
  }

  receive(offset: number, length: number): void {
    if (this.#receiveBytes > 0 || this.#closing) throw new Error("a receive too many");
    if (length <= 0) throw new Error("a receive of nothing");
    this.#receiveAt = offset;
    this.#receiveBytes = length;
    this.#tryReceive();
  }

  send(pieces: Uint32Array, count: number): void {
    if (this.#send !== null || this.#closing) throw new Error("a send too many");
    if (count < 1 || count > 512) throw new Error("a send of no or too many pieces");
    this.mostPieces = Math.max(this.mostPieces, count);
    this.sends++;
    this.#send = { pieces: [...pieces.subarray(0, 2 * count)], at: 0, done: 0 };
    this.#trySend();
  }

  shutdown(): void {
    this.serverEnded = true;
  }

  close(): void {
    if (this.#closing) throw new Error("closed twice");
    this.#closing = true;
    this.serverEnded = true;
    this.#loop.post(() => this.#finishClose());
  }

  #finishClose(): void {
    if (this.#receiveBytes > 0) {
      this.#receiveBytes = 0;
      this.#listener!.streamReceived(ECANCELED);
    }
    if (this.#send !== null) {
      this.#send = null;
      this.#listener!.streamSent(ECANCELED);
    }
    this.#loop.post(() => {
      this.#closed = true;
      this.#listener!.streamClosed();
    });
  }

  #tryReceive(): void {
    if (this.#receivePosted || this.#receiveBytes === 0) return;
    if (this.#inboxBytes === 0 && !this.#ended && !this.#reset) return;
    this.#receivePosted = true;
    this.#loop.post(() => {
      this.#receivePosted = false;
      if (this.#receiveBytes === 0) return;
      const result = this.#reset ? ECONNRESET : this.#moveIn();
      this.#receiveBytes = 0;
      this.#listener!.streamReceived(result);
    });
  }

  #moveIn(): number {
    let room = Math.min(this.#receiveBytes, this.#options.receiveMax ?? Number.MAX_SAFE_INTEGER);
    let moved = 0;
    while (room > 0 && this.#inbox.length > 0) {
      const first = this.#inbox[0]!;
      const count = Math.min(room, first.length);
      this.#loop.pool.bytes.set(first.subarray(0, count), this.#receiveAt + moved);
      moved += count;
      room -= count;
      if (count === first.length) this.#inbox.shift();
      else this.#inbox[0] = first.subarray(count);
    }
    this.#inboxBytes -= moved;
    return moved;
  }

  #trySend(): void {
    if (this.#sendPosted || this.#send === null || (this.#paused && !this.#reset)) return;
    this.#sendPosted = true;
    this.#loop.post(() => {
      this.#sendPosted = false;
      if (this.#send === null) return;
      if (this.#reset) {
        this.#send = null;
        this.#listener!.streamSent(ECONNRESET);
        return;
      }
      if (this.#paused) return;
      this.#moveOut(this.#options.sendMax ?? Number.MAX_SAFE_INTEGER);
    });
  }

  #moveOut(most: number): void {
    const send = this.#send!;
    let room = most;
    while (room > 0 && send.at < send.pieces.length) {
      const offset = send.pieces[send.at]! + send.done;
      const left = send.pieces[send.at + 1]! - send.done;
      if (left <= 0) throw new Error("an empty piece");
      const count = Math.min(room, left);
      this.takenBytes += count;
      this.#onBytes?.(this.#loop.pool.bytes.slice(offset, offset + count));
      send.done += count;
      room -= count;
      if (count === left) {
        send.at += 2;
        send.done = 0;
      }
    }
    if (send.at < send.pieces.length) {
      this.#trySend();
      return;
    }
    this.#send = null;
    this.#listener!.streamSent(0);
  }

  // ---- Client's side ----------------------------------------------------------------------------------------

  clientListen(onBytes: (bytes: Uint8Array) => void): void {
    this.#onBytes = onBytes;
  }

  clientSend(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.#closing) return;
    this.#inbox.push(bytes.slice());
    this.#inboxBytes += bytes.length;
    this.#tryReceive();
  }

  /** Ends the client's side in order. */
  clientEnd(): void {
    this.#ended = true;
    this.#tryReceive();
  }

  /** The connection breaks. */
  clientReset(): void {
    this.#reset = true;
    this.#tryReceive();
    this.#trySend();
  }

  /** The client reads nothing, until it does again. */
  clientPause(paused: boolean): void {
    this.#paused = paused;
    this.#trySend();
  }
}
