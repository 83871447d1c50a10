/**
 * Memory for the pieces of one connection.
 *
 * Why no request waits for ever (the argument that memory.ts refers to). A piece of a write waits only while
 * another piece of a write of the same connection is in the volume, and a piece of a read only while another
 * piece of a read is in the volume or not yet sent. Both come back without any further memory: the volume
 * answers everything (DESIGN invariant 23), and what is not sent waits for this very client to read its own
 * replies. (Behind a streamed reply it waits for the pieces of that: these alone wait for nothing.) When there
 * is none, smaller and smaller pieces are tried, and at last the page of the home, which nobody else can have
 * taken: the one piece that could use it is the one that was just excluded. Reads and writes have a page each, so
 * that a client that sends a write before it takes the reply to a read is served.
 */
import { assert } from "../core/assert.js";
import { BLOCK_BYTES, PIECE_BYTES } from "../core/limits.js";
import { Pool } from "../core/pool.js";
import { type Command, enclosingBytes, Origin, type Piece } from "./command.js";
import { HOME_READ_PIECE, HOME_WRITE_PIECE } from "./limits.js";
import type { Memory, MemoryUser } from "./memory.js";

export class PieceMemory {
  readonly #memory: Memory;
  readonly #user: MemoryUser;
  readonly #home: number;
  #writePieces = 0;
  #readPieces = 0;
  #readBytes = 0;
  #homeWriteTaken = false;
  #homeReadTaken = false;

  constructor(memory: Memory, user: MemoryUser, home: number) {
    this.#memory = memory;
    this.#user = user;
    this.#home = home;
  }

  /** Pieces of reads that have memory: in the volume, or not yet sent. */
  get readPieces(): number {
    return this.#readPieces;
  }

  /** Their bytes. */
  get readBytes(): number {
    return this.#readBytes;
  }

  get writePieces(): number {
    return this.#writePieces;
  }

  /**
   * Memory for the next piece of a write, which begins at `piece.offset` and has at most `left` bytes. Sets
   * `piece.length` to what it takes of them. False: wait for memory.
   */
  takeForWrite(piece: Piece, left: number): boolean {
    if (!this.#takeBest(piece, left, this.#writePieces > 0)) {
      if (this.#writePieces > 0) return false;
      assert(!this.#homeWriteTaken, "the home's page for writes is free when no write holds memory");
      this.#homeWriteTaken = true;
      this.#settle(piece, Origin.Home, this.#home + HOME_WRITE_PIECE, BLOCK_BYTES, left);
    }
    this.#writePieces++;
    return true;
  }

  /** The same for the next piece of a read. */
  takeForRead(piece: Piece, left: number): boolean {
    if (!this.#takeBest(piece, left, this.#readPieces > 0)) {
      if (this.#readPieces > 0) return false;
      this.#takeHomeForRead(piece, left);
    }
    this.#readTaken(piece);
    return true;
  }

  /**
   * The same for the next piece of a reply that is under way, while none of its pieces has memory. Whatever else is
   * not sent, an answer to BLOCK_STATUS say, may wait behind this very reply: there is nothing to wait for. The
   * home's page is free: no other read has been begun since this one was.
   */
  takeForStream(piece: Piece, left: number): void {
    if (!this.#takeBest(piece, left, false)) this.#takeHomeForRead(piece, left);
    this.#readTaken(piece);
  }

  /** Memory for the whole of a read of one piece, or false. */
  takeWhole(piece: Piece, length: number): boolean {
    const bytes = enclosingBytes(piece.offset, length);
    const memory = this.#memory.allocate(this.#user, bytes);
    if (memory >= 0) this.#settle(piece, Origin.Pool, memory, bytes, length);
    else if (bytes === BLOCK_BYTES && !this.#homeReadTaken) this.#takeHomeForRead(piece, length);
    else return false;
    this.#readTaken(piece);
    return true;
  }

  /** Memory for the next piece of a read out of what its command has reserved; false when the pool is short. */
  takeReserved(piece: Piece, command: Command, left: number): boolean {
    for (let bytes = wanted(piece, left); bytes >= BLOCK_BYTES; bytes = nextSmaller(bytes)) {
      // After smaller pieces than were reckoned with, rounding up could take more than is set aside.
      if (Pool.capacityOf(bytes) > command.reservedBytes) continue;
      const memory = this.#memory.allocateReserved(bytes);
      if (memory < 0) continue;
      this.#settle(piece, Origin.Pool, memory, bytes, left);
      command.reservedBytes -= Pool.capacityOf(bytes);
      this.#readTaken(piece);
      return true;
    }
    return false;
  }

  /** A buffer for an encoded answer: as large as can be had up to `bytes`, or false. */
  takeForAnswer(piece: Piece, bytes: number): boolean {
    for (let size = Math.max(bytes, BLOCK_BYTES); size >= BLOCK_BYTES; size = nextSmaller(size)) {
      const memory = this.#memory.allocate(this.#user, size);
      if (memory < 0) continue;
      piece.origin = Origin.Pool;
      piece.memory = memory;
      piece.allocatedBytes = size;
      this.#readTaken(piece);
      return true;
    }
    return false;
  }

  /** Gives the memory of a write's piece back, if it has any. */
  giveWrite(piece: Piece): void {
    if (piece.origin === Origin.None) return;
    this.#writePieces--;
    if (piece.origin === Origin.Home) this.#homeWriteTaken = false;
    else this.#memory.free(this.#user, piece.memory, piece.allocatedBytes);
    piece.origin = Origin.None;
  }

  /** Gives the memory of a read's piece (or of an answer) back, if it has any. */
  giveRead(piece: Piece): void {
    if (piece.origin === Origin.None) return;
    this.#readPieces--;
    this.#readBytes -= piece.allocatedBytes;
    if (piece.origin === Origin.Home) this.#homeReadTaken = false;
    else this.#memory.free(this.#user, piece.memory, piece.allocatedBytes);
    piece.origin = Origin.None;
  }

  /** `patient`: rather none than a small one. */
  #takeBest(piece: Piece, left: number, patient: boolean): boolean {
    for (let bytes = wanted(piece, left); bytes >= BLOCK_BYTES; bytes = nextSmaller(bytes)) {
      const memory = this.#memory.allocate(this.#user, bytes);
      if (memory >= 0) {
        this.#settle(piece, Origin.Pool, memory, bytes, left);
        return true;
      }
      if (patient) return false;
    }
    return false;
  }

  #takeHomeForRead(piece: Piece, left: number): void {
    assert(!this.#homeReadTaken, "the home's page for reads is free when no read holds memory");
    this.#homeReadTaken = true;
    this.#settle(piece, Origin.Home, this.#home + HOME_READ_PIECE, BLOCK_BYTES, left);
  }

  #readTaken(piece: Piece): void {
    this.#readPieces++;
    this.#readBytes += piece.allocatedBytes;
  }

  #settle(piece: Piece, origin: Origin, memory: number, bytes: number, left: number): void {
    piece.origin = origin;
    piece.memory = memory;
    piece.allocatedBytes = bytes;
    piece.length = Math.min(left, bytes - (piece.offset % BLOCK_BYTES));
  }
}

/** Bytes of the largest piece that begins at `piece.offset` and ends within `left` bytes. */
function wanted(piece: Piece, left: number): number {
  return Math.min(PIECE_BYTES, enclosingBytes(piece.offset, left));
}

/** The largest power of two below `bytes`: a size that wastes nothing in the pool. */
function nextSmaller(bytes: number): number {
  return 2 ** (31 - Math.clz32(bytes - 1));
}

/** What the pool takes for a read of `length` bytes from `offset` in the fewest pieces. */
export function wholeCapacity(offset: number, length: number): number {
  const bytes = enclosingBytes(offset, length);
  const rest = bytes % PIECE_BYTES;
  return bytes - rest + (rest === 0 ? 0 : Pool.capacityOf(rest));
}
