/**
 * What all volumes of one owner thread share: the way to the extents, the pool of operations, scratch
 * blocks for read-modify-write, and the queue of answers.
 *
 * Invariants
 *  1. An asker is told of an answer from `tick` only, never from inside `submit` or another completion.
 *  2. While the gate is shut no answer is given, of whatever kind; those that are due keep their order.
 *  3. Scratch blocks are taken all at once or not at all, in the order of asking, by jobs that hold their
 *     range locks; a holder needs nothing further to finish. So waiting for scratch cannot deadlock.
 */
import { assert } from "../core/assert.js";
import type { Checksums } from "../core/checksum.js";
import type { Ticker, TickTask } from "../core/clock.js";
import { type ExtentIo, type ExtentListener, ExtentOp } from "../core/extent-io.js";
import { BLOCK_BYTES } from "../core/limits.js";
import type { Pool } from "../core/pool.js";
import type { Status } from "../core/status.js";
import type { VolumeRequest } from "./api.js";

/** Blocks for read-modify-write at the ends of unaligned requests; at the bound such requests wait. */
export const SCRATCH_BLOCKS = 64;

/** The right to answer at all (the serving lease of a cluster). */
export interface AnswerGate {
  /** Asked before answers are given. After a "no", whoever shut the gate calls `VolumeOwner.resume` when it opens. */
  mayAnswer(): boolean;
}

export interface OwnerEnvironment {
  readonly io: ExtentIo;
  readonly pool: Pool;
  readonly ticker: Ticker;
  readonly checksums: Checksums;
  /** Blocks of an extent on the device. */
  readonly extentBlocks: number;
  /** Left out: always open. */
  readonly gate?: AnswerGate;
}

export interface ScratchWaiter {
  readonly scratchWanted: number;
  nextWaiter: ScratchWaiter | null;
  scratchReady(): void;
}

export class VolumeOwner implements TickTask {
  readonly io: ExtentIo;
  readonly pool: Pool;
  readonly checksums: Checksums;
  readonly extentBlocks: number;
  /** The pool as 32-bit words, for looking at blocks. */
  readonly words: Int32Array;
  readonly #ticker: Ticker;
  readonly #gate: AnswerGate | null;
  #freeOp: ExtentOp | null = null;
  readonly #scratch: number[] = [];
  #waiterFirst: ScratchWaiter | null = null;
  #waiterLast: ScratchWaiter | null = null;
  #doneFirst: VolumeRequest | null = null;
  #doneLast: VolumeRequest | null = null;
  #tickAsked = false;

  constructor(environment: OwnerEnvironment) {
    this.io = environment.io;
    this.pool = environment.pool;
    this.checksums = environment.checksums;
    this.extentBlocks = environment.extentBlocks;
    this.#ticker = environment.ticker;
    this.#gate = environment.gate ?? null;
    const { bytes } = environment.pool;
    this.words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
    for (let i = 0; i < SCRATCH_BLOCKS; i++) {
      const memory = environment.pool.allocate(BLOCK_BYTES);
      assert(memory >= 0, "the pool holds the scratch blocks");
      this.#scratch.push(memory);
    }
  }

  /** Gives the scratch blocks back to the pool. Nothing may be in flight. */
  close(): void {
    assert(this.#scratch.length === SCRATCH_BLOCKS, "closed an owner with scratch blocks in use");
    for (const memory of this.#scratch) this.pool.free(memory);
    this.#scratch.length = 0;
  }

  takeOp(listener: ExtentListener, tag: number): ExtentOp {
    let op = this.#freeOp;
    if (op === null) op = new ExtentOp();
    else this.#freeOp = op.next;
    op.next = null;
    op.listener = listener;
    op.tag = tag;
    op.flags = 0;
    return op;
  }

  giveOp(op: ExtentOp): void {
    op.next = this.#freeOp;
    this.#freeOp = op;
  }

  /** True: `waiter.scratchWanted` blocks may be taken now. False: `scratchReady` will be called. */
  wantScratch(waiter: ScratchWaiter): boolean {
    if (this.#waiterFirst === null && this.#scratch.length >= waiter.scratchWanted) return true;
    waiter.nextWaiter = null;
    if (this.#waiterLast === null) this.#waiterFirst = waiter;
    else this.#waiterLast.nextWaiter = waiter;
    this.#waiterLast = waiter;
    return false;
  }

  takeScratch(): number {
    const memory = this.#scratch.pop();
    assert(memory !== undefined, "took a scratch block without having been given it");
    return memory;
  }

  giveScratch(memory: number): void {
    this.#scratch.push(memory);
    const waiter = this.#waiterFirst;
    if (waiter !== null && this.#scratch.length >= waiter.scratchWanted) {
      this.#waiterFirst = waiter.nextWaiter;
      if (this.#waiterFirst === null) this.#waiterLast = null;
      waiter.scratchReady();
    }
  }

  /** Queues the answer of a request. */
  answer(request: VolumeRequest, status: Status): void {
    request.status = status;
    request.next = null;
    if (this.#doneLast === null) this.#doneFirst = request;
    else this.#doneLast.next = request;
    this.#doneLast = request;
    this.#askTick();
  }

  /** The gate is open again: gives the answers that are due. */
  resume(): void {
    if (this.#doneFirst !== null) this.#askTick();
  }

  #askTick(): void {
    if (this.#tickAsked) return;
    this.#tickAsked = true;
    this.#ticker.atTickEnd(this);
  }

  tick(): void {
    this.#tickAsked = false;
    if (this.#gate !== null && !this.#gate.mayAnswer()) return;
    let request = this.#doneFirst;
    this.#doneFirst = null;
    this.#doneLast = null;
    while (request !== null) {
      // The asker may reuse the request at once, and with it the link.
      const { next } = request;
      request.next = null;
      request.listener.volumeDone(request);
      request = next;
    }
  }

  /** Whether `length` bytes (a multiple of 4096) of the pool are all zero. */
  isZero(memory: number, length: number): boolean {
    const { words } = this;
    const end = (memory + length) >>> 2;
    for (let i = memory >>> 2; i < end; i++) if (words[i] !== 0) return false;
    return true;
  }
}
