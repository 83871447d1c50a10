/**
 * The program's end of a simulated connection, as both kinds of simulated connections have it: bytes that have
 * arrived go to memory in parts of any size, and pieces of memory are fetched when they are sent, so that memory which
 * is reused too early shows.
 */
import type { ByteStream, PeerAddress, StreamListener } from "../../lib/core/stream.js";
import type { SimPool } from "./memory.js";
import type { Prng } from "./prng.js";
import type { EventTarget } from "./queue.js";
import { Violation } from "./violation.js";

const ECANCELED = -125;
const ECONNRESET = -104;

/** Pieces of one send; ByteStream's bound. */
const PIECES_MAX = 512;
/** As many as nearly every send has. */
const PIECES_FIRST = 8;
/** How often an end that is broken gives nothing of what had arrived before. */
const LOST_WITH_BREAK = 0.3;

class IncomingHalf {
  readonly #parts: Uint8Array[] = [];
  /** Arrived, not received yet. */
  bytes = 0;
  /** The other side has ended in order, behind what has arrived. */
  ended = false;
  #at = 0;
  #wanted = 0;

  push(part: Uint8Array): void {
    this.#parts.push(part);
    this.bytes += part.length;
  }

  ask(offset: number, length: number, isClosing: boolean): void {
    if (this.#wanted > 0 || isClosing || length <= 0)
      throw new Violation(
        "CONTRACT",
        `a receive of ${length} bytes while another, or none, may be asked for`,
      );
    this.#at = offset;
    this.#wanted = length;
  }

  get asked(): boolean {
    return this.#wanted > 0;
  }

  /** Nothing is asked for any more; whether something was. */
  cancel(): boolean {
    const was = this.#wanted > 0;
    this.#wanted = 0;
    return was;
  }

  /** Whether what is asked for can be answered. */
  ready(isReset: boolean): boolean {
    return this.#wanted > 0 && (this.#parts.length > 0 || isReset || this.ended);
  }

  /** The answer: bytes moved, 0 at the end, or an error. */
  take(isReset: boolean, random: Prng, partMax: number, pool: SimPool): number {
    // What had arrived before the connection broke may be read, or be lost with it.
    const broken = isReset && (this.#parts.length === 0 || random.chance(LOST_WITH_BREAK));
    const result = broken ? ECONNRESET : this.#move(random, partMax, pool);
    this.#wanted = 0;
    return result;
  }

  #move(random: Prng, partMax: number, pool: SimPool): number {
    let room = Math.min(this.#wanted, 1 + random.below(partMax));
    let moved = 0;
    while (room > 0 && this.#parts.length > 0) {
      const first = this.#parts[0]!;
      const count = Math.min(room, first.length);
      pool.bytes.set(count === first.length ? first : first.subarray(0, count), this.#at + moved);
      moved += count;
      room -= count;
      if (count === first.length) this.#parts.shift();
      else this.#parts[0] = first.subarray(count);
    }
    this.bytes -= moved;
    return moved;
  }
}

/** What is on its way is copied here, one part behind the other; a slab is forgotten with its last part. */
const SLAB_BYTES = 256 * 1024;
let slab = new ArrayBuffer(SLAB_BYTES);
let slabUsed = 0;

/** From a slab: an array buffer of its own for each part costs more than everything else that is done with it. */
function copyOf(bytes: Uint8Array, offset: number, length: number): Uint8Array {
  if (length > SLAB_BYTES) return bytes.slice(offset, offset + length);
  if (slabUsed + length > SLAB_BYTES) {
    slab = new ArrayBuffer(SLAB_BYTES);
    slabUsed = 0;
  }
  const copy = new Uint8Array(slab, slabUsed, length);
  slabUsed += length;
  copy.set(bytes.subarray(offset, offset + length));
  return copy;
}

/** Where the parts of a send go. */
interface PartSink {
  sendPart(bytes: Uint8Array): void;
}

class OutgoingHalf {
  #pieces = new Uint32Array(2 * PIECES_FIRST);
  #count = 0;
  #at = 0;
  #done = 0;
  sending = false;

  begin(pieces: Uint32Array, count: number, isClosing: boolean): void {
    if (this.sending || isClosing || count < 1 || count > PIECES_MAX)
      throw new Violation("CONTRACT", `a send of ${count} pieces while another, or none, may be asked for`);
    if (this.#pieces.length < 2 * count) this.#pieces = new Uint32Array(2 * PIECES_MAX);
    for (let i = 0; i < 2 * count; i++) this.#pieces[i] = pieces[i]!;
    this.#count = count;
    this.#at = 0;
    this.#done = 0;
    this.sending = true;
  }

  /** Gives the next part to `sink`; true when the send has ended. */
  take(random: Prng, partMax: number, pool: SimPool, sink: PartSink): boolean {
    let room = 1 + random.below(partMax);
    while (room > 0 && this.#at < this.#count) {
      const offset = this.#pieces[2 * this.#at]! + this.#done;
      const left = this.#pieces[2 * this.#at + 1]! - this.#done;
      const count = Math.min(room, left);
      sink.sendPart(copyOf(pool.bytes, offset, count));
      room -= count;
      this.#done += count;
      if (count === left) {
        this.#at++;
        this.#done = 0;
      }
    }
    return this.#at === this.#count;
  }
}

export const StreamEvent = { Receive: 20, Send: 21, Close: 22, Closed: 23 } as const;

/** The program's end of a simulated connection; where its bytes come from and go to is said by who extends it. */
export abstract class StreamEnd implements ByteStream, EventTarget {
  readonly peer: PeerAddress = { family: "tcp", host: "127.0.0.1", port: 50_000 };
  protected readonly incoming = new IncomingHalf();
  protected readonly outgoing = new OutgoingHalf();
  protected listener: StreamListener | null = null;
  protected reset = false;
  protected closing = false;
  readonly #memory: SimPool;
  readonly #random: Prng;
  /** Most bytes that are received, or taken from a send, at a time. */
  protected partMax: number;
  #receivePosted = false;

  constructor(memory: SimPool, random: Prng, partMax: number) {
    this.#memory = memory;
    this.#random = random;
    this.partMax = partMax;
  }

  /** Has the event happen to this end soon, while its process lives. */
  protected abstract post(code: number): void;
  /** There is something to send: has Send happen when there is room for it. */
  protected abstract wantSend(): void;
  /** A part of a send is on its way. */
  abstract sendPart(bytes: Uint8Array): void;
  /** What was received has made room. */
  protected abstract received(): void;
  protected abstract closed(): void;

  setListener(listener: StreamListener): void {
    this.listener = listener;
  }

  receive(offset: number, length: number): void {
    this.incoming.ask(offset, length, this.closing);
    this.tryReceive();
  }

  send(pieces: Uint32Array, count: number): void {
    this.outgoing.begin(pieces, count, this.closing);
    this.wantSend();
  }

  shutdown(): void {}

  close(): void {
    if (this.closing) throw new Violation("CONTRACT", "a stream was closed twice");
    this.closing = true;
    this.post(StreamEvent.Close);
  }

  simEvent(code: number): void {
    switch (code) {
      case StreamEvent.Receive:
        this.receiveNow();
        break;
      case StreamEvent.Send:
        this.#sendNow();
        break;
      case StreamEvent.Close:
        this.#closeNow();
        break;
      case StreamEvent.Closed:
        this.listener!.streamClosed();
        this.closed();
        break;
    }
  }

  protected get canReceive(): boolean {
    return !this.#receivePosted && this.incoming.ready(this.reset);
  }

  protected tryReceive(): void {
    if (!this.canReceive) return;
    this.#receivePosted = true;
    this.post(StreamEvent.Receive);
  }

  /** What was asked for is answered, if it still is asked for. */
  protected receiveNow(): void {
    this.#receivePosted = false;
    if (!this.incoming.asked) return;
    const result = this.incoming.take(this.reset, this.#random, this.partMax, this.#memory);
    if (result >= 0) this.received();
    this.listener!.streamReceived(result);
  }

  #sendNow(): void {
    if (!this.outgoing.sending) return;
    if (this.reset) {
      this.#sent(ECONNRESET);
      return;
    }
    const isOver = this.outgoing.take(this.#random, this.partMax, this.#memory, this);
    if (isOver) this.#sent(0);
    else this.wantSend();
  }

  #sent(result: number): void {
    this.outgoing.sending = false;
    this.listener!.streamSent(result);
  }

  #closeNow(): void {
    if (this.incoming.cancel()) this.listener!.streamReceived(ECANCELED);
    if (this.outgoing.sending) this.#sent(ECANCELED);
    this.post(StreamEvent.Closed);
  }
}
