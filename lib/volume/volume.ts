/**
 * One open volume, as its owner runs it. Joins layout, range locks, extent map and jobs; each kind of request
 * has a job of its own file.
 *
 * Invariants
 *  1. Every operation on an extent is sent under a range lock that covers its blocks (Map excepted).
 *  2. The write sequence rises with every operation that changes something; a node can order by it.
 *  3. Once sent, an operation runs to completion whether its client still lives or not. Nothing is sent for one that is
 *     gone.
 */
import { assert } from "../core/assert.js";
import { volumeSeed } from "../core/checksum.js";
import { ExtentFlag, type ExtentListener, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { Status } from "../core/status.js";
import type { VolumeRecord } from "../replica/record.js";
import { type Volume, VolumeOp, type VolumeRequest } from "./api.js";
import { ExtentMap } from "./extent-map.js";
import { type Layout, layoutOf } from "./layout.js";
import { MapJob } from "./map-job.js";
import type { VolumeOwner } from "./owner.js";
import { RangeJob } from "./range-job.js";
import { RangeLocks } from "./range-lock.js";
import { ReadJob } from "./read-job.js";
import { WriteJob } from "./write-job.js";

export class VolumeCore implements Volume, ExtentListener {
  readonly id: number;
  readonly owner: VolumeOwner;
  readonly layout: Layout;
  readonly extents = new ExtentMap();
  readonly locks = new RangeLocks();
  /** Seed of the checksums of all its extents. */
  readonly seed: number;
  #record: VolumeRecord;
  #sequence = 0;
  #busy = 0;
  #idle: (() => void) | null = null;
  #freeRead: ReadJob | null = null;
  #freeWrite: WriteJob | null = null;
  #freeRange: RangeJob | null = null;
  readonly #flushes: VolumeRequest[] = [];
  readonly #freeFlushTags: number[] = [];

  constructor(owner: VolumeOwner, record: VolumeRecord) {
    this.owner = owner;
    this.id = record.id;
    this.seed = volumeSeed(record.id);
    this.#record = record;
    this.layout = layoutOf(owner.extentBlocks, record.policy);
  }

  get name(): string {
    return this.#record.name;
  }

  get sizeBytes(): number {
    return this.#record.size;
  }

  get readOnly(): boolean {
    return this.#record.readOnly;
  }

  get preferredBytes(): number {
    return this.layout.stripeCount === 1 ? BLOCK_BYTES : this.layout.unitBlocks * BLOCK_BYTES;
  }

  /** ExtentFlag bits that every changing operation carries. */
  get writeFlags(): number {
    return this.#record.policy.onFull === "enospc" ? ExtentFlag.NoWait : 0;
  }

  /** Requests in flight. */
  get inFlight(): number {
    return this.#busy;
  }

  /** A newer record: larger size, other name or policy. Takes effect with the next request. */
  update(record: VolumeRecord): void {
    assert(record.id === this.id && record.size >= this.#record.size, "a volume only grows");
    this.#record = record;
  }

  submit(request: VolumeRequest): void {
    const { op } = request;
    assert(request.offset + request.length <= this.sizeBytes, "a request lies inside its volume");
    this.#busy++;
    switch (op) {
      case VolumeOp.Read:
        this.#takeRead().start(request);
        break;
      case VolumeOp.Write:
        if (this.readOnly) this.#answerNow(request, Status.Perm);
        else this.#takeWrite().start(request);
        break;
      case VolumeOp.Trim:
      case VolumeOp.Zero:
        if (this.readOnly) this.#answerNow(request, Status.Perm);
        else this.#takeRange().start(request);
        break;
      case VolumeOp.Flush:
        this.#flush(request);
        break;
      case VolumeOp.Map:
        new MapJob(this).start(request);
        break;
      case VolumeOp.Cache:
        // Advisory (C11). Nothing is cached above the disk's own speed.
        this.#answerNow(request, Status.Ok);
        break;
    }
  }

  /** `then` is called once, when nothing is in flight. */
  whenIdle(then: () => void): void {
    if (this.#busy === 0) then();
    else this.#idle = then;
  }

  /** Fills in address and stamps of an operation. */
  address(op: ExtentOp, extent: number, block: number, blocks: number): void {
    op.volume = this.id;
    op.layer = 0;
    op.extent = extent;
    op.block = block;
    op.blocks = blocks;
    op.epoch = this.#record.epoch;
    op.generation = this.#record.generation;
    op.sequence = ++this.#sequence;
  }

  endRead(job: ReadJob): void {
    job.nextFree = this.#freeRead;
    this.#freeRead = job;
    this.#ended();
  }

  endWrite(job: WriteJob): void {
    job.nextFree = this.#freeWrite;
    this.#freeWrite = job;
    this.#ended();
  }

  endRange(job: RangeJob): void {
    job.nextFree = this.#freeRange;
    this.#freeRange = job;
    this.#ended();
  }

  endMap(): void {
    this.#ended();
  }

  #takeRead(): ReadJob {
    const job = this.#freeRead;
    if (job === null) return new ReadJob(this);
    this.#freeRead = job.nextFree;
    return job;
  }

  #takeWrite(): WriteJob {
    const job = this.#freeWrite;
    if (job === null) return new WriteJob(this);
    this.#freeWrite = job.nextFree;
    return job;
  }

  #takeRange(): RangeJob {
    const job = this.#freeRange;
    if (job === null) return new RangeJob(this);
    this.#freeRange = job.nextFree;
    return job;
  }

  #flush(request: VolumeRequest): void {
    let tag = this.#freeFlushTags.pop();
    if (tag === undefined) tag = this.#flushes.length;
    this.#flushes[tag] = request;
    const op = this.owner.takeOp(this, tag);
    op.kind = ExtentOpKind.Flush;
    this.address(op, 0, 0, 0);
    this.owner.io.submit(op);
  }

  extentDone(op: ExtentOp): void {
    const { tag, status } = op;
    const request = this.#flushes[tag]!;
    this.#freeFlushTags.push(tag);
    this.owner.giveOp(op);
    this.#answerNow(request, status);
  }

  #answerNow(request: VolumeRequest, status: Status): void {
    this.owner.answer(request, status);
    this.#ended();
  }

  #ended(): void {
    this.#busy--;
    if (this.#busy === 0 && this.#idle !== null) {
      const idle = this.#idle;
      this.#idle = null;
      idle();
    }
  }
}
