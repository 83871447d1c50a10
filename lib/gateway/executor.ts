/**
 * Carries out the commands of one connection on its volume.
 *
 * Invariants
 *  1. What the volume has begun runs to completion, whether the client still lives or not; what it has not, and what
 *     has not come to it, is never begun once `abandon` was called. So nothing of a dead connection can be executed late.
 *  2. Every command gets exactly one final reply, unless the connection ends before.
 *  3. Reads are begun in the order of their coming and as far as memory and UNSENT_BYTES_MAX allow.
 */
import {
  blockStatusBytes,
  encodeBlockStatus,
  encodeErrorText,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_REPLY_FLAG_DONE,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  ReplyMode,
} from "nbd-protocol-ts";
import { assert } from "../core/assert.js";
import { PIECE_BYTES } from "../core/limits.js";
import { Status } from "../core/status.js";
import { type Volume, VolumeFlag, type VolumeListener, VolumeOp, type VolumeRequest } from "../volume/api.js";
import { Answer, type Command, enclosingBytes, type Piece } from "./command.js";
import { UNSENT_BYTES_MAX, WHOLE_REPLY_WAIT_MS } from "./limits.js";
import type { MapAsker } from "./map-gate.js";
import type { MemoryUser } from "./memory.js";
import type { Outlet } from "./outlet.js";
import type { GatewayParts } from "./parts.js";
import { type PieceMemory, wholeCapacity } from "./piece-memory.js";

export interface ExecutorOwner extends MemoryUser {
  /** There is something to do at the end of this batch. */
  wake(): void;
  /** After `abandon`: the volume has answered everything. */
  executorDrained(): void;
}

const WORDS: Readonly<Record<number, Uint8Array>> = {
  [Status.Perm]: encodeErrorText("the volume is read-only, or another server has taken it over"),
  [Status.Io]: encodeErrorText("the bytes cannot be had: they fail their checksum, or the device has failed"),
  [Status.NoMem]: encodeErrorText("the server is out of memory"),
  [Status.NoSpace]: encodeErrorText("the store is full"),
  [Status.NotSup]: encodeErrorText("zeroing this range would not be faster than writing it"),
  [Status.Shutdown]: encodeErrorText("the server is shutting down"),
};
const NO_WORDS = new Uint8Array(0);
const DATA = 0;
const HOLE = NBD_STATE_HOLE | NBD_STATE_ZERO;

export class Executor implements VolumeListener, MapAsker {
  readonly #parts: GatewayParts;
  readonly #volume: Volume;
  readonly #mode: ReplyMode;
  readonly #contextIds: readonly number[];
  readonly #pieces: PieceMemory;
  readonly #outlet: Outlet;
  readonly #owner: ExecutorOwner;
  /** Reads that are not wholly cut into pieces, oldest first. */
  #head: Command | null = null;
  #tail: Command | null = null;
  #inVolume = 0;
  #abandoned = false;

  constructor(
    parts: GatewayParts,
    volume: Volume,
    mode: ReplyMode,
    contextIds: readonly number[],
    pieces: PieceMemory,
    outlet: Outlet,
    owner: ExecutorOwner,
  ) {
    this.#parts = parts;
    this.#volume = volume;
    this.#mode = mode;
    this.#contextIds = contextIds;
    this.#pieces = pieces;
    this.#outlet = outlet;
    this.#owner = owner;
  }

  /** Pieces in the volume. */
  get inVolume(): number {
    return this.#inVolume;
  }

  /** Begins a validated command other than WRITE and DISC, and releases it when it is begun. */
  start(command: Command): void {
    switch (command.type) {
      case NBD_CMD_READ:
        this.#startRead(command);
        break;
      case NBD_CMD_FLUSH:
        this.#startPlain(command, VolumeOp.Flush, 0);
        break;
      case NBD_CMD_TRIM:
        this.#startPlain(command, VolumeOp.Trim, fuaFlag(command));
        break;
      case NBD_CMD_CACHE:
        this.#startPlain(command, VolumeOp.Cache, 0);
        break;
      case NBD_CMD_WRITE_ZEROES:
        this.#startPlain(command, VolumeOp.Zero, fuaFlag(command) | zeroFlags(command));
        break;
      case NBD_CMD_BLOCK_STATUS:
        this.#startMap(command);
        break;
      default:
        assert(false, "a validated command is known");
    }
  }

  /** Queues the final reply of a command that the volume need not see, or has answered in full. */
  reply(command: Command): void {
    const piece = this.#parts.commands.takePiece(command);
    piece.last = true;
    this.#outlet.push(piece);
    this.#owner.wake();
  }

  // ---- Writes: intake receives the payload piece by piece -------------------------------------------------

  beginWrite(command: Command): void {
    command.answer = Answer.Status;
    command.volumeFlags = fuaFlag(command);
  }

  submitWrite(piece: Piece): void {
    piece.command.cutBytes += piece.length;
    this.#submit(piece, VolumeOp.Write);
  }

  /** The whole payload has been consumed; of a write that failed early, without having been submitted. */
  endWrite(command: Command): void {
    command.cutBytes = command.length;
    if (command.openPieces === 0) this.reply(command);
    this.#parts.commands.release(command);
  }

  // ---- Commands without payload ---------------------------------------------------------------------------

  #startPlain(command: Command, op: VolumeOp, flags: number): void {
    command.answer = Answer.Status;
    command.volumeFlags = flags;
    command.cutBytes = command.length;
    const piece = this.#parts.commands.takePiece(command);
    piece.offset = command.offset;
    piece.length = command.length;
    piece.memory = 0;
    this.#submit(piece, op);
    this.#parts.commands.release(command);
  }

  #startMap(command: Command): void {
    command.answer = Answer.Map;
    command.volumeFlags = (command.flags & NBD_CMD_FLAG_REQ_ONE) !== 0 ? VolumeFlag.ReqOne : 0;
    command.cutBytes = command.length;
    const piece = this.#parts.commands.takePiece(command);
    piece.offset = command.offset;
    piece.length = command.length;
    piece.memory = 0;
    this.#parts.commands.release(command);
    this.#parts.maps.enter(this, piece);
  }

  mapTurn(piece: Piece): void {
    this.#submit(piece, VolumeOp.Map);
  }

  #submit(piece: Piece, op: VolumeOp): void {
    piece.op = op;
    piece.flags = piece.command.volumeFlags;
    piece.status = Status.Ok;
    piece.allHole = false;
    piece.badOffset = -1;
    piece.done = false;
    piece.listener = this;
    piece.next = null;
    piece.command.openPieces++;
    this.#inVolume++;
    this.#volume.submit(piece);
  }

  // ---- Reads ----------------------------------------------------------------------------------------------

  #startRead(command: Command): void {
    const whole = this.#mode === ReplyMode.Simple || (command.flags & NBD_CMD_FLAG_DF) !== 0;
    command.answer = whole ? Answer.Whole : Answer.Chunks;
    if (this.#tail === null) this.#head = command;
    else this.#tail.next = command;
    this.#tail = command;
    this.advance();
  }

  /** Begins what reads can be begun. Called again whenever something was freed or sent. */
  advance(): void {
    while (this.#head !== null) {
      const command = this.#head;
      const begun = command.answer === Answer.Chunks ? this.#cutChunks(command) : this.#cutWhole(command);
      if (!begun) return;
      this.#dequeue(command);
    }
  }

  #dequeue(command: Command): void {
    this.#head = command.next;
    if (this.#head === null) this.#tail = null;
    command.next = null;
    this.#parts.commands.release(command);
  }

  /** Cuts as many pieces as may be; true when the command is wholly cut. */
  #cutChunks(command: Command): boolean {
    while (!command.allCut) {
      const left = command.length - command.cutBytes;
      if (this.#windowFull(Math.min(left, PIECE_BYTES))) return false;
      const piece = this.#nextPiece(command);
      if (!this.#pieces.takeForRead(piece, left)) return this.#waitWithout(piece);
      this.#submitRead(piece);
    }
    return true;
  }

  #cutWhole(command: Command): boolean {
    if (command.streamed) return this.#cutStreamed(command);
    const bytes = enclosingBytes(command.offset, command.length);
    if (command.reservedBytes > 0) return this.#cutReserved(command);
    if (this.#windowFull(bytes)) return false;
    if (bytes <= PIECE_BYTES) {
      const piece = this.#nextPiece(command);
      if (this.#pieces.takeWhole(piece, command.length)) {
        this.#submitRead(piece);
        return true;
      }
      this.#parts.commands.freePiece(piece);
    } else {
      const capacity = wholeCapacity(command.offset, command.length);
      if (this.#parts.memory.reserve(this.#owner, capacity)) {
        command.reservedBytes = capacity;
        return this.#cutReserved(command);
      }
    }
    return this.#waitForWhole(command, bytes);
  }

  #cutReserved(command: Command): boolean {
    while (!command.allCut) {
      const piece = this.#nextPiece(command);
      const left = command.length - command.cutBytes;
      if (!this.#pieces.takeReserved(piece, command, left)) return this.#waitWithout(piece);
      this.#submitRead(piece);
    }
    this.#giveReserveBack(command);
    return true;
  }

  /** No memory for the whole of it now: wait, at most WHOLE_REPLY_WAIT_MS beyond the connection's own doing. */
  #waitForWhole(command: Command, bytes: number): boolean {
    const { memory, clock, counters } = this.#parts;
    if (this.#pieces.readPieces > 0) {
      memory.wait(this.#owner);
      return false;
    }
    const now = clock.now();
    if (command.waitUntil < 0) {
      command.waitUntil = now + WHOLE_REPLY_WAIT_MS;
      clock.setTimer(WHOLE_REPLY_WAIT_MS, () => this.#owner.memoryHasRoom());
    }
    if (now < command.waitUntil && memory.couldReserve(bytes)) {
      memory.wait(this.#owner);
      return false;
    }
    command.streamed = true;
    counters.streamedReplies++;
    return this.#cutStreamed(command);
  }

  /** One piece at a time: the next one when the one before was sent. */
  #cutStreamed(command: Command): boolean {
    if (command.livePieces > 0) return false;
    const piece = this.#nextPiece(command);
    this.#pieces.takeForStream(piece, command.length - command.cutBytes);
    this.#submitRead(piece);
    return command.allCut;
  }

  #windowFull(bytes: number): boolean {
    const { readBytes } = this.#pieces;
    return readBytes > 0 && readBytes + bytes > UNSENT_BYTES_MAX;
  }

  #nextPiece(command: Command): Piece {
    const piece = this.#parts.commands.takePiece(command);
    piece.offset = command.offset + command.cutBytes;
    return piece;
  }

  #waitWithout(piece: Piece): false {
    this.#parts.commands.freePiece(piece);
    this.#parts.memory.wait(this.#owner);
    return false;
  }

  #submitRead(piece: Piece): void {
    const { command } = piece;
    command.cutBytes += piece.length;
    if (command.answer === Answer.Whole) {
      if (!command.streamed) link(command, piece);
    }
    this.#submit(piece, VolumeOp.Read);
  }

  #giveReserveBack(command: Command): void {
    if (command.reservedBytes === 0) return;
    const bytes = command.reservedBytes;
    command.reservedBytes = 0;
    this.#parts.memory.unreserve(this.#owner, bytes);
  }

  // ---- Completions ----------------------------------------------------------------------------------------

  volumeDone(request: VolumeRequest): void {
    const piece = request as Piece;
    const { command } = piece;
    this.#inVolume--;
    command.openPieces--;
    piece.done = true;
    if (piece.op === VolumeOp.Map) this.#mapDone(command, piece);
    if (piece.status !== Status.Ok) this.#failed(command, piece);
    if (this.#abandoned) {
      this.#dropDone(command, piece);
      if (this.#inVolume === 0) this.#owner.executorDrained();
      return;
    }
    switch (command.answer) {
      case Answer.Status:
        this.#statusDone(command, piece);
        break;
      case Answer.Chunks:
        this.#chunkDone(command, piece);
        break;
      case Answer.Whole:
        this.#wholeDone(command, piece);
        break;
      case Answer.Map:
        this.#outlet.push(piece);
        break;
    }
    this.#owner.wake();
  }

  stillWanted(): boolean {
    return !this.#abandoned;
  }

  #failed(command: Command, piece: Piece): void {
    const { status } = piece;
    const located = status === Status.Io && (piece.op === VolumeOp.Read || piece.op === VolumeOp.Write);
    const offset = piece.badOffset >= 0 ? piece.badOffset : piece.offset;
    command.fail(status, located ? offset : -1, WORDS[status] ?? NO_WORDS);
    if (command.type === NBD_CMD_WRITE) return;
    // What has not been cut will not be. A read that is only partly cut is the first in the queue.
    const queued = !command.allCut;
    command.cutBytes = command.length;
    this.#giveReserveBack(command);
    if (queued) this.#dequeue(command);
  }

  #statusDone(command: Command, piece: Piece): void {
    this.#pieces.giveWrite(piece);
    if (command.openPieces === 0 && command.allCut) {
      piece.last = true;
      this.#outlet.push(piece);
    } else {
      this.#parts.commands.freePiece(piece);
    }
  }

  #chunkDone(command: Command, piece: Piece): void {
    piece.last = command.openPieces === 0 && command.allCut;
    if (piece.allHole || command.status !== Status.Ok) this.#pieces.giveRead(piece);
    if (command.status !== Status.Ok && !piece.last) this.#parts.commands.freePiece(piece);
    else this.#outlet.push(piece);
  }

  #wholeDone(command: Command, piece: Piece): void {
    if (piece.allHole || command.status !== Status.Ok) this.#pieces.giveRead(piece);
    if (command.streamed) {
      this.#outlet.push(piece);
      return;
    }
    if (command.openPieces > 0 || !command.allCut) return;
    const first = command.firstPiece!;
    command.firstPiece = null;
    command.lastPiece = null;
    this.#outlet.push(first);
  }

  #mapDone(command: Command, piece: Piece): void {
    if (piece.status === Status.Ok && !this.#abandoned) this.#encodeMap(command, piece);
    piece.runs = NO_RUNS;
    this.#parts.maps.leave();
  }

  /** Encodes the answer while the runs are at hand; without memory the first run alone is kept. */
  #encodeMap(command: Command, piece: Piece): void {
    const { runs, runCount } = piece;
    assert(runCount > 0, "a map has at least one run");
    for (let i = 0; i < runCount; i++) runs[2 * i + 1] = runs[2 * i + 1] === 0 ? HOLE : DATA;
    const count = this.#contextIds.length;
    const bytes = count * blockStatusBytes(this.#mode, runCount);
    if (runCount > 1 && this.#pieces.takeForAnswer(piece, Math.min(bytes, PIECE_BYTES))) {
      this.#encodeDescriptors(command, piece, Math.floor(piece.allocatedBytes / count));
    } else {
      piece.length = runs[0]!;
      piece.flags = runs[1]!;
    }
  }

  #encodeDescriptors(command: Command, piece: Piece, room: number): void {
    const { view } = this.#parts.pool;
    const one = (command.flags & NBD_CMD_FLAG_REQ_ONE) !== 0;
    const mode = this.#mode;
    const { runs, runCount } = piece;
    let at = piece.memory;
    for (let i = 0; i < this.#contextIds.length; i++) {
      if ((command.contexts & (1 << i)) === 0) continue;
      const done = command.contexts >>> (i + 1) === 0 ? NBD_REPLY_FLAG_DONE : 0;
      const id = this.#contextIds[i]!;
      at += encodeBlockStatus(view, at, room, mode, command, done, id, runs, runCount, command.length, one);
    }
    piece.answerBytes = at - piece.memory;
  }

  // ---- The end --------------------------------------------------------------------------------------------

  /** The bytes of a piece are no longer needed. */
  release(piece: Piece): void {
    if (piece.command.type === NBD_CMD_WRITE) this.#pieces.giveWrite(piece);
    else this.#pieces.giveRead(piece);
    this.#parts.commands.freePiece(piece);
  }

  /** The connection is dead: drops what has not been begun. What is in the volume comes back by itself. */
  abandon(): void {
    this.#abandoned = true;
    if (this.#inVolume > 0) this.#volume.abandon?.(this);
    this.#parts.maps.forget(this, (piece) => this.release(piece));
    while (this.#head !== null) {
      const command = this.#head;
      this.#giveReserveBack(command);
      if (command.openPieces === 0) this.#dropChain(command);
      this.#dequeue(command);
    }
  }

  /** After `abandon`. Pieces of a gathered reply hang on their command and go together with its last one. */
  #dropDone(command: Command, piece: Piece): void {
    if (command.answer !== Answer.Whole || command.streamed) this.release(piece);
    else if (command.openPieces === 0) this.#dropChain(command);
  }

  #dropChain(command: Command): void {
    let piece = command.firstPiece;
    command.firstPiece = null;
    command.lastPiece = null;
    while (piece !== null) {
      const { sibling } = piece;
      this.release(piece);
      piece = sibling;
    }
  }
}

const NO_RUNS = new Float64Array(0);

function link(command: Command, piece: Piece): void {
  piece.sibling = null;
  if (command.lastPiece === null) command.firstPiece = piece;
  else command.lastPiece.sibling = piece;
  command.lastPiece = piece;
}

function fuaFlag(command: Command): number {
  return (command.flags & NBD_CMD_FLAG_FUA) !== 0 ? VolumeFlag.Fua : 0;
}

function zeroFlags(command: Command): number {
  const noHole = (command.flags & NBD_CMD_FLAG_NO_HOLE) !== 0 ? VolumeFlag.NoHole : 0;
  const fast = (command.flags & NBD_CMD_FLAG_FAST_ZERO) !== 0 ? VolumeFlag.FastZero : 0;
  return noHole | fast;
}
