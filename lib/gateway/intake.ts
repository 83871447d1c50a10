/**
 * Receives and parses the requests of one connection.
 *
 * Invariants
 *  1. Received bytes are handled in order and each once: they are a header, payload of the write under way,
 *     or payload to be thrown away.
 *  2. One receive is in flight at most. There is none while a request cannot be admitted or a payload has
 *     nowhere to go: then the peer is held back by its own socket.
 *  3. A write's piece is submitted only when its payload has arrived whole. So what a dead connection had
 *     begun to say is never executed.
 *
 * Buffers: it begins with the page of the home, which is enough for a hundred requests without payload, and
 * grows while receives fill the buffer. The rest of a long payload is received straight into its piece.
 */
import {
  BAD_MAGIC,
  BlockStatusPayload,
  decodeRequest,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_WRITE,
  parseBlockStatusPayload,
  ReplyMode,
  RequestHeader,
  type TransmissionRules,
  type Verdict,
  VerdictAction,
  validateRequest,
} from "nbd-protocol-ts";
import { BLOCK_BYTES, REQUESTS_PER_CONNECTION_MAX } from "../core/limits.js";
import type { ByteStream } from "../core/stream.js";
import type { Volume } from "../volume/api.js";
import { Answer, type Command, type Piece } from "./command.js";
import type { Executor } from "./executor.js";
import {
  DIRECT_RECEIVE_MIN,
  HOME_RECEIVE,
  RECEIVE_BYTES_MAX,
  RECEIVE_SHRINK_AFTER,
  REQUESTS_MAX,
} from "./limits.js";
import type { MemoryUser } from "./memory.js";
import type { GatewayParts } from "./parts.js";
import type { PieceMemory } from "./piece-memory.js";

const HOME_BUFFER_BYTES = BLOCK_BYTES;
const GROWTH = 4;

export interface IntakeOwner extends MemoryUser {
  /** NBD_CMD_DISC, or the end of the stream: finish what is in flight, then close. */
  peerLeft(): void;
  /** The connection broke. */
  peerVanished(): void;
  /** What arrived is no request. */
  peerBroke(reason: string): void;
}

/** What the bytes at the front of the buffer are. */
const Expect = { Header: 0, WritePayload: 1, Discard: 2, StatusPayload: 3, Nothing: 4 } as const;
type Expect = (typeof Expect)[keyof typeof Expect];

const header = new RequestHeader();

export class Intake {
  readonly #stream: ByteStream;
  readonly #parts: GatewayParts;
  readonly #volume: Volume;
  readonly #rules: TransmissionRules;
  readonly #contextIds: readonly number[];
  readonly #statusPayload: BlockStatusPayload;
  readonly #executor: Executor;
  readonly #pieces: PieceMemory;
  readonly #owner: IntakeOwner;
  readonly #home: number;

  #buffer: number;
  #bufferBytes = HOME_BUFFER_BYTES;
  /** Unparsed bytes, relative to the buffer. */
  #start: number;
  #end: number;
  #receiving = false;
  #direct = false;
  #lastCall = false;
  #asked = 0;
  #quiet = 0;
  #wantsLarger = false;

  #expect: Expect = Expect.Header;
  /** The command whose payload comes next; the piece that it goes into; what has not been put anywhere. */
  #command: Command | null = null;
  #piece: Piece | null = null;
  #payloadLeft = 0;
  #inFlight = 0;
  #now: number;

  /** `received`: part of the home's receive page that came with the handshake and is not parsed yet. */
  constructor(
    stream: ByteStream,
    parts: GatewayParts,
    home: number,
    received: { readonly start: number; readonly end: number },
    volume: Volume,
    rules: TransmissionRules,
    contextIds: readonly number[],
    executor: Executor,
    pieces: PieceMemory,
    owner: IntakeOwner,
  ) {
    this.#stream = stream;
    this.#parts = parts;
    this.#home = home + HOME_RECEIVE;
    this.#buffer = this.#home;
    this.#start = received.start;
    this.#end = received.end;
    this.#volume = volume;
    this.#rules = rules;
    this.#contextIds = contextIds;
    this.#statusPayload = new BlockStatusPayload(contextIds.length);
    this.#executor = executor;
    this.#pieces = pieces;
    this.#owner = owner;
    this.#now = parts.clock.now();
  }

  /** Commands that were admitted and whose last reply byte has not been taken. */
  get inFlight(): number {
    return this.#inFlight;
  }

  get receiving(): boolean {
    return this.#receiving;
  }

  get ended(): boolean {
    return this.#expect === Expect.Nothing;
  }

  /** Receives no further byte: what has arrived whole is carried out, everything else is never answered. */
  shutDown(): void {
    this.#lastCall = true;
    if (!this.#receiving) this.run();
    else if (this.#expect !== Expect.Nothing) this.#stop();
  }

  commandsSent(count: number): void {
    this.#inFlight -= count;
  }

  /** Completion of the receive in flight. `result` as in StreamListener. */
  received(result: number): void {
    this.#receiving = false;
    if (this.#expect === Expect.Nothing) {
      this.#dropPayload();
      return;
    }
    if (result <= 0) {
      this.#stop();
      if (result === 0) this.#owner.peerLeft();
      else this.#owner.peerVanished();
      return;
    }
    this.#parts.counters.receives++;
    this.#now = this.#parts.clock.now();
    if (this.#direct) {
      this.#direct = false;
      this.#piece!.filledBytes += result;
      this.#payloadLeft -= result;
      if (this.#piece!.filledBytes === this.#piece!.length) this.#pieceFull();
    } else {
      this.#end += result;
      this.#judgeSize(result);
    }
    this.run();
  }

  /** Parses what is there and asks for more, unless something is missing. Called again when it may be there. */
  run(): void {
    if (this.#receiving || this.#expect === Expect.Nothing) return;
    this.#rules.size = this.#volume.sizeBytes;
    for (;;) {
      const step = this.#step();
      if (step === Step.More) break;
      if (step === Step.Stop) return;
    }
    if (this.#lastCall) this.#stop();
    else this.#receive();
  }

  /** Takes no further byte. A write that has not arrived whole is dropped: nothing of its last piece happens. */
  end(): void {
    if (this.#expect !== Expect.Nothing) this.#stop();
  }

  /** Gives the buffer back. No receive is in flight. */
  close(): void {
    this.end();
    this.#receiving = false;
    this.#dropPayload();
    this.#useBuffer(this.#home, HOME_BUFFER_BYTES);
  }

  // ---- Parsing --------------------------------------------------------------------------------------------

  #step(): Step {
    switch (this.#expect) {
      case Expect.Header:
        return this.#header();
      case Expect.WritePayload:
        return this.#writePayload();
      case Expect.Discard:
        return this.#discard();
      case Expect.StatusPayload:
        return this.#blockStatusPayload();
      case Expect.Nothing:
        return Step.Stop;
    }
  }

  #header(): Step {
    const available = this.#end - this.#start;
    if (available === 0) return Step.More;
    if (!this.#mayAdmit()) {
      this.#parts.counters.stalledForRequests++;
      return Step.Stop;
    }
    const extended = this.#rules.mode === ReplyMode.Extended;
    const { view } = this.#parts.pool;
    const bytes = decodeRequest(view, this.#buffer + this.#start, available, extended, header);
    if (bytes === 0) return Step.More;
    if (bytes === BAD_MAGIC) return this.#broken("a request does not begin with the request magic");
    this.#start += bytes;
    const verdict = validateRequest(header, this.#rules);
    switch (verdict.action) {
      case VerdictAction.Execute:
        return this.#execute(this.#admit());
      case VerdictAction.Refuse:
        return this.#refuse(this.#admit(), verdict);
      case VerdictAction.Leave:
        this.#stop();
        this.#owner.peerLeft();
        return Step.Stop;
      case VerdictAction.Drop:
        return this.#broken(verdict.text);
    }
  }

  /** Within the connection's bound, and within what all the others leave (and one always). */
  #mayAdmit(): boolean {
    const mine = this.#inFlight;
    if (mine === 0) return true;
    return mine < REQUESTS_PER_CONNECTION_MAX && mine < REQUESTS_MAX - this.#parts.commands.commandsInUse;
  }

  #admit(): Command {
    const command = this.#parts.commands.take();
    command.flags = header.flags;
    command.type = header.type;
    command.cookieHigh = header.cookieHigh;
    command.cookieLow = header.cookieLow;
    command.offsetHigh = header.offsetHigh;
    command.offsetLow = header.offsetLow;
    command.offset = header.offset;
    command.length = header.length;
    command.payloadLength = header.payloadLength;
    command.receivedAt = this.#now;
    this.#inFlight++;
    return command;
  }

  #execute(command: Command): Step {
    if (command.type === NBD_CMD_WRITE) {
      this.#executor.beginWrite(command);
      this.#await(command, Expect.WritePayload);
    } else if (command.payloadLength > 0) {
      this.#await(command, Expect.StatusPayload);
    } else {
      if (command.type === NBD_CMD_BLOCK_STATUS) command.contexts = 2 ** this.#contextIds.length - 1;
      this.#executor.start(command);
    }
    return Step.Again;
  }

  #refuse(command: Command, verdict: Verdict): Step {
    this.#parts.counters.invalidRequests++;
    command.answer = Answer.Status;
    command.fail(verdict.errno, -1, verdict.textBytes);
    if (command.payloadLength > 0) this.#await(command, Expect.Discard);
    else this.#answerRefused(command);
    return Step.Again;
  }

  #answerRefused(command: Command): void {
    this.#executor.reply(command);
    this.#parts.commands.release(command);
  }

  #await(command: Command, expect: Expect): void {
    this.#command = command;
    this.#expect = expect;
    this.#payloadLeft = command.payloadLength;
  }

  #payloadDone(): void {
    this.#command = null;
    this.#expect = Expect.Header;
  }

  #discard(): Step {
    const count = Math.min(this.#end - this.#start, this.#payloadLeft);
    this.#start += count;
    this.#payloadLeft -= count;
    if (this.#payloadLeft > 0) return Step.More;
    const command = this.#command!;
    this.#payloadDone();
    if (command.type === NBD_CMD_WRITE && command.openPieces > 0) this.#executor.endWrite(command);
    else this.#answerRefused(command);
    return Step.Again;
  }

  #blockStatusPayload(): Step {
    if (this.#end - this.#start < this.#payloadLeft) return Step.More;
    const command = this.#command!;
    const { view } = this.#parts.pool;
    const at = this.#buffer + this.#start;
    const wanted = this.#statusPayload;
    const verdict = parseBlockStatusPayload(view, at, command, this.#rules, this.#contextIds, wanted);
    this.#start += this.#payloadLeft;
    this.#payloadDone();
    if (verdict.action !== VerdictAction.Execute) {
      command.payloadLength = 0;
      return this.#refuse(command, verdict);
    }
    command.length = wanted.length;
    command.contexts = 0;
    for (let i = 0; i < wanted.count; i++) {
      command.contexts |= 1 << this.#contextIds.indexOf(wanted.ids[i]!);
    }
    this.#executor.start(command);
    return Step.Again;
  }

  #writePayload(): Step {
    const command = this.#command!;
    if (this.#piece === null) {
      if (command.status !== 0) {
        // A piece of it has failed: the rest need not be written, only consumed.
        this.#expect = Expect.Discard;
        return Step.Again;
      }
      if (!this.#takePiece(command)) {
        this.#parts.counters.stalledForMemory++;
        return Step.Stop;
      }
    }
    const piece = this.#piece!;
    const count = Math.min(this.#end - this.#start, piece.length - piece.filledBytes);
    if (count > 0) {
      const from = this.#buffer + this.#start;
      const to = piece.memory + (piece.offset % BLOCK_BYTES) + piece.filledBytes;
      this.#parts.pool.bytes.copyWithin(to, from, from + count);
      this.#start += count;
      piece.filledBytes += count;
      this.#payloadLeft -= count;
    }
    if (piece.filledBytes < piece.length) return Step.More;
    this.#pieceFull();
    return Step.Again;
  }

  #takePiece(command: Command): boolean {
    const piece = this.#parts.commands.takePiece(command);
    piece.offset = command.offset + (command.length - this.#payloadLeft);
    if (this.#pieces.takeForWrite(piece, this.#payloadLeft)) {
      this.#piece = piece;
      return true;
    }
    this.#parts.commands.freePiece(piece);
    this.#parts.memory.wait(this.#owner);
    return false;
  }

  #pieceFull(): void {
    const piece = this.#piece!;
    const command = this.#command!;
    this.#piece = null;
    this.#executor.submitWrite(piece);
    if (this.#payloadLeft > 0) return;
    this.#payloadDone();
    this.#executor.endWrite(command);
  }

  #broken(reason: string): Step {
    this.#stop();
    this.#owner.peerBroke(reason);
    return Step.Stop;
  }

  #stop(): void {
    this.#expect = Expect.Nothing;
    // Its payload never comes, and so no reply.
    if (this.#command !== null) this.#inFlight--;
    this.#start = 0;
    this.#end = 0;
    // The stream may still be writing into the piece: then `received` or `close` comes first.
    if (!this.#receiving) this.#dropPayload();
  }

  #dropPayload(): void {
    const command = this.#command;
    const piece = this.#piece;
    this.#command = null;
    this.#piece = null;
    if (piece !== null) this.#executor.release(piece);
    if (command !== null) this.#parts.commands.release(command);
  }

  // ---- Receiving ------------------------------------------------------------------------------------------

  #receive(): void {
    const piece = this.#piece;
    this.#receiving = true;
    if (piece !== null && piece.length - piece.filledBytes >= DIRECT_RECEIVE_MIN) {
      this.#direct = true;
      const to = piece.memory + (piece.offset % BLOCK_BYTES) + piece.filledBytes;
      this.#stream.receive(to, piece.length - piece.filledBytes, true);
      return;
    }
    this.#makeRoom();
    this.#asked = this.#bufferBytes - this.#end;
    this.#stream.receive(this.#buffer + this.#end, this.#asked);
  }

  /** Notes whether the buffer was too small, or much too large, for what came. */
  #judgeSize(result: number): void {
    if (result === this.#asked) {
      this.#wantsLarger = this.#bufferBytes < RECEIVE_BYTES_MAX;
      this.#quiet = 0;
    } else if (result < this.#bufferBytes / GROWTH) {
      this.#quiet++;
    } else {
      this.#quiet = 0;
    }
  }

  /** Moves what is left of the buffer to the front of the buffer that the next receive shall use. */
  #makeRoom(): void {
    if (this.#wantsLarger) {
      this.#wantsLarger = false;
      const bytes = this.#bufferBytes * GROWTH;
      const larger = this.#parts.memory.allocate(this.#owner, bytes);
      if (larger >= 0) {
        this.#useBuffer(larger, bytes);
        return;
      }
    } else if (this.#quiet >= RECEIVE_SHRINK_AFTER && this.#buffer !== this.#home) {
      this.#quiet = 0;
      if (this.#end - this.#start < HOME_BUFFER_BYTES) {
        this.#useBuffer(this.#home, HOME_BUFFER_BYTES);
        return;
      }
    }
    if (this.#start === 0) return;
    this.#moveTo(this.#buffer);
  }

  #useBuffer(buffer: number, bytes: number): void {
    const old = this.#buffer;
    const oldBytes = this.#bufferBytes;
    this.#moveTo(buffer);
    this.#buffer = buffer;
    this.#bufferBytes = bytes;
    if (old !== this.#home) this.#parts.memory.free(this.#owner, old, oldBytes);
  }

  #moveTo(buffer: number): void {
    const left = this.#end - this.#start;
    if (left > 0) {
      const from = this.#buffer + this.#start;
      this.#parts.pool.bytes.copyWithin(buffer, from, from + left);
    }
    this.#start = 0;
    this.#end = left;
  }
}

/** What one step of parsing came to. */
const Step = {
  /** Go on with what is in the buffer. */
  Again: 0,
  /** Bytes are missing. */
  More: 1,
  /** Something else is missing, or it is over: do not receive. */
  Stop: 2,
} as const;
type Step = (typeof Step)[keyof typeof Step];
