/**
 * ByteStream on a ring socket: bytes are received straight into the pool, and a whole batch of replies leaves
 * in one gather send.
 *
 * Invariants
 *  1. At most one receive and one send of a stream are in the ring.
 *  2. The descriptor is closed, and `streamClosed` called, only after the last completion of both: until then
 *     the kernel may touch the memory they name.
 */
import { assert } from "../core/assert.js";
import { KIB } from "../core/limits.js";
import type { ByteStream, PeerAddress, StreamListener } from "../core/stream.js";
import {
  Errno,
  IORING_ASYNC_CANCEL_ALL,
  IORING_ASYNC_CANCEL_FD,
  IORING_CQE_F_SOCK_NONEMPTY,
  IORING_OP_ASYNC_CANCEL,
  IORING_OP_RECV,
  IORING_OP_SEND,
  IORING_OP_SENDMSG,
  IORING_RECVSEND_POLL_FIRST,
  IOVEC_BYTES,
  MSG_NOSIGNAL,
  MSG_WAITALL,
  MSGHDR_BYTES,
  MSGHDR_IOV_BYTE,
  MSGHDR_IOVLEN_BYTE,
  SHUT_WR,
  SQE_WORD,
} from "./abi.js";
import type { Addon } from "./addon.js";
import type { EventTarget } from "./batch.js";
import type { SharedMemory } from "./native-memory.js";
import type { RingTarget } from "./ring.js";
import type { RingLoop } from "./ring-loop.js";

/** Pieces of one send. */
export const SEND_PIECES_MAX = 512;
/** A receive into so much room waits for a long payload, or for many requests. */
const BULK_BYTES_MIN = 32 * KIB;
const IOPRIO_SHIFT = 16;
const TWO_32 = 2 ** 32;

/** What the streams of an engine share. */
export interface StreamContext {
  readonly addon: Addon;
  readonly loop: RingLoop;
  readonly memory: SharedMemory;
  readonly traffic: { bytesReceived: number; bytesSent: number };
}

export class RingStream implements ByteStream {
  readonly peer: PeerAddress;
  readonly #context: StreamContext;
  readonly #fd: number;
  #listener: StreamListener = NOBODY;

  readonly #onReceived: RingTarget & EventTarget;
  #receiving = false;
  /** The receive in flight is part of a long payload. */
  #bulk = false;
  /** The last receive emptied the socket: the next one waits first instead of trying in vain. */
  #socketEmpty = false;

  readonly #onSent: RingTarget & EventTarget;
  #sending = false;
  /** (offset, length) pairs of the send in flight, for what a short send leaves over. */
  #pieces: Uint32Array = new Uint32Array(64);
  #pieceCount = 0;
  #sentPieces = 0;
  #leftBytes = 0;

  #closing = false;
  #closed = false;
  #shutdownWanted = false;
  #cancelling = false;

  constructor(context: StreamContext, fd: number, peer: PeerAddress) {
    this.#context = context;
    this.#fd = fd;
    this.peer = peer;
    this.#onReceived = {
      ringDone: (result, flags) => {
        if (this.#bulk) this.#context.loop.bulkReceives--;
        this.#received(result, flags);
      },
      eventDone: (result) => this.#received(result, 0),
    };
    this.#onSent = {
      ringDone: (result) => this.#sent(result),
      eventDone: (result) => this.#sent(result),
    };
    context.loop.addHolder();
  }

  setListener(listener: StreamListener): void {
    this.#listener = listener;
  }

  receive(offset: number, length: number, whole = false): void {
    assert(!this.#receiving && length > 0, "one receive at a time");
    this.#receiving = true;
    if (this.#closing) {
      this.#context.loop.post(this.#onReceived, Errno.ECANCELED);
      return;
    }
    const { loop } = this.#context;
    const { ring } = loop;
    const at = ring.prepare(this.#onReceived);
    this.#bulk = length >= BULK_BYTES_MIN;
    if (this.#bulk) loop.bulkReceives++;
    const words = ring.words;
    const address = this.#context.memory.address + offset;
    words[at + SQE_WORD.opcodeFlagsIoprio] = this.#socketEmpty
      ? IORING_OP_RECV | (IORING_RECVSEND_POLL_FIRST << IOPRIO_SHIFT)
      : IORING_OP_RECV;
    words[at + SQE_WORD.fd] = this.#fd;
    words[at + SQE_WORD.addr] = address;
    words[at + SQE_WORD.addr + 1] = address / TWO_32;
    words[at + SQE_WORD.len] = length;
    if (whole) words[at + SQE_WORD.opFlags] = MSG_WAITALL;
  }

  send(pieces: Uint32Array, count: number): void {
    assert(!this.#sending && count > 0 && count <= SEND_PIECES_MAX, "one send of 1 to 512 pieces at a time");
    assert(!this.#shutdownWanted, "a send after shutdown");
    this.#sending = true;
    if (this.#closing) {
      this.#context.loop.post(this.#onSent, Errno.ECANCELED);
      return;
    }
    this.#keep(pieces, count);
    this.#sendRest();
  }

  peerGone(): boolean {
    return !this.#closed && this.#context.addon.socketGone(this.#fd) === 1;
  }

  shutdown(): void {
    this.#shutdownWanted = true;
    if (!this.#sending && !this.#closing) this.#context.addon.socketShutdown(this.#fd, SHUT_WR);
  }

  close(): void {
    if (this.#closing) return;
    this.#closing = true;
    if (this.#receiving || this.#sending) this.#cancel();
    else this.#context.loop.post({ eventDone: () => this.#finishClose() }, 0);
  }

  #received(result: number, flags: number): void {
    this.#socketEmpty = (flags & IORING_CQE_F_SOCK_NONEMPTY) === 0;
    this.#receiving = false;
    if (result > 0) this.#context.traffic.bytesReceived += result;
    this.#listener.streamReceived(result);
    this.#finishClose();
  }

  #sent(result: number): void {
    if (result > 0) {
      this.#context.traffic.bytesSent += result;
      this.#leftBytes -= result;
      if (this.#leftBytes > 0 && !this.#closing) {
        this.#advance(result);
        this.#sendRest();
        return;
      }
    }
    this.#sending = false;
    const failed = result < 0 ? result : this.#leftBytes > 0 ? Errno.ECANCELED : 0;
    if (this.#shutdownWanted && !this.#closing) this.#context.addon.socketShutdown(this.#fd, SHUT_WR);
    this.#listener.streamSent(failed);
    this.#finishClose();
  }

  #keep(pieces: Uint32Array, count: number): void {
    if (this.#pieces.length < count * 2) this.#pieces = new Uint32Array(roundedUp(count) * 2);
    let bytes = 0;
    for (let i = 0; i < count * 2; i += 2) {
      this.#pieces[i] = pieces[i]!;
      this.#pieces[i + 1] = pieces[i + 1]!;
      bytes += pieces[i + 1]!;
    }
    this.#pieceCount = count;
    this.#sentPieces = 0;
    this.#leftBytes = bytes;
  }

  /** Forgets `bytes` that were sent. */
  #advance(bytes: number): void {
    let left = bytes;
    while (left > 0) {
      const at = this.#sentPieces * 2;
      const length = this.#pieces[at + 1]!;
      if (left < length) {
        this.#pieces[at] = this.#pieces[at]! + left;
        this.#pieces[at + 1] = length - left;
        return;
      }
      left -= length;
      this.#sentPieces++;
    }
  }

  #sendRest(): void {
    if (this.#pieceCount - this.#sentPieces === 1) this.#sendOne();
    else this.#sendMany();
  }

  #sendOne(): void {
    const { ring } = this.#context.loop;
    const at = ring.prepare(this.#onSent);
    const piece = this.#sentPieces * 2;
    const address = this.#context.memory.address + this.#pieces[piece]!;
    const words = ring.words;
    words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_SEND;
    words[at + SQE_WORD.fd] = this.#fd;
    words[at + SQE_WORD.addr] = address;
    words[at + SQE_WORD.addr + 1] = address / TWO_32;
    words[at + SQE_WORD.len] = this.#pieces[piece + 1]!;
    words[at + SQE_WORD.opFlags] = MSG_NOSIGNAL | MSG_WAITALL;
  }

  #sendMany(): void {
    const { ring } = this.#context.loop;
    const count = this.#pieceCount - this.#sentPieces;
    const header = ring.arenaTake(MSGHDR_BYTES + count * IOVEC_BYTES);
    this.#writeHeader(header, count);
    const address = ring.arenaAddress(header);
    const at = ring.prepare(this.#onSent);
    const words = ring.words;
    words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_SENDMSG;
    words[at + SQE_WORD.fd] = this.#fd;
    words[at + SQE_WORD.addr] = address;
    words[at + SQE_WORD.addr + 1] = address / TWO_32;
    words[at + SQE_WORD.len] = 1;
    words[at + SQE_WORD.opFlags] = MSG_NOSIGNAL | MSG_WAITALL;
  }

  /** struct msghdr with its gather list right behind it. */
  #writeHeader(header: number, count: number): void {
    const { ring } = this.#context.loop;
    const words = ring.arenaWords;
    const base = this.#context.memory.address;
    const first = header >>> 2;
    for (let i = 0; i < MSGHDR_BYTES >>> 2; i++) words[first + i] = 0;
    const list = ring.arenaAddress(header + MSGHDR_BYTES);
    words[first + (MSGHDR_IOV_BYTE >>> 2)] = list;
    words[first + (MSGHDR_IOV_BYTE >>> 2) + 1] = list / TWO_32;
    words[first + (MSGHDR_IOVLEN_BYTE >>> 2)] = count;
    let out = (header + MSGHDR_BYTES) >>> 2;
    for (let i = this.#sentPieces * 2; i < this.#pieceCount * 2; i += 2) {
      const address = base + this.#pieces[i]!;
      words[out] = address;
      words[out + 1] = address / TWO_32;
      words[out + 2] = this.#pieces[i + 1]!;
      words[out + 3] = 0;
      out += IOVEC_BYTES >>> 2;
    }
  }

  /** Ends what is in flight; each of them completes, and the last closes the stream. */
  #cancel(): void {
    this.#cancelling = true;
    const { ring } = this.#context.loop;
    const at = ring.prepare({
      ringDone: () => {
        this.#cancelling = false;
        this.#finishClose();
      },
    });
    const words = ring.words;
    words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_ASYNC_CANCEL;
    words[at + SQE_WORD.fd] = this.#fd;
    words[at + SQE_WORD.opFlags] = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
  }

  #finishClose(): void {
    if (!this.#closing || this.#closed) return;
    if (this.#receiving || this.#sending || this.#cancelling) return;
    this.#closed = true;
    this.#context.addon.fileClose(this.#fd);
    this.#context.loop.dropHolder();
    this.#listener.streamClosed();
  }
}

function roundedUp(count: number): number {
  return Math.min(1 << (32 - Math.clz32(count)), SEND_PIECES_MAX);
}

const NOBODY: StreamListener = {
  streamReceived(): void {},
  streamSent(): void {},
  streamClosed(): void {},
};
