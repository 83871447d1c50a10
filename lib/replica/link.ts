/**
 * Messages over one byte stream, both ways. Both ends of the node protocol are built on it.
 *
 * Invariants
 *  1. Received bytes are handled in order and each once. After `close`, or a fault, none is handled any more.
 *  2. At most one receive and one send are in flight; what is to be sent is gathered at the end of a batch.
 *  3. The body of a message is valid only during `received`. Payload lies in memory that the owner named.
 *  4. `lost` is called once, last of all; after it nothing of the owner's memory is touched.
 */
import type { TickTask } from "../core/clock.js";
import type { ByteStream, StreamListener } from "../core/stream.js";
import type { LinkEnvironment } from "./api.js";
import { LINK_BUFFER_BYTES } from "./limits.js";
import { decode, encode, HEADER_BYTES, Message, verify } from "./wire.js";

/** Pieces of one send; ByteStream's bound. */
const PIECES_MAX = 512;

/** No memory for the payload now; `resume` when there may be. */
export const HOLD_BACK = -1;
/** Nobody asked for this payload: the link ends. */
export const REFUSE = -2;

export interface LinkOwner {
  /** Where the payload of `m` goes: `payloadBytes` bytes at a multiple of 4096, or HOLD_BACK, or REFUSE. */
  payloadFor(m: Message): number;
  /**
   * A whole message. Its body, `m.bodyBytes` long, is at `body` of the pool. Returns why it cannot be, for
   * people, and the link ends; or null.
   */
  received(m: Message, body: number, payload: number): string | null;
  /** Now messages may be sent: `reserve`, fill in the body, `commit`, until `reserve` has no room. */
  fill(): void;
  /** What the last `fill` committed has been taken: its payload memory may be reused. */
  sent(): void;
  lost(reason: string): void;
}

export class Link implements StreamListener, TickTask {
  readonly #environment: LinkEnvironment;
  readonly #stream: ByteStream;
  readonly #owner: LinkOwner;
  readonly #message = new Message();

  readonly #in: number;
  #start = 0;
  #end = 0;
  #receiving = false;
  /** Receives go straight to the payload of the message at `#start`. */
  #payload = 0;
  #payloadDone = 0;
  #inPayload = false;
  #held = false;

  readonly #out: number;
  #outEnd = 0;
  readonly #pieces = new Uint32Array(2 * PIECES_MAX);
  #pieceCount = 0;
  /** The last piece is of this buffer and ends at #outEnd, so that the next header continues it. */
  #lastIsOut = false;
  #sending = false;
  #tickAsked = false;
  #closing = false;
  #reason = "";

  /**
   * The stream is the link's from then on. Null: the pool has no room for its buffers; the stream is closed, and
   * `lost` is told.
   */
  static open(environment: LinkEnvironment, stream: ByteStream, owner: LinkOwner): Link | null {
    const { pool } = environment;
    const incoming = pool.allocate(LINK_BUFFER_BYTES);
    const outgoing = incoming < 0 ? -1 : pool.allocate(LINK_BUFFER_BYTES);
    if (outgoing >= 0) return new Link(environment, stream, owner, incoming, outgoing);
    if (incoming >= 0) pool.free(incoming);
    stream.setListener({
      streamReceived: () => undefined,
      streamSent: () => undefined,
      streamClosed: () => owner.lost("no memory for a connection"),
    });
    stream.close();
    return null;
  }

  private constructor(
    environment: LinkEnvironment,
    stream: ByteStream,
    owner: LinkOwner,
    incoming: number,
    outgoing: number,
  ) {
    this.#environment = environment;
    this.#stream = stream;
    this.#owner = owner;
    this.#in = incoming;
    this.#out = outgoing;
    stream.setListener(this);
    this.#receive();
  }

  get closing(): boolean {
    return this.#closing;
  }

  /** A send is in flight: what it names may not be reused. */
  get sending(): boolean {
    return this.#sending;
  }

  /** Ends the link: what has arrived and was not handled is thrown away. */
  close(reason: string): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#reason = reason;
    this.#stream.close();
  }

  // ---- Receiving ---------------------------------------------------------------------------------------

  /** Memory may be there for a payload that was held back. */
  resume(): void {
    if (!this.#held || this.#closing) return;
    this.#held = false;
    this.#parse();
    this.#receive();
  }

  streamReceived(result: number): void {
    this.#receiving = false;
    if (this.#closing) return;
    if (result <= 0) {
      this.close(result === 0 ? "the peer ended the connection" : `the connection broke (errno ${-result})`);
      return;
    }
    if (this.#inPayload) {
      this.#payloadDone += result;
      if (this.#payloadDone === this.#message.payloadBytes) {
        this.#inPayload = false;
        this.#deliver(this.#payload);
        // Whatever followed the header in the buffer was part of the payload.
        this.#start = 0;
        this.#end = 0;
      }
    } else {
      this.#end += result;
      this.#parse();
    }
    this.#receive();
  }

  #receive(): void {
    if (this.#receiving || this.#closing || this.#held) return;
    this.#receiving = true;
    if (this.#inPayload) {
      const left = this.#message.payloadBytes - this.#payloadDone;
      this.#stream.receive(this.#payload + this.#payloadDone, left);
      return;
    }
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
    } else if (this.#start > 0 && this.#end > LINK_BUFFER_BYTES / 2) {
      const { bytes } = this.#environment.pool;
      bytes.copyWithin(this.#in, this.#in + this.#start, this.#in + this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    this.#stream.receive(this.#in + this.#end, LINK_BUFFER_BYTES - this.#end);
  }

  /** Handles whole messages; stops at the first that is not, or whose payload has nowhere to go. */
  #parse(): void {
    const { pool, checksums } = this.#environment;
    const m = this.#message;
    while (!this.#closing && this.#end - this.#start >= HEADER_BYTES) {
      const at = this.#in + this.#start;
      const fault = decode(pool.view, at, m);
      if (fault !== null) {
        this.close(fault);
        return;
      }
      const whole = HEADER_BYTES + m.bodyBytes;
      if (this.#end - this.#start < whole) return;
      if (!verify(pool.view, checksums, at, m.bodyBytes)) {
        this.close("a message was damaged on its way");
        return;
      }
      if (m.payloadBytes > 0 && !this.#takePayload(whole)) return;
      if (m.payloadBytes === 0) {
        this.#deliver(0);
        this.#start += whole;
      }
    }
  }

  /** False when the rest of the payload has to be waited for. */
  #takePayload(whole: number): boolean {
    const m = this.#message;
    const memory = this.#owner.payloadFor(m);
    if (memory === HOLD_BACK) {
      this.#held = true;
      return false;
    }
    if (memory === REFUSE) {
      this.close("a payload that nobody asked for");
      return false;
    }
    const from = this.#start + whole;
    const there = Math.min(this.#end - from, m.payloadBytes);
    this.#environment.pool.bytes.copyWithin(memory, this.#in + from, this.#in + from + there);
    this.#payload = memory;
    this.#payloadDone = there;
    if (there < m.payloadBytes) {
      this.#inPayload = true;
      return false;
    }
    this.#deliver(memory);
    this.#start = from + there;
    return true;
  }

  #deliver(payload: number): void {
    const fault = this.#owner.received(this.#message, this.#in + this.#start + HEADER_BYTES, payload);
    if (fault !== null) this.close(fault);
  }

  // ---- Sending -----------------------------------------------------------------------------------------

  /** The owner has something to send: `fill` is called at the end of this batch, or after the send in flight. */
  wantSend(): void {
    if (this.#tickAsked || this.#sending || this.#closing) return;
    this.#tickAsked = true;
    this.#environment.ticker.atTickEnd(this);
  }

  tick(): void {
    this.#tickAsked = false;
    if (this.#sending || this.#closing) return;
    this.#outEnd = 0;
    this.#pieceCount = 0;
    this.#lastIsOut = false;
    this.#owner.fill();
    // What `fill` found may have made the owner end the link.
    if (this.#pieceCount === 0 || this.#closing) return;
    this.#sending = true;
    this.#stream.send(this.#pieces, this.#pieceCount);
  }

  /** Room for a header and a body: offset of the header, or −1. Only within `fill`. */
  reserve(bodyBytes: number): number {
    if (this.#pieceCount + 2 > PIECES_MAX) return -1;
    if (this.#outEnd + HEADER_BYTES + bodyBytes > LINK_BUFFER_BYTES) return -1;
    return this.#out + this.#outEnd;
  }

  /** The message at what `reserve` returned is complete; `payload` is sent from where it is. */
  commit(m: Message, payload: number): void {
    const { pool, checksums } = this.#environment;
    const at = this.#out + this.#outEnd;
    encode(pool.view, checksums, at, m);
    const length = HEADER_BYTES + m.bodyBytes;
    if (this.#lastIsOut) this.#pieces[2 * this.#pieceCount - 1]! += length;
    else this.#addPiece(at, length);
    this.#outEnd += length;
    this.#lastIsOut = m.payloadBytes === 0;
    if (m.payloadBytes > 0) this.#addPiece(payload, m.payloadBytes);
  }

  #addPiece(offset: number, length: number): void {
    this.#pieces[2 * this.#pieceCount] = offset;
    this.#pieces[2 * this.#pieceCount + 1] = length;
    this.#pieceCount++;
  }

  streamSent(result: number): void {
    this.#sending = false;
    this.#owner.sent();
    if (this.#closing) return;
    if (result < 0) this.close(`the connection broke (errno ${-result})`);
    else this.wantSend();
  }

  streamClosed(): void {
    const { pool } = this.#environment;
    pool.free(this.#in);
    pool.free(this.#out);
    this.#owner.lost(this.#reason);
  }
}
