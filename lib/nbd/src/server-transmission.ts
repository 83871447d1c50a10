/**
 * The server's side of the transmission phase as a stream: bytes in, legal requests and their payload out.
 * Payload bytes are handed on where they lie, never collected. A server that reads payload straight into
 * its final place uses `decodeRequest` and `validateRequest` itself; this machine is those two and the
 * bookkeeping between them.
 *
 *   header ──► payload ───► header      WRITE: the bytes go to the listener
 *      │  └──► contexts ──► header      BLOCK_STATUS with PAYLOAD_LEN: judged once it is there
 *      │  └──► draining ──► header      a refused request's payload is thrown away
 *      ├──► left                        NBD_CMD_DISC: finish what is in flight, then close
 *      └──► dead                        drop the connection; `reason` says why
 *
 * Invariants
 *  1. Fed one byte at a time or all at once: the same calls, payload slices joined.
 *  2. Every request ends in exactly one `requestDone` or `requestRefused`, in order of arrival, after its
 *     last payload byte.
 *  3. In `left` and `dead` not one more byte is taken.
 */
import {
  NBD_BLOCK_STATUS_PAYLOAD_BYTES,
  NBD_CMD_BLOCK_STATUS,
  NBD_CONTEXT_ID_BYTES,
  NBD_EXTENDED_REQUEST_BYTES,
} from "./constants.js";
import type { Negotiated } from "./export.js";
import { ReplyMode } from "./reply.js";
import { BAD_MAGIC, decodeRequest, RequestHeader, requestBytes } from "./request.js";
import {
  BlockStatusPayload,
  parseBlockStatusPayload,
  type TransmissionRules,
  type Verdict,
  VerdictAction,
  validateRequest,
} from "./validate.js";

export type ServerTransmissionState = "header" | "payload" | "contexts" | "draining" | "left" | "dead";

/** Told of what arrives. Everything passed is valid during the call only. */
export interface RequestListener {
  /** A legal WRITE begins; `header.payloadLength` bytes follow through `payload`. */
  writeBegins(header: RequestHeader): void;
  /** The next bytes of the WRITE that began: `bytes[start … end − 1]`. */
  payload(bytes: Uint8Array, start: number, end: number): void;
  /**
   * A legal request is complete. `filter` is there for a BLOCK_STATUS that names its contexts: its `length`
   * is the effect length and its `ids` are the contexts to answer.
   */
  requestDone(header: RequestHeader, filter: BlockStatusPayload | null): void;
  /** An illegal request has been consumed: answer with `verdict.errno` and `verdict.textBytes`. */
  requestRefused(header: RequestHeader, verdict: Verdict): void;
}

export class ServerTransmission {
  /** Whoever owns the session may change size and shutdown here at any time. */
  readonly rules: TransmissionRules;
  readonly #listener: RequestListener;
  readonly #extended: boolean;
  readonly #contextIds: readonly number[];
  readonly #header = new RequestHeader();
  readonly #filter: BlockStatusPayload;
  /** Bytes of a header, or of a context list, that arrived in parts. */
  readonly #part: Uint8Array;
  readonly #partView: DataView;
  #have = 0;
  /** Payload bytes that are still to come. */
  #left = 0;
  #verdict: Verdict | null = null;
  #state: ServerTransmissionState = "header";
  #reason = "";

  constructor(negotiated: Negotiated, rules: TransmissionRules, listener: RequestListener) {
    this.rules = rules;
    this.#listener = listener;
    this.#extended = negotiated.mode === ReplyMode.Extended;
    this.#contextIds = negotiated.contexts.map(({ id }) => id);
    this.#filter = new BlockStatusPayload(this.#contextIds.length);
    const list = NBD_BLOCK_STATUS_PAYLOAD_BYTES + NBD_CONTEXT_ID_BYTES * this.#contextIds.length;
    this.#part = new Uint8Array(Math.max(NBD_EXTENDED_REQUEST_BYTES, list));
    this.#partView = new DataView(this.#part.buffer);
  }

  get state(): ServerTransmissionState {
    return this.#state;
  }

  /** One sentence: why the machine is `dead`; empty otherwise. */
  get reason(): string {
    return this.#reason;
  }

  /** Takes bytes `start … end − 1`; returns how many, which is fewer only in `left` and `dead`. */
  feed(bytes: Uint8Array, start = 0, end: number = bytes.length): number {
    let at = start;
    while (at < end && this.#state !== "left" && this.#state !== "dead") {
      at += this.#state === "header" ? this.#takeHeader(bytes, at, end) : this.#takePayload(bytes, at, end);
    }
    return at - start;
  }

  #takeHeader(bytes: Uint8Array, at: number, end: number): number {
    const count = Math.min(end - at, requestBytes(this.#extended) - this.#have);
    this.#part.set(bytes.subarray(at, at + count), this.#have);
    this.#have += count;
    const size = decodeRequest(this.#partView, 0, this.#have, this.#extended, this.#header);
    if (size === BAD_MAGIC) this.#die("a request does not begin with its magic");
    else if (size > 0) this.#headerDone();
    return count;
  }

  #headerDone(): void {
    const header = this.#header;
    this.#have = 0;
    this.#left = header.payloadLength;
    const verdict = validateRequest(header, this.rules);
    switch (verdict.action) {
      case VerdictAction.Leave:
        this.#state = "left";
        return;
      case VerdictAction.Drop:
        this.#die(verdict.text);
        return;
      case VerdictAction.Refuse:
        this.#verdict = verdict;
        this.#state = "draining";
        break;
      case VerdictAction.Execute:
        this.#verdict = null;
        if (header.payloadLength === 0) this.#state = "payload";
        else if (header.type === NBD_CMD_BLOCK_STATUS) this.#state = "contexts";
        else {
          this.#state = "payload";
          this.#listener.writeBegins(header);
        }
        break;
    }
    if (this.#left === 0) this.#requestDone();
  }

  #takePayload(bytes: Uint8Array, at: number, end: number): number {
    const count = Math.min(end - at, this.#left);
    if (this.#state === "payload") this.#listener.payload(bytes, at, at + count);
    else if (this.#state === "contexts") {
      this.#part.set(bytes.subarray(at, at + count), this.#have);
      this.#have += count;
    }
    this.#left -= count;
    if (this.#left === 0) this.#requestDone();
    return count;
  }

  #requestDone(): void {
    const header = this.#header;
    let filter: BlockStatusPayload | null = null;
    if (this.#state === "contexts") {
      filter = this.#filter;
      const view = this.#partView;
      const verdict = parseBlockStatusPayload(view, 0, header, this.rules, this.#contextIds, filter);
      this.#verdict = verdict.action === VerdictAction.Execute ? null : verdict;
    }
    this.#have = 0;
    this.#state = "header";
    if (this.#verdict === null) this.#listener.requestDone(header, filter);
    else this.#listener.requestRefused(header, this.#verdict);
  }

  #die(reason: string): void {
    this.#state = "dead";
    this.#reason = reason;
  }
}
