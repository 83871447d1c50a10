/** A machine with one disk and, most of the time, a store on it: what the store's tests drive. */
import { extentSeed, volumeSeed } from "../../../../lib/core/checksum.js";
import type { LaminaError } from "../../../../lib/core/errors.js";
import { type ExtentListener, ExtentOp, ExtentOpKind } from "../../../../lib/core/extent-io.js";
import { BLOCK_BYTES, MIB } from "../../../../lib/core/limits.js";
import type { BadBlock, FormatOptions, Store, StoreEnvironment } from "../../../../lib/store/api.js";
import {
  formatStore,
  fsck,
  type Layout,
  type OpenStoreOptions,
  openStore,
  planFormat,
} from "../../../../lib/store/index.js";
import { Engine } from "./engine.js";
import { MemoryDisk } from "./memory-disk.js";

export const DEVICE_ID = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
export const VOLUME = 7;

export interface SeenEvents {
  readonly rot: BadBlock[];
  readonly full: boolean[];
  readonly failed: string[];
  readonly lossy: boolean[];
  readonly adopted: number[];
  readonly extents: [extent: number, exists: boolean][];
}

export interface MachineOptions {
  readonly sizeBytes?: number;
  readonly format?: Partial<FormatOptions>;
  readonly open?: Partial<OpenStoreOptions>;
  readonly zeroGrainBytes?: number;
}

export class Machine implements ExtentListener {
  engine = new Engine();
  disk: MemoryDisk;
  readonly layout: Layout;
  readonly seen: SeenEvents = { rot: [], full: [], failed: [], lossy: [], adopted: [], extents: [] };
  bootId = "boot-1";
  open: Partial<OpenStoreOptions>;
  #store: Store | null = null;
  readonly #grain: number;
  readonly #answered = new Set<ExtentOp>();

  /** Formats a disk of `sizeBytes` (default 4 MiB, extents of 16 blocks). */
  constructor(options: MachineOptions = {}) {
    const sizeBytes = options.sizeBytes ?? 4 * MIB;
    this.#grain = options.zeroGrainBytes ?? BLOCK_BYTES;
    this.open = { reserveShare: 0, preHotSlots: 2, ...options.open };
    this.disk = new MemoryDisk(this.engine, sizeBytes, { zeroGrainBytes: this.#grain });
    const format: FormatOptions = {
      deviceId: DEVICE_ID,
      clusterId: new Uint8Array(16),
      capacityBytes: sizeBytes,
      extentBlocks: 16,
      records: 8,
      ...options.format,
    };
    this.layout = planFormat(format);
    this.engine.run(formatStore(this.environment(), format));
  }

  get store(): Store {
    if (this.#store === null) throw new Error("the store is not open");
    return this.#store;
  }

  environment(): StoreEnvironment {
    const { engine, seen } = this;
    return {
      disk: this.disk,
      pool: engine.pool,
      clock: engine,
      random: engine,
      ticker: engine,
      checksums: engine.checksums,
      bootId: this.bootId,
      events: {
        bitRot: (bad) => seen.rot.push(bad),
        full: (full) => seen.full.push(full),
        failed: (reason) => seen.failed.push(reason),
        lossy: (lossy) => seen.lossy.push(lossy),
        adopted: (_volume, _extent, blocks) => seen.adopted.push(blocks),
        extentChanged: (_volume, _layer, extent, exists) => seen.extents.push([extent, exists]),
      },
    };
  }

  start(): this {
    const soleMember = this.open.stability === undefined;
    const options = { path: "disk", soleMember, ...this.open };
    this.#store = this.engine.run(openStore(this.environment(), options));
    this.engine.settle();
    return this;
  }

  /** Clean shutdown; the pool must be as empty as before. */
  stop(): LaminaError | null {
    let result: LaminaError | null | undefined;
    this.store.close((error) => {
      result = error;
    });
    for (let i = 0; result === undefined && i < 1000; i++) this.engine.advance(10);
    if (result === undefined) throw new Error("close did not end");
    this.#store = null;
    if (this.engine.pool.freeBytes !== this.engine.pool.capacityBytes)
      throw new Error("close left pool buffers");
    return result;
  }

  /** kill -9: what was asked of the disk and has not happened does not; the page cache stays. */
  kill(): this {
    return this.#reborn(this.disk.bytes);
  }

  /** Power loss: un-synced sectors are kept as `keep` says; another boot. */
  powerLoss(keep: (sector: number) => boolean = () => false): this {
    this.bootId = `${this.bootId}+`;
    return this.#reborn(this.disk.afterPowerLoss(keep));
  }

  #reborn(content: Uint8Array): this {
    this.engine.kill();
    const now = this.engine;
    this.engine = new Engine();
    this.engine.advance(now.now());
    this.disk = new MemoryDisk(this.engine, content.length, { content, zeroGrainBytes: this.#grain });
    this.#store = null;
    return this;
  }

  /** Findings of the offline check, as sentences. */
  fsck(): string[] {
    return this.engine.run(fsck(this.environment())).findings.map(({ message }) => message);
  }

  // ---- Operations --------------------------------------------------------------------------------------

  extentDone(op: ExtentOp): void {
    if (this.#answered.has(op)) throw new Error("an operation was answered twice");
    this.#answered.add(op);
  }

  answered(op: ExtentOp): boolean {
    return this.#answered.has(op);
  }

  op(kind: ExtentOpKind, extent: number, block: number, blocks: number, flags = 0): ExtentOp {
    const op = new ExtentOp();
    op.kind = kind;
    op.volume = VOLUME;
    op.extent = extent;
    op.block = block;
    op.blocks = blocks;
    op.flags = flags;
    op.listener = this;
    return op;
  }

  submit(op: ExtentOp): ExtentOp {
    this.store.submit(op);
    return op;
  }

  /** Submits and waits, letting up to `ms` of time pass. */
  do(op: ExtentOp, ms = 60_000): ExtentOp {
    this.submit(op);
    for (let waited = 0; waited <= ms; waited += 100) {
      this.engine.settle();
      if (this.answered(op)) return op;
      this.engine.advance(100);
    }
    throw new Error("an operation was not answered");
  }

  /** A write of blocks filled with `fill` (0: zeros), submitted only. */
  writing(extent: number, block: number, fills: readonly number[], flags = 0): ExtentOp {
    const op = this.op(ExtentOpKind.Write, extent, block, fills.length, flags);
    op.memory = this.engine.pool.allocate(fills.length * BLOCK_BYTES);
    fills.forEach((fill, i) => {
      const at = op.memory + i * BLOCK_BYTES;
      this.engine.pool.bytes.fill(fill, at, at + BLOCK_BYTES);
    });
    const seed = extentSeed(volumeSeed(op.volume), extent);
    this.engine.checksums.blockEntries(op.memory, fills.length, seed, block, op.entries, 0);
    return op;
  }

  write(extent: number, block: number, fills: readonly number[], flags = 0): number {
    const op = this.do(this.writing(extent, block, fills, flags));
    this.engine.pool.free(op.memory);
    return op.status;
  }

  /** First byte of each block; −1 for a block whose bytes are not all equal, −5 for all on an error. */
  read(extent: number, block: number, blocks: number): number[] {
    const op = this.op(ExtentOpKind.Read, extent, block, blocks);
    op.memory = this.engine.pool.allocate(blocks * BLOCK_BYTES);
    this.engine.pool.bytes.fill(0xee, op.memory, op.memory + blocks * BLOCK_BYTES);
    this.do(op);
    const { bytes } = this.engine.pool;
    const fills: number[] = [];
    for (let i = 0; i < blocks; i++) {
      const at = op.memory + i * BLOCK_BYTES;
      const fill = bytes[at]!;
      const uniform = bytes.subarray(at, at + BLOCK_BYTES).every((byte) => byte === fill);
      fills.push(op.status !== 0 ? -5 : op.presentCount === 0 ? 0 : uniform ? fill : -1);
    }
    this.engine.pool.free(op.memory);
    return fills;
  }

  zero(extent: number, block: number, blocks: number, flags = 0): number {
    return this.do(this.op(ExtentOpKind.Zero, extent, block, blocks, flags)).status;
  }

  free(extent: number, flags = 0): number {
    return this.do(this.op(ExtentOpKind.Free, extent, 0, this.layout.extentBlocks, flags)).status;
  }

  flush(): number {
    return this.do(this.op(ExtentOpKind.Flush, 0, 0, 0)).status;
  }

  /** Which blocks of the extent have bytes. */
  map(extent: number): number[] {
    const op = this.do(this.op(ExtentOpKind.Map, extent, 0, this.layout.extentBlocks));
    return Array.from(
      { length: this.layout.extentBlocks },
      (_, i) => (op.present[i >>> 5]! >>> (i & 31)) & 1,
    );
  }
}
