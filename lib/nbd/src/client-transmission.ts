/**
 * The client's side of the transmission phase: requests out, replies in, every rule checked that a server
 * has to keep. A reply that breaks one makes the machine `dead`, with the rule in `reason`; so this is also
 * the oracle of the tests.
 *
 *   header ──► offset ──► data ──► header      OFFSET_DATA, or `data` at once behind a simple READ reply
 *      │  └──► payload ──────────► header      holes, errors, block status
 *      └──► dead                               (from every state)
 *
 * Invariants
 *  1. Fed one byte at a time or all at once: the same calls, data slices joined.
 *  2. Every request ends in exactly one `requestDone`, and is not touched between that call's return and
 *     its reuse.
 *  3. A READ that succeeds was covered exactly once, by chunks inside the request.
 *  4. Memory is bounded by the requests in flight and by the longest chunk that is not data.
 */
import {
  NBD_BLOCK_DESCRIPTOR_EXT_BYTES,
  NBD_BLOCK_STATUS_EXT_BYTES,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_READ,
  NBD_EXTENDED_REPLY_BYTES,
  NBD_MAX_DESCRIPTORS,
  NBD_OFFSET_DATA_BYTES,
  NBD_OFFSET_HOLE_BYTES,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR_BIT,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_SUCCESS,
} from "./constants.js";
import type { Negotiated } from "./export.js";
import { chunkName, commandName } from "./names.js";
import { ReplyMode } from "./reply.js";
import {
  decodeReply,
  ERROR_CHUNK_BYTES_MAX,
  parseBlockStatus,
  parseErrorChunk,
  ReplyHeader,
} from "./reply-decoder.js";
import { BAD_MAGIC, encodeRequest, requestBytes } from "./request.js";
import { NO_BYTES } from "./text.js";
import { getU64, SIZE_BYTES_MAX } from "./wire.js";

const BLOCK_STATUS_CHUNK_BYTES_MAX =
  NBD_BLOCK_STATUS_EXT_BYTES + NBD_MAX_DESCRIPTORS * NBD_BLOCK_DESCRIPTOR_EXT_BYTES;

/** A request in flight. The machine owns a fixed number of them and uses them again. */
export class ClientRequest {
  /** Half of the cookie: which of the machine's requests this is. */
  readonly index: number;
  type = 0;
  flags = 0;
  offset = 0;
  /** Effect length in bytes. */
  length = 0;
  /** Result: 0 or the error number of the first error that was reported. */
  errno = NBD_SUCCESS;
  /** What the server said with it. */
  errorText = "";
  /** The asker's own. */
  tag = 0;
  /** Half of the cookie: counts the uses, so that a reply to an earlier one is not taken for this. */
  use = 0;
  busy = false;
  /** Disjoint pairs (start, end), ascending: what content and holes have covered so far. */
  readonly covered: number[] = [];
  /** Contexts that were answered so far. */
  readonly answered: number[] = [];
  contentChunks = 0;
  /** Contexts that the request asked about; 0 for every one of the session. */
  askedContexts = 0;

  constructor(index: number) {
    this.index = index;
  }
}

export interface ReplyListener {
  /** `bytes[start … end − 1]` are the content of the export from `offset` on. */
  readData(request: ClientRequest, offset: number, bytes: Uint8Array, start: number, end: number): void;
  /** `length` bytes from `offset` read as zeroes. */
  readHole(request: ClientRequest, offset: number, length: number): void;
  /** Block status of one context: pairs of (length, flags) from the request's offset on. */
  blockStatus(request: ClientRequest, contextId: number, runs: Float64Array): void;
  /** The request is over; `request.errno` says how. */
  requestDone(request: ClientRequest): void;
}

type State = "header" | "offset" | "data" | "payload" | "dead";

export class ClientTransmission {
  readonly #mode: ReplyMode;
  readonly #contextIds: readonly number[];
  readonly #listener: ReplyListener;
  readonly #requests: ClientRequest[] = [];
  readonly #free: ClientRequest[] = [];
  readonly #header = new ReplyHeader();
  readonly #part = new Uint8Array(NBD_EXTENDED_REPLY_BYTES);
  readonly #partView = new DataView(this.#part.buffer);
  #payload: Uint8Array = NO_BYTES;
  #have = 0;
  #want = 0;
  #request: ClientRequest | null = null;
  /** Where the next data byte belongs, and how many are to come. */
  #dataOffset = 0;
  #dataLeft = 0;
  #state: State = "header";
  #reason = "";

  /** `depth`: requests that can be in flight at once. */
  constructor(negotiated: Negotiated, listener: ReplyListener, depth: number) {
    this.#mode = negotiated.mode;
    this.#contextIds = negotiated.contexts.map(({ id }) => id);
    this.#listener = listener;
    for (let index = depth - 1; index >= 0; index--) {
      const request = new ClientRequest(index);
      this.#requests[index] = request;
      this.#free.push(request);
    }
  }

  get dead(): boolean {
    return this.#state === "dead";
  }

  /** One sentence: which rule the server broke; empty while the machine lives. */
  get reason(): string {
    return this.#reason;
  }

  get inFlight(): number {
    return this.#requests.length - this.#free.length;
  }

  /** Bytes that `begin` and `disconnect` write. */
  get requestBytes(): number {
    return requestBytes(this.#mode === ReplyMode.Extended);
  }

  /**
   * Writes a request header at `at` and returns the request, or null when as many as `depth` are in flight.
   * A payload is the caller's to add: WRITE always has one (and the flag PAYLOAD_LEN with extended headers).
   * The request may be illegal on purpose. For a BLOCK_STATUS with PAYLOAD_LEN, `payloadLength` is what goes
   * into the header, `length` the effect length, `contexts` the number of ids.
   */
  begin(
    view: DataView,
    at: number,
    type: number,
    flags: number,
    offset: number,
    length: number,
    payloadLength: number = length,
    contexts = 0,
  ): ClientRequest | null {
    const request = this.#free.pop();
    if (request === undefined) return null;
    request.type = type;
    request.flags = flags;
    request.offset = offset;
    request.length = length;
    request.errno = NBD_SUCCESS;
    request.errorText = "";
    request.use = (request.use + 1) >>> 0;
    request.busy = true;
    request.covered.length = 0;
    request.answered.length = 0;
    request.contentChunks = 0;
    request.askedContexts = contexts;
    const extended = this.#mode === ReplyMode.Extended;
    encodeRequest(view, at, extended, flags, type, request.use, request.index, offset, payloadLength);
    return request;
  }

  /** Writes NBD_CMD_DISC. Nothing may be sent after it; there is no reply. */
  disconnect(view: DataView, at: number): number {
    return encodeRequest(view, at, this.#mode === ReplyMode.Extended, 0, NBD_CMD_DISC, 0, 0, 0, 0);
  }

  /** Takes bytes `start … end − 1`; returns how many, which is fewer only when the machine has died. */
  feed(bytes: Uint8Array, start = 0, end: number = bytes.length): number {
    let at = start;
    while (at < end && this.#state !== "dead") at += this.#take(bytes, at, end);
    return at - start;
  }

  #take(bytes: Uint8Array, at: number, end: number): number {
    switch (this.#state) {
      case "header":
        return this.#takeHeader(bytes, at, end);
      case "offset":
        return this.#takeOffset(bytes, at, end);
      case "data":
        return this.#takeData(bytes, at, end);
      case "payload":
        return this.#takePayload(bytes, at, end);
      case "dead":
        return 0;
    }
  }

  #die(reason: string): void {
    this.#state = "dead";
    this.#reason = reason;
    this.#payload = NO_BYTES;
  }

  // ---- Headers ------------------------------------------------------------------------------------------

  #takeHeader(bytes: Uint8Array, at: number, end: number): number {
    const had = this.#have;
    const count = Math.min(end - at, this.#part.length - had);
    this.#part.set(bytes.subarray(at, at + count), had);
    const size = decodeReply(this.#partView, 0, had + count, this.#mode, this.#header);
    if (size === BAD_MAGIC) this.#die("a reply does not begin with a magic that was negotiated");
    if (size <= 0) {
      this.#have = had + count;
      return count;
    }
    this.#have = 0;
    this.#headerDone();
    return size - had;
  }

  #headerDone(): void {
    const header = this.#header;
    const request = this.#requests[header.cookieLow];
    if (request === undefined || !request.busy || request.use !== header.cookieHigh) {
      this.#die("a reply has the cookie of no request in flight");
      return;
    }
    this.#request = request;
    if (header.simple) this.#simpleReply(request);
    else this.#chunk(request);
  }

  #simpleReply(request: ClientRequest): void {
    if (this.#mode === ReplyMode.Structured && request.type === NBD_CMD_READ) {
      this.#die("a simple reply to NBD_CMD_READ where structured replies were negotiated");
      return;
    }
    request.errno = this.#header.errno;
    if (request.type === NBD_CMD_READ && request.errno === NBD_SUCCESS && request.length > 0) {
      this.#expectData(request.offset, request.length);
    } else this.#chunkDone();
  }

  #chunk(request: ClientRequest): void {
    const { type, length } = this.#header;
    if (this.#mode === ReplyMode.Extended && this.#header.offset !== request.offset) {
      this.#die("an extended reply repeats another offset than that of its request");
      return;
    }
    if ((type & NBD_REPLY_TYPE_ERROR_BIT) !== 0) this.#expectPayload(length <= ERROR_CHUNK_BYTES_MAX);
    else if (type === NBD_REPLY_TYPE_NONE) this.#none();
    else if (type === NBD_REPLY_TYPE_OFFSET_DATA && request.type === NBD_CMD_READ) {
      if (length <= NBD_OFFSET_DATA_BYTES || length - NBD_OFFSET_DATA_BYTES > request.length) {
        this.#die("a data chunk is empty or longer than its request");
      } else this.#state = "offset";
    } else if (type === NBD_REPLY_TYPE_OFFSET_HOLE && request.type === NBD_CMD_READ) {
      this.#expectPayload(length === NBD_OFFSET_HOLE_BYTES);
    } else if (type === this.#statusType() && request.type === NBD_CMD_BLOCK_STATUS) {
      this.#expectPayload(length <= BLOCK_STATUS_CHUNK_BYTES_MAX);
    } else this.#die(`${chunkName(type)} in reply to ${commandName(request.type)}`);
  }

  #statusType(): number {
    const extended = this.#mode === ReplyMode.Extended;
    return extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS;
  }

  #none(): void {
    const { flags, length } = this.#header;
    if ((flags & NBD_REPLY_FLAG_DONE) === 0) this.#die("NBD_REPLY_TYPE_NONE without DONE");
    else if (length !== 0) this.#die("NBD_REPLY_TYPE_NONE with a payload");
    else this.#chunkDone();
  }

  // ---- Content of reads ---------------------------------------------------------------------------------

  #takeOffset(bytes: Uint8Array, at: number, end: number): number {
    const count = Math.min(end - at, NBD_OFFSET_DATA_BYTES - this.#have);
    this.#part.set(bytes.subarray(at, at + count), this.#have);
    this.#have += count;
    if (this.#have === NBD_OFFSET_DATA_BYTES) {
      this.#have = 0;
      const offset = getU64(this.#partView, 0);
      const length = this.#header.length - NBD_OFFSET_DATA_BYTES;
      if (this.#cover(offset, length)) this.#expectData(offset, length);
    }
    return count;
  }

  #expectData(offset: number, length: number): void {
    if (this.#header.simple) this.#cover(offset, length);
    this.#dataOffset = offset;
    this.#dataLeft = length;
    this.#state = "data";
  }

  #takeData(bytes: Uint8Array, at: number, end: number): number {
    const count = Math.min(end - at, this.#dataLeft);
    this.#listener.readData(this.#request!, this.#dataOffset, bytes, at, at + count);
    this.#dataOffset += count;
    this.#dataLeft -= count;
    if (this.#dataLeft === 0) this.#chunkDone();
    return count;
  }

  /** Notes that content for a range has come; dies when it lies outside the request or came before. */
  #cover(offset: number, length: number): boolean {
    const request = this.#request!;
    const end = offset + length;
    if (length === 0 || offset < request.offset || end > request.offset + request.length) {
      this.#die("a content chunk lies outside its request");
      return false;
    }
    request.contentChunks++;
    if ((request.flags & NBD_CMD_FLAG_DF) !== 0 && request.contentChunks > 1) {
      this.#die("more than one content chunk in reply to a read with DF");
      return false;
    }
    if (addRange(request.covered, offset, end)) return true;
    this.#die("content chunks overlap");
    return false;
  }

  // ---- Chunks that are collected ------------------------------------------------------------------------

  #expectPayload(legal: boolean): void {
    const { type, length } = this.#header;
    if (!legal) {
      this.#die(`${chunkName(type)} with ${length} bytes of payload`);
      return;
    }
    this.#state = "payload";
    this.#want = length;
    this.#payload = NO_BYTES;
    if (length === 0) this.#payloadDone(this.#payload);
  }

  #takePayload(bytes: Uint8Array, at: number, end: number): number {
    const count = Math.min(end - at, this.#want - this.#have);
    if (this.#have === 0 && count === this.#want) {
      this.#payloadDone(bytes.subarray(at, at + count));
      return count;
    }
    if (this.#payload.length < this.#have + count) this.#growPayload(this.#have + count);
    this.#payload.set(bytes.subarray(at, at + count), this.#have);
    this.#have += count;
    if (this.#have === this.#want) this.#payloadDone(this.#payload.subarray(0, this.#want));
    return count;
  }

  /** Grows with what has really arrived, not with what was announced. */
  #growPayload(least: number): void {
    const grown = new Uint8Array(Math.min(this.#want, Math.max(512, 2 * least)));
    grown.set(this.#payload);
    this.#payload = grown;
  }

  #payloadDone(payload: Uint8Array): void {
    this.#have = 0;
    const { type } = this.#header;
    if ((type & NBD_REPLY_TYPE_ERROR_BIT) !== 0) this.#errorChunk(payload, type);
    else if (type === NBD_REPLY_TYPE_OFFSET_HOLE) this.#holeChunk(payload);
    else this.#statusChunk(payload);
    this.#payload = NO_BYTES;
  }

  #errorChunk(payload: Uint8Array, type: number): void {
    const request = this.#request!;
    const error = parseErrorChunk(payload, type);
    if (error === null) {
      this.#die(`${chunkName(type)} with lengths that contradict one another`);
      return;
    }
    if (error.errno === NBD_SUCCESS) {
      this.#die("an error chunk with error 0");
      return;
    }
    const { offset } = error;
    if (offset !== -1 && (offset < request.offset || offset >= request.offset + request.length)) {
      this.#die("an error chunk with an offset outside its request");
      return;
    }
    if (request.errno === NBD_SUCCESS) {
      request.errno = error.errno;
      request.errorText = error.text;
    }
    this.#chunkDone();
  }

  #holeChunk(payload: Uint8Array): void {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const offset = getU64(view, 0);
    const length = view.getUint32(8);
    if (!this.#cover(offset, length)) return;
    this.#listener.readHole(this.#request!, offset, length);
    this.#chunkDone();
  }

  #statusChunk(payload: Uint8Array): void {
    const request = this.#request!;
    const chunk = parseBlockStatus(payload, this.#mode === ReplyMode.Extended);
    if (chunk === null) {
      this.#die("a malformed block status chunk");
      return;
    }
    const { contextId, runs } = chunk;
    if (!this.#contextIds.includes(contextId)) this.#die("block status of a context that was not selected");
    else if (request.answered.includes(contextId)) this.#die("two block status chunks for one context");
    else if (!runsAreLegal(runs, request)) this.#die("block status descriptors reach too far");
    else {
      request.answered.push(contextId);
      this.#listener.blockStatus(request, contextId, runs);
      this.#chunkDone();
    }
  }

  // ---- End of a chunk -----------------------------------------------------------------------------------

  #chunkDone(): void {
    const request = this.#request!;
    this.#request = null;
    this.#state = "header";
    if ((this.#header.flags & NBD_REPLY_FLAG_DONE) === 0) return;
    if (request.errno === NBD_SUCCESS && !this.#isWhole(request)) return;
    request.busy = false;
    this.#listener.requestDone(request);
    this.#free.push(request);
  }

  /** Whether a reply that claims success has said everything; dies when not. */
  #isWhole(request: ClientRequest): boolean {
    if (request.type === NBD_CMD_READ && request.length > 0) {
      const [start, end] = request.covered;
      const whole =
        request.covered.length === 2 && start === request.offset && end === start + request.length;
      if (!whole) this.#die("a read succeeded without all of its content");
      return whole;
    }
    if (request.type === NBD_CMD_BLOCK_STATUS) {
      const wanted = request.askedContexts === 0 ? this.#contextIds.length : request.askedContexts;
      const whole = request.answered.length === wanted;
      if (!whole) this.#die("a block status request succeeded without a chunk for every context");
      return whole;
    }
    return true;
  }
}

/** Adds [start, end) to ascending disjoint ranges, joined with its neighbours; false when they overlap. */
function addRange(ranges: number[], start: number, end: number): boolean {
  let i = ranges.length;
  while (i > 0 && ranges[i - 2]! >= start) i -= 2;
  // Ranges before i begin before `start`; those from i on begin at or behind it.
  if (i < ranges.length && ranges[i]! < end) return false;
  if (i > 0 && ranges[i - 1]! > start) return false;
  const joinsBefore = i > 0 && ranges[i - 1] === start;
  const joinsAfter = i < ranges.length && ranges[i] === end;
  if (joinsBefore && joinsAfter) ranges.splice(i - 1, 2);
  else if (joinsBefore) ranges[i - 1] = end;
  else if (joinsAfter) ranges[i] = start;
  else ranges.splice(i, 0, start, end);
  return true;
}

function runsAreLegal(runs: Float64Array, request: ClientRequest): boolean {
  const count = runs.length / 2;
  if ((request.flags & NBD_CMD_FLAG_REQ_ONE) !== 0) return count === 1 && runs[0]! <= request.length;
  let before = 0;
  for (let i = 0; i < count - 1; i++) before += runs[2 * i]!;
  return before < request.length && before + runs[2 * (count - 1)]! <= SIZE_BYTES_MAX;
}
