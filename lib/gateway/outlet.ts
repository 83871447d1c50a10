/**
 * Replies of one connection: gathered while the batch runs, sent by one `send` at its end.
 *
 * Invariants
 *  1. One send is in flight at most; what is finished meanwhile is the next batch.
 *  2. Headers are written into the home's header page, which belongs to the stream until `sent`. Payloads
 *     stay where the volume put them, and their pieces are kept until `sent`.
 *  3. The bytes of one chunk or simple reply are contiguous on the wire: while a reply of many pieces is
 *     under way (`#whole`), nothing else is written.
 *  4. A reply is only ever written to the connection that asked: pieces know their command, commands their
 *     connection's cookie, and both die with it.
 */
import {
  blockStatusBytes,
  DATA_HEADER_BYTES_MAX,
  encodeBlockStatus,
  encodeError,
  encodeErrorOffset,
  encodeNone,
  encodeOffsetData,
  encodeOffsetHole,
  encodeSimpleReply,
  encodeSuccess,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_OFFSET_HOLE_BYTES,
  NBD_REPLY_FLAG_DONE,
  NBD_SUCCESS,
  REPLY_BYTES_MAX,
  ReplyMode,
} from "nbd-protocol-ts";
import { assert } from "../core/assert.js";
import type { Clock } from "../core/clock.js";
import { BLOCK_BYTES, PIECE_BYTES } from "../core/limits.js";
import type { Pool } from "../core/pool.js";
import type { ByteStream } from "../core/stream.js";
import { Answer, type Command, Origin, type Piece } from "./command.js";
import type { Counters } from "./counters.js";
import { GATHER_MAX, HOLES_PER_PIECE_MAX, HOME_HEADERS, ZEROS_BYTES } from "./limits.js";

const HEADER_PAGE_BYTES = BLOCK_BYTES;
/** Headers of one piece that is cut into chunks at its holes. */
const CHUNKS_PER_PIECE_MAX = 2 * HOLES_PER_PIECE_MAX + 1;
const CHUNKED_HEADER_BYTES_MAX = CHUNKS_PER_PIECE_MAX * (DATA_HEADER_BYTES_MAX + NBD_OFFSET_HOLE_BYTES);
const CHUNKED_ENTRIES_MAX = 2 * CHUNKS_PER_PIECE_MAX;
/** Entries of one piece of zeros, plus a header before and after. */
const ZERO_ENTRIES_MAX = 2 + PIECE_BYTES / ZEROS_BYTES;

assert(CHUNKED_HEADER_BYTES_MAX <= HEADER_PAGE_BYTES, "the chunks of one piece fit the header page");
assert(REPLY_BYTES_MAX <= HEADER_PAGE_BYTES, "any one reply fits the header page");
assert(CHUNKED_ENTRIES_MAX <= GATHER_MAX && ZERO_ENTRIES_MAX <= GATHER_MAX, "any one piece fits one send");

/** What the connections of one thread share for sending: used within one call, so one of each is enough. */
export class SendScratch {
  readonly gather: Uint32Array = new Uint32Array(2 * GATHER_MAX);
  /** Pool offset of ZEROS_BYTES zero bytes that nobody writes. */
  readonly zeros: number;
  readonly oneRun: Float64Array = new Float64Array(2);

  constructor(zeros: number) {
    this.zeros = zeros;
  }
}

export interface OutletOwner {
  /** A piece's bytes are no longer needed: give its memory back and free it. */
  pieceSent(piece: Piece): void;
  /** `count` commands are over, their last bytes taken by the stream. */
  commandsSent(count: number): void;
  /** A reply that was begun cannot be finished truly: end the connection now (proto.md, NBD_CMD_READ). */
  replyBroken(): void;
}

export class Outlet {
  readonly #stream: ByteStream;
  readonly #pool: Pool;
  readonly #headers: number;
  readonly #mode: ReplyMode;
  /** Ids of the session's metadata contexts; the only one answered is base:allocation. */
  readonly #contextIds: readonly number[];
  readonly #scratch: SendScratch;
  readonly #counters: Counters;
  readonly #clock: Clock;
  readonly #owner: OutletOwner;
  /** Pieces whose turn has come, oldest first. */
  #head: Piece | null = null;
  #tail: Piece | null = null;
  /** Pieces whose memory is in the send in flight. */
  #inSend: Piece | null = null;
  #commandsInSend = 0;
  #sending = false;
  /** Answer.Whole command whose reply is under way, and its next piece that has not been written. */
  #whole: Command | null = null;
  #wholeNext: Piece | null = null;
  #wholeBytes = 0;
  #broken = false;
  // Of the batch being built.
  #entries = 0;
  #headerBytes = 0;
  #now = 0;

  constructor(
    stream: ByteStream,
    pool: Pool,
    home: number,
    mode: ReplyMode,
    contextIds: readonly number[],
    scratch: SendScratch,
    counters: Counters,
    clock: Clock,
    owner: OutletOwner,
  ) {
    this.#stream = stream;
    this.#pool = pool;
    this.#headers = home + HOME_HEADERS;
    this.#mode = mode;
    this.#contextIds = contextIds;
    this.#scratch = scratch;
    this.#counters = counters;
    this.#clock = clock;
    this.#owner = owner;
  }

  /** Nothing to send and nothing in flight. */
  get idle(): boolean {
    return !this.#sending && this.#head === null && this.#whole === null;
  }

  get sending(): boolean {
    return this.#sending;
  }

  /** `piece` carries the next reply, or the next chunk or part of one. */
  push(piece: Piece): void {
    if (piece.command === this.#whole) {
      assert(this.#wholeNext === null, "a streamed reply has one piece at a time");
      this.#wholeNext = piece;
      return;
    }
    piece.next = null;
    if (this.#tail === null) this.#head = piece;
    else this.#tail.next = piece;
    this.#tail = piece;
  }

  /** Sends what is there. Called at the end of a batch; does nothing while a send is in flight. */
  flush(): void {
    if (this.#sending || this.#broken || (this.#head === null && this.#whole === null)) return;
    this.#entries = 0;
    this.#headerBytes = 0;
    this.#now = this.#clock.now();
    this.#gather();
    if (this.#broken) {
      this.#owner.replyBroken();
      return;
    }
    if (this.#entries === 0) return;
    this.#sending = true;
    this.#counters.sends++;
    this.#stream.send(this.#scratch.gather, this.#entries);
  }

  /** The send in flight was taken, or has failed: either way its memory is ours again. */
  sent(): void {
    this.#sending = false;
    let piece = this.#inSend;
    this.#inSend = null;
    while (piece !== null) {
      const next = piece.next as Piece | null;
      this.#owner.pieceSent(piece);
      piece = next;
    }
    const count = this.#commandsInSend;
    this.#commandsInSend = 0;
    if (count > 0) this.#owner.commandsSent(count);
  }

  /** Drops what is not in the stream's hands. The send in flight is ended by `sent`. */
  abandon(): void {
    this.#broken = true;
    let piece = this.#head;
    this.#head = null;
    this.#tail = null;
    while (piece !== null) {
      const next = piece.next as Piece | null;
      this.#dropWithSiblings(piece);
      piece = next;
    }
    const rest = this.#wholeNext;
    this.#whole = null;
    this.#wholeNext = null;
    if (rest !== null) this.#dropWithSiblings(rest);
  }

  /** A gathered reply waits as its first piece: the others hang on it. */
  #dropWithSiblings(first: Piece): void {
    let piece: Piece | null = first;
    while (piece !== null) {
      const sibling: Piece | null = piece.sibling;
      this.#owner.pieceSent(piece);
      piece = sibling;
    }
  }

  // ---- Building one batch -------------------------------------------------------------------------------

  #gather(): void {
    for (;;) {
      if (this.#whole !== null && !this.#continueWhole()) return;
      const piece = this.#head;
      if (piece === null || !this.#fits(piece)) return;
      this.#head = piece.next as Piece | null;
      if (this.#head === null) this.#tail = null;
      this.#write(piece);
      if (this.#broken) return;
    }
  }

  /** Whether the worst that `piece` can come to has room in this batch. */
  #fits(piece: Piece): boolean {
    const { command } = piece;
    let bytes = DATA_HEADER_BYTES_MAX + NBD_OFFSET_HOLE_BYTES;
    let entries = 3;
    if (command.status !== 0) {
      bytes = REPLY_BYTES_MAX;
    } else if (command.answer === Answer.Chunks && piece.allocatedBytes > BLOCK_BYTES) {
      bytes = CHUNKED_HEADER_BYTES_MAX;
      entries = CHUNKED_ENTRIES_MAX;
    } else if (command.answer === Answer.Map) {
      bytes = blockStatusBytes(this.#mode, 1) * Math.max(1, this.#contextIds.length);
    }
    return this.#headerBytes + bytes <= HEADER_PAGE_BYTES && this.#entries + entries <= GATHER_MAX;
  }

  #write(piece: Piece): void {
    const { command } = piece;
    switch (command.answer) {
      case Answer.Status:
        this.#writeEnd(command);
        this.#owner.pieceSent(piece);
        break;
      case Answer.Chunks:
        this.#writeChunk(command, piece);
        break;
      case Answer.Whole:
        this.#writeWhole(command, piece);
        break;
      case Answer.Map:
        this.#writeMap(command, piece);
        break;
    }
  }

  /** Success of a command without payload, or the error of any. */
  #writeEnd(command: Command): void {
    const { view } = this.#pool;
    const at = this.#headers + this.#headerBytes;
    let bytes: number;
    if (command.status === 0) {
      bytes = encodeSuccess(view, at, this.#mode, command);
    } else if (this.#mode !== ReplyMode.Simple && command.errorOffset >= 0) {
      const { status, text, errorOffset } = command;
      const done = NBD_REPLY_FLAG_DONE;
      bytes = encodeErrorOffset(view, at, this.#mode, command, done, status, text, errorOffset);
    } else {
      bytes = encodeError(view, at, this.#mode, command, command.status, command.text);
    }
    this.#addHeader(bytes);
    this.#count(command);
  }

  #writeChunk(command: Command, piece: Piece): void {
    if (command.status !== 0) {
      // Bytes of a read that failed elsewhere are not worth their way.
      if (piece.last) this.#writeEnd(command);
      this.#owner.pieceSent(piece);
      return;
    }
    const flags = piece.last ? NBD_REPLY_FLAG_DONE : 0;
    if (piece.allHole) {
      this.#writeHole(command, flags, piece.offset, piece.length);
    } else {
      this.#writeExtents(command, piece, flags);
    }
    if (piece.last) this.#count(command);
    this.#keepUntilSent(piece);
  }

  /** Cuts a piece into chunks of data and of holes that are long enough to be worth a header. */
  #writeExtents(command: Command, piece: Piece, flags: number): void {
    const firstBlock = Math.floor(piece.offset / BLOCK_BYTES);
    const end = piece.offset + piece.length;
    const blocks = Math.ceil(end / BLOCK_BYTES) - firstBlock;
    // With this bound there are never more than HOLES_PER_PIECE_MAX holes, in a short piece any hole counts.
    const shortest = Math.max(1, Math.ceil(blocks / HOLES_PER_PIECE_MAX));
    let from = piece.offset;
    let block = 0;
    while (block < blocks) {
      if (isPresent(piece, block)) {
        block++;
        continue;
      }
      let until = block + 1;
      while (until < blocks && !isPresent(piece, until)) until++;
      if (until - block >= shortest) {
        const holeFrom = Math.max(piece.offset, (firstBlock + block) * BLOCK_BYTES);
        const holeEnd = Math.min(end, (firstBlock + until) * BLOCK_BYTES);
        if (holeFrom > from) this.#writeData(command, piece, 0, from, holeFrom - from);
        this.#writeHole(command, holeEnd === end ? flags : 0, holeFrom, holeEnd - holeFrom);
        from = holeEnd;
      }
      block = until;
    }
    if (from < end) this.#writeData(command, piece, flags, from, end - from);
  }

  #writeData(command: Command, piece: Piece, flags: number, from: number, length: number): void {
    const at = this.#headers + this.#headerBytes;
    this.#addHeader(encodeOffsetData(this.#pool.view, at, this.#mode, command, flags, from, length));
    this.#addEntry(piece.memory + (piece.offset % BLOCK_BYTES) + (from - piece.offset), length);
  }

  #writeHole(command: Command, flags: number, from: number, length: number): void {
    const at = this.#headers + this.#headerBytes;
    this.#addHeader(encodeOffsetHole(this.#pool.view, at, this.#mode, command, flags, from, length));
  }

  #writeMap(command: Command, piece: Piece): void {
    if (command.status !== 0) {
      this.#writeEnd(command);
      this.#owner.pieceSent(piece);
      return;
    }
    if (piece.answerBytes > 0) this.#addEntry(piece.memory, piece.answerBytes);
    else this.#writeShortMap(command, piece);
    this.#count(command);
    this.#keepUntilSent(piece);
  }

  /** There was no memory for all descriptors: the first one is an answer too, the client asks for the rest. */
  #writeShortMap(command: Command, piece: Piece): void {
    const { oneRun } = this.#scratch;
    oneRun[0] = piece.length;
    oneRun[1] = piece.flags;
    const count = this.#contextIds.length;
    for (let i = 0; i < count; i++) {
      if ((command.contexts & (1 << i)) === 0) continue;
      const at = this.#headers + this.#headerBytes;
      const done = command.contexts >>> (i + 1) === 0 ? NBD_REPLY_FLAG_DONE : 0;
      const room = blockStatusBytes(this.#mode, 1);
      const one = (command.flags & NBD_CMD_FLAG_REQ_ONE) !== 0;
      const { view } = this.#pool;
      const id = this.#contextIds[i]!;
      const { length } = command;
      const mode = this.#mode;
      this.#addHeader(encodeBlockStatus(view, at, room, mode, command, done, id, oneRun, 1, length, one));
    }
  }

  // ---- Replies of one header and many pieces ------------------------------------------------------------

  #writeWhole(command: Command, piece: Piece): void {
    if (command.status !== 0) {
      this.#writeEnd(command);
      this.#dropWithSiblings(piece);
      return;
    }
    const { view } = this.#pool;
    const at = this.#headers + this.#headerBytes;
    if (this.#mode === ReplyMode.Simple) {
      this.#addHeader(encodeSimpleReply(view, at, command, NBD_SUCCESS));
    } else {
      // A chunk that is begun before all is read must not say that no error can follow.
      const flags = command.streamed ? 0 : NBD_REPLY_FLAG_DONE;
      const { offset, length } = command;
      this.#addHeader(encodeOffsetData(view, at, this.#mode, command, flags, offset, length));
    }
    command.headerSent = true;
    this.#whole = command;
    this.#wholeNext = piece;
    this.#wholeBytes = 0;
    this.#continueWhole();
  }

  /** True when the reply is complete; false when the batch is full or the next piece is not there yet. */
  #continueWhole(): boolean {
    const command = this.#whole!;
    while (this.#wholeNext !== null) {
      const piece = this.#wholeNext;
      if (command.status !== 0) {
        this.#broken = true;
        return false;
      }
      if (this.#entries + ZERO_ENTRIES_MAX > GATHER_MAX) return false;
      this.#wholeNext = piece.sibling;
      piece.sibling = null;
      if (piece.allHole) this.#addZeros(piece.length);
      else this.#addEntry(piece.memory + (piece.offset % BLOCK_BYTES), piece.length);
      this.#wholeBytes += piece.length;
      // Also one without memory: it keeps the command alive to the end of its reply.
      piece.next = this.#inSend;
      this.#inSend = piece;
    }
    if (this.#wholeBytes < command.length) return false;
    return this.#endWhole(command);
  }

  #endWhole(command: Command): boolean {
    if (command.streamed && this.#mode !== ReplyMode.Simple) {
      const bytes = DATA_HEADER_BYTES_MAX;
      if (this.#headerBytes + bytes > HEADER_PAGE_BYTES || this.#entries >= GATHER_MAX) return false;
      const at = this.#headers + this.#headerBytes;
      this.#addHeader(encodeNone(this.#pool.view, at, this.#mode, command));
    }
    this.#whole = null;
    this.#count(command);
    return true;
  }

  // ---- Entries ------------------------------------------------------------------------------------------

  #addHeader(bytes: number): void {
    this.#addEntry(this.#headers + this.#headerBytes, bytes);
    this.#headerBytes += bytes;
  }

  #addZeros(length: number): void {
    for (let left = length; left > 0; left -= ZEROS_BYTES) {
      this.#addEntry(this.#scratch.zeros, Math.min(left, ZEROS_BYTES));
    }
  }

  /** What continues the entry before it joins it: a batch of short replies is one entry. */
  #addEntry(offset: number, length: number): void {
    const { gather } = this.#scratch;
    const last = 2 * (this.#entries - 1);
    if (last >= 0 && gather[last]! + gather[last + 1]! === offset) {
      gather[last + 1]! += length;
      return;
    }
    gather[last + 2] = offset;
    gather[last + 3] = length;
    this.#entries++;
  }

  /** Memory that the send names is kept; a piece without any is over now. */
  #keepUntilSent(piece: Piece): void {
    if (piece.origin === Origin.None || piece.allHole) {
      this.#owner.pieceSent(piece);
      return;
    }
    piece.next = this.#inSend;
    this.#inSend = piece;
  }

  #count(command: Command): void {
    this.#commandsInSend++;
    const microseconds = Math.max(0, Math.round((this.#now - command.receivedAt) * 1000));
    this.#counters.answered(command.type, command.status, command.length, microseconds);
  }
}

/** Whether block `block` of those that enclose the piece has bytes. */
function isPresent(piece: Piece, block: number): boolean {
  return ((piece.present[block >>> 5]! >>> (block & 31)) & 1) !== 0;
}
