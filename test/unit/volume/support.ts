/**
 * A volume on an in-memory ExtentIo that answers in any order and refuses what its contract forbids, beside a
 * plain array of bytes.
 */

import type { Checksums } from "../../../lib/core/checksum.js";
import { entryOfCrc } from "../../../lib/core/checksum.js";
import type { Ticker, TickTask } from "../../../lib/core/clock.js";
import { ExtentFlag, type ExtentIo, type ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { epoch, generation, volumeId } from "../../../lib/core/ids.js";
import { BLOCK_BYTES, MIB } from "../../../lib/core/limits.js";
import { Pool } from "../../../lib/core/pool.js";
import type { VolumeRecord } from "../../../lib/replica/record.js";
import { VolumeOp, VolumeRequest } from "../../../lib/volume/api.js";
import { type AnswerGate, VolumeOwner } from "../../../lib/volume/owner.js";
import { VolumeCore } from "../../../lib/volume/volume.js";

/** xorshift32: a test's own randomness, from its seed. */
export class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = seed | 1;
  }
  u32(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
  below(bound: number): number {
    return this.u32() % bound;
  }
}

export class ManualTicker implements Ticker {
  #tasks: TickTask[] = [];
  atTickEnd(task: TickTask): void {
    this.#tasks.push(task);
  }
  run(): void {
    while (this.#tasks.length > 0) this.#tasks.shift()!.tick();
  }
}

/** Not a crc: good enough to see that blocks, seeds and numbers arrive where they belong. */
export function fakeChecksums(pool: Pool): Checksums {
  const sum = (bytes: Uint8Array, from: number, length: number, seed: number): number => {
    let hash = seed | 0;
    for (let i = from; i < from + length; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193);
    return hash >>> 0;
  };
  return {
    crc32c: (memory, length, seed) => sum(pool.bytes, memory, length, seed),
    crc32cBytes: (bytes, seed) => sum(bytes, 0, bytes.length, seed),
    blockEntries: (memory, count, extentSeed, firstBlock, out, at) => {
      for (let i = 0; i < count; i++) {
        const seed = extentSeed + firstBlock + i;
        out[at + i] = entryOfCrc(sum(pool.bytes, memory + i * BLOCK_BYTES, BLOCK_BYTES, seed));
      }
    },
  };
}

export class FakeExtents implements ExtentIo {
  readonly blocks = new Map<string, Uint8Array>();
  readonly inFlight: ExtentOp[] = [];
  readonly pool: Pool;
  readonly seen: number[] = [];
  readonly fail = new Set<number>();
  /** "extent:block" of blocks that no Read can have. */
  readonly rotten = new Set<string>();

  constructor(pool: Pool) {
    this.pool = pool;
  }

  submit(op: ExtentOp): void {
    for (const other of this.inFlight) {
      const reads = op.kind === ExtentOpKind.Read && other.kind === ExtentOpKind.Read;
      const lockless = [op.kind, other.kind].some(
        (kind) => kind === ExtentOpKind.Map || kind === ExtentOpKind.Flush,
      );
      const overlap =
        op.extent === other.extent &&
        op.block < other.block + other.blocks &&
        other.block < op.block + op.blocks;
      if (!reads && !lockless && overlap) throw new Error("two operations in flight touch one block");
    }
    this.seen.push(op.kind);
    this.inFlight.push(op);
  }

  /** Executes and answers one of the operations in flight. */
  answer(index: number): void {
    const [op] = this.inFlight.splice(index, 1);
    this.#execute(op!);
    op!.listener.extentDone(op!);
  }

  #execute(op: ExtentOp): void {
    op.status = this.fail.has(op.kind) ? 5 : 0;
    op.present.fill(0);
    op.presentCount = 0;
    op.badBlock = -1;
    const { bytes } = this.pool;
    const key = (i: number): string => `${op.extent}:${op.block + i}`;
    for (let i = op.blocks - 1; i >= 0; i--) {
      if (op.kind === ExtentOpKind.Read && this.rotten.has(key(i))) op.badBlock = op.block + i;
    }
    if (op.badBlock >= 0) op.status = 5;
    if (op.status !== 0) return;
    for (let i = 0; i < op.blocks; i++) {
      const at = op.memory + i * BLOCK_BYTES;
      switch (op.kind) {
        case ExtentOpKind.Read:
        case ExtentOpKind.Map: {
          const block = this.blocks.get(key(i));
          if (block === undefined) break;
          op.present[i >>> 5]! |= 1 << (i & 31);
          op.presentCount++;
          if (op.kind === ExtentOpKind.Read) bytes.set(block, at);
          break;
        }
        case ExtentOpKind.Write:
          this.blocks.set(key(i), bytes.slice(at, at + BLOCK_BYTES));
          break;
        case ExtentOpKind.Zero:
          if ((op.flags & ExtentFlag.NoHole) !== 0) this.blocks.set(key(i), new Uint8Array(BLOCK_BYTES));
          else this.blocks.delete(key(i));
          break;
        case ExtentOpKind.Free:
          this.blocks.delete(key(i));
          break;
        case ExtentOpKind.Flush:
        case ExtentOpKind.Stamp:
          break;
      }
    }
    if (op.kind === ExtentOpKind.Read && op.presentCount > 0) {
      for (let i = 0; i < op.blocks; i++) {
        if (!this.blocks.has(key(i))) {
          bytes.fill(0, op.memory + i * BLOCK_BYTES, op.memory + (i + 1) * BLOCK_BYTES);
        }
      }
    }
  }
}

export function record(size: number, stripeCount: number, stripeUnit: number): VolumeRecord {
  return {
    id: volumeId(77),
    name: "v",
    size,
    description: "",
    readOnly: false,
    policy: { replicas: 1, minReplicas: 1, stripeCount, stripeUnit, onFull: "wait" },
    access: [],
    epoch: epoch(1),
    generation: generation(1),
    version: 1,
    createdAt: 0,
    state: "live",
  };
}

export interface Rig {
  readonly pool: Pool;
  readonly io: FakeExtents;
  readonly ticker: ManualTicker;
  readonly owner: VolumeOwner;
  readonly volume: VolumeCore;
  readonly freeAtStart: number;
}

export function rig(options: {
  blocks: number;
  stripeCount?: number;
  unitBlocks?: number;
  extentBlocks?: number;
  gate?: AnswerGate;
}): Rig {
  const pool = new Pool(new Uint8Array(16 * MIB));
  const freeAtStart = pool.freeBytes;
  const io = new FakeExtents(pool);
  const ticker = new ManualTicker();
  const owner = new VolumeOwner({
    io,
    pool,
    ticker,
    checksums: fakeChecksums(pool),
    extentBlocks: options.extentBlocks ?? 16,
    ...(options.gate === undefined ? {} : { gate: options.gate }),
  });
  const volume = new VolumeCore(
    owner,
    record(options.blocks * BLOCK_BYTES, options.stripeCount ?? 1, (options.unitBlocks ?? 4) * BLOCK_BYTES),
  );
  return { pool, io, ticker, owner, volume, freeAtStart };
}

/** Answers everything in flight, in an order of the dice, until nothing is left. */
export function settle({ io, ticker }: Rig, dice: Dice): void {
  for (;;) {
    ticker.run();
    if (io.inFlight.length === 0) return;
    io.answer(dice.below(io.inFlight.length));
  }
}

export interface Ask {
  readonly op: VolumeOp;
  readonly offset: number;
  readonly length: number;
  readonly flags?: number;
  readonly data?: Uint8Array;
  /** False: the asker is gone. */
  readonly wanted?: () => boolean;
}

/** Submits; `done` gets the request and, for a read, its bytes. */
export function ask(rigged: Rig, what: Ask, done: (request: VolumeRequest, bytes: Uint8Array) => void): void {
  const { pool, volume } = rigged;
  const request = new VolumeRequest();
  request.op = what.op;
  request.offset = what.offset;
  request.length = what.length;
  request.flags = what.flags ?? 0;
  const payload = what.op === VolumeOp.Read || what.op === VolumeOp.Write;
  const skip = what.offset % BLOCK_BYTES;
  const enclosing = Math.ceil((skip + what.length) / BLOCK_BYTES) * BLOCK_BYTES;
  if (payload) {
    request.memory = pool.allocate(enclosing);
    // Scratch must not shine through.
    pool.bytes.fill(0xee, request.memory, request.memory + enclosing);
    if (what.data !== undefined) pool.bytes.set(what.data, request.memory + skip);
  }
  request.listener = {
    volumeDone: () => {
      let bytes = new Uint8Array(0);
      if (what.op === VolumeOp.Read) {
        bytes = request.allHole
          ? new Uint8Array(what.length)
          : pool.bytes.slice(request.memory + skip, request.memory + skip + what.length);
      }
      if (payload) pool.free(request.memory);
      done(request, bytes);
    },
    stillWanted: () => what.wanted?.() ?? true,
  };
  volume.submit(request);
}
