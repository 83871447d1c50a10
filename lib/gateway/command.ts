/**
 * One NBD request in flight (`Command`) and its parts that travel as one buffer each (`Piece`).
 *
 * Invariants
 *  1. Both come from free lists and go back there, so that no request allocates. A piece goes back only when
 *     neither the volume nor the stream knows its memory any more; a command when no piece of it is left and
 *     nobody holds it.
 *  2. A command counts as in flight until its last reply byte was taken by the stream: this bounds replies
 *     as well as requests.
 *  3. Pieces of one command cover disjoint 4 KiB blocks: they are cut at block boundaries only.
 */
import { RequestHeader } from "nbd-protocol-ts";
import { assert } from "../core/assert.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { VolumeRequest } from "../volume/api.js";

/** How a command is answered. */
export const Answer = {
  /** One header when all pieces are done: everything but READ and BLOCK_STATUS. */
  Status: 0,
  /** A chunk per finished piece, in any order: READ with structured or extended replies. */
  Chunks: 1,
  /** One header for all pieces, in order: READ with simple replies or with DF. */
  Whole: 2,
  /** One chunk of descriptors: BLOCK_STATUS. */
  Map: 3,
} as const;
export type Answer = (typeof Answer)[keyof typeof Answer];

const NO_TEXT = new Uint8Array(0);

export class Command extends RequestHeader {
  /** VolumeFlag bits of every piece. */
  volumeFlags = 0;
  answer: Answer = Answer.Status;
  /** First error of any piece, the lowest offset it belongs to (or −1), and a sentence for a person (or nothing). */
  status = 0;
  errorOffset = -1;
  text: Uint8Array = NO_TEXT;
  /** Bytes of the range that have been cut into pieces so far. */
  cutBytes = 0;
  /** Pieces in the volume. */
  openPieces = 0;
  /** Pieces of it that exist anywhere; and whether intake or the queue of reads still works on it. */
  livePieces = 0;
  held = false;
  /** Answer.Whole: memory set aside and not yet in a piece; the pieces in order. */
  reservedBytes = 0;
  firstPiece: Piece | null = null;
  lastPiece: Piece | null = null;
  /** Answer.Whole: the header goes out before all is read, and whether it has. */
  streamed = false;
  headerSent = false;
  /** Answer.Whole: until when it waits for memory; −1 while it does not. */
  waitUntil = -1;
  /** Answer.Map: bit i asks for context i of the session. */
  contexts = 0;
  /** Clock at the receive that brought the request, in milliseconds. */
  receivedAt = 0;
  next: Command | null = null;

  /** Keeps the first error, and of the offsets at which it happened the lowest: pieces end in any order. */
  fail(status: number, offset: number, text: Uint8Array): void {
    if (this.status !== 0) {
      if (status === this.status && offset >= 0 && offset < this.errorOffset) this.errorOffset = offset;
      return;
    }
    this.status = status;
    this.errorOffset = offset;
    this.text = text;
  }

  get allCut(): boolean {
    return this.cutBytes === this.length;
  }
}

/** Where a piece's memory comes from, and so where it goes back to. */
export const Origin = { None: 0, Pool: 1, Home: 2 } as const;
export type Origin = (typeof Origin)[keyof typeof Origin];

export class Piece extends VolumeRequest {
  command: Command = IDLE;
  origin: Origin = Origin.None;
  /** Bytes asked of the pool for it. */
  allocatedBytes = 0;
  /** Write: payload bytes received so far. */
  filledBytes = 0;
  /** Map: bytes of `memory` that are the encoded answer. */
  answerBytes = 0;
  /** Out of the volume's hands. */
  done = false;
  /** The reply that goes out with this piece is its command's last. */
  last = false;
  /** Next piece of an Answer.Whole command. */
  sibling: Piece | null = null;
}

/** Stands where there is no command; never written to. */
const IDLE = new Command();

/** Bytes of the 4 KiB blocks that enclose a range. */
export function enclosingBytes(offset: number, length: number): number {
  return Math.ceil(((offset % BLOCK_BYTES) + length) / BLOCK_BYTES) * BLOCK_BYTES;
}

/** Free lists of both, shared by all connections, and the numbers in use. */
export class CommandPool {
  #commands: Command | null = null;
  #pieces: Piece | null = null;
  #commandsInUse = 0;
  #piecesInUse = 0;

  get commandsInUse(): number {
    return this.#commandsInUse;
  }

  get piecesInUse(): number {
    return this.#piecesInUse;
  }

  /** A command that is held: `release` it when neither intake nor the queue of reads needs it any more. */
  take(): Command {
    this.#commandsInUse++;
    const command = this.#commands ?? new Command();
    this.#commands = command.next;
    command.next = null;
    command.held = true;
    return command;
  }

  release(command: Command): void {
    assert(command.held, "released a command twice");
    command.held = false;
    if (command.livePieces === 0) this.#free(command);
  }

  takePiece(command: Command): Piece {
    this.#piecesInUse++;
    const piece = this.#pieces ?? new Piece();
    this.#pieces = piece.next as Piece | null;
    piece.next = null;
    piece.command = command;
    command.livePieces++;
    return piece;
  }

  /** Its memory has been given back before. */
  freePiece(piece: Piece): void {
    assert(piece.origin === Origin.None, "freed a piece that still has memory");
    const { command } = piece;
    this.#piecesInUse--;
    piece.command = IDLE;
    piece.filledBytes = 0;
    piece.answerBytes = 0;
    piece.done = false;
    piece.last = false;
    piece.sibling = null;
    piece.status = 0;
    piece.allHole = false;
    piece.runCount = 0;
    piece.next = this.#pieces;
    this.#pieces = piece;
    command.livePieces--;
    if (command.livePieces === 0 && !command.held) this.#free(command);
  }

  #free(command: Command): void {
    assert(command.openPieces === 0 && command.reservedBytes === 0, "freed a command that is not over");
    this.#commandsInUse--;
    command.status = 0;
    command.errorOffset = -1;
    command.text = NO_TEXT;
    command.cutBytes = 0;
    command.volumeFlags = 0;
    command.firstPiece = null;
    command.lastPiece = null;
    command.streamed = false;
    command.headerSent = false;
    command.waitUntil = -1;
    command.next = this.#commands;
    this.#commands = command;
  }
}
