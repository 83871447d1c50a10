/**
 * One Trim or Zero of any length: metadata work, group of extents by group of extents, each under its own
 * lock, so that a request over terabytes never holds up the whole volume. Groups without extents are skipped
 * without lock or operation.
 *
 * Each group or partial block is begun only while somebody wants the answer (rule 5 of api.ts): between two of them its
 * range is free, and what others wrote there since must not be zeroed for a client that is gone.
 *
 * Trim rounds inward to whole blocks (C8: a hint). Zero does its partial blocks at the ends by
 * read-modify-write. Whole extents are freed by record (unless NO_HOLE asks for provisioning).
 */
import { extentSeed } from "../core/checksum.js";
import { ExtentFlag, type ExtentListener, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { Status } from "../core/status.js";
import { VolumeFlag, VolumeOp, type VolumeRequest } from "./api.js";
import type { ScratchWaiter } from "./owner.js";
import { type LockOwner, RangeLock } from "./range-lock.js";
import type { VolumeCore } from "./volume.js";

/** Runs of whole blocks that the store gives back instead of writing zeros (DESIGN §5, "Zeroing"). */
export const FAST_ZERO_BLOCKS = 16;

const Phase = { Head: 0, Tail: 1, Groups: 2, Flush: 3 } as const;
type Phase = (typeof Phase)[keyof typeof Phase];

export class RangeJob implements LockOwner, ExtentListener, ScratchWaiter {
  readonly #volume: VolumeCore;
  readonly #lock = new RangeLock(this);
  #request: VolumeRequest | null = null;
  #phase: Phase = Phase.Head;
  /** Whole blocks. */
  #first = 0;
  #end = 0;
  #cursor = 0;
  #groupEnd = 0;
  #noHole = false;
  #fua = false;
  #flags = 0;
  #pending = 0;
  #status: Status = Status.Ok;
  /** The partial block being zeroed: its number and the bytes from … to. */
  #edgeBlock = 0;
  #edgeFrom = 0;
  #edgeTo = 0;
  #edgeWriting = false;
  #scratch = 0;
  readonly scratchWanted = 1;
  nextWaiter: ScratchWaiter | null = null;
  nextFree: RangeJob | null = null;

  constructor(volume: VolumeCore) {
    this.#volume = volume;
  }

  start(request: VolumeRequest): void {
    const endByte = request.offset + request.length;
    this.#request = request;
    this.#first = Math.ceil(request.offset / BLOCK_BYTES);
    this.#end = Math.floor(endByte / BLOCK_BYTES);
    this.#cursor = this.#first;
    this.#noHole = request.op === VolumeOp.Zero && (request.flags & VolumeFlag.NoHole) !== 0;
    this.#fua = (request.flags & VolumeFlag.Fua) !== 0;
    this.#flags = this.#volume.writeFlags | (this.#noHole ? ExtentFlag.NoHole : 0);
    this.#status = Status.Ok;
    if ((request.flags & VolumeFlag.FastZero) !== 0 && !this.#isFast(request)) {
      this.#fua = false;
      this.#status = Status.NotSup;
      this.#finish();
      return;
    }
    this.#phase = request.op === VolumeOp.Zero ? Phase.Head : Phase.Groups;
    this.#next();
  }

  /** FAST_ZERO is decided from the request and the map of extents, before anything changes (C10). */
  #isFast(request: VolumeRequest): boolean {
    if (this.#noHole) return false;
    if (request.offset % BLOCK_BYTES !== 0 || request.length % BLOCK_BYTES !== 0) return false;
    const { layout, extents } = this.#volume;
    if (extents.next(layout.groupOf(this.#first) * layout.stripeCount) >= layout.extentsFor(this.#end)) {
      return true;
    }
    return this.#first % FAST_ZERO_BLOCKS === 0 && this.#end % FAST_ZERO_BLOCKS === 0;
  }

  /** The next step of the current phase; runs until something must be waited for. */
  #next(): void {
    if (this.#status !== Status.Ok) {
      this.#finish();
      return;
    }
    const request = this.#request!;
    if (this.#phase === Phase.Head) {
      this.#phase = Phase.Tail;
      const from = request.offset % BLOCK_BYTES;
      if (from !== 0) {
        const block = Math.floor(request.offset / BLOCK_BYTES);
        this.#startEdge(block, from, Math.min(BLOCK_BYTES, from + request.length));
        return;
      }
    }
    if (this.#phase === Phase.Tail) {
      this.#phase = Phase.Groups;
      const endByte = request.offset + request.length;
      const to = endByte % BLOCK_BYTES;
      const block = Math.floor(endByte / BLOCK_BYTES);
      const headDidIt =
        request.offset % BLOCK_BYTES !== 0 && block === Math.floor(request.offset / BLOCK_BYTES);
      if (to !== 0 && !headDidIt) {
        this.#startEdge(block, 0, to);
        return;
      }
    }
    this.#nextGroup();
  }

  #nextGroup(): void {
    const { layout, extents, locks } = this.#volume;
    if (!this.#noHole && this.#cursor < this.#end) {
      // Straight to the next group that has an extent.
      const group = layout.groupOf(this.#cursor);
      const next = Math.floor(extents.next(group * layout.stripeCount) / layout.stripeCount);
      if (next > group) this.#cursor = Math.min(this.#end, next * layout.groupBlocks);
    }
    if (this.#cursor >= this.#end) {
      this.#finish();
      return;
    }
    const group = layout.groupOf(this.#cursor);
    this.#groupEnd = Math.min(this.#end, (group + 1) * layout.groupBlocks);
    this.#edgeBlock = -1;
    if (locks.acquire(this.#lock, this.#cursor, this.#groupEnd, true)) this.lockGranted();
  }

  lockGranted(): void {
    if (this.#edgeBlock >= 0) this.#edgeLocked();
    else this.#submitGroup();
  }

  #submitGroup(): void {
    const volume = this.#volume;
    const { layout, extents, owner } = volume;
    const group = layout.groupOf(this.#cursor);
    const start = group * layout.groupBlocks;
    this.#pending = 1;
    if (!this.#isWanted()) {
      this.#groupOpDone();
      return;
    }
    for (let column = 0; column < layout.stripeCount; column++) {
      const low = layout.coveredFrom(this.#cursor - start, column);
      const high = layout.coveredFrom(this.#groupEnd - start, column);
      const extent = group * layout.stripeCount + column;
      if (low >= high || (!this.#noHole && !extents.has(extent))) continue;
      if (this.#noHole) extents.add(extent);
      const whole = high - low === layout.extentBlocks && !this.#noHole;
      const op = owner.takeOp(this, 0);
      op.kind = whole ? ExtentOpKind.Free : ExtentOpKind.Zero;
      volume.address(op, extent, low, high - low);
      op.flags = this.#flags;
      this.#pending++;
      owner.io.submit(op);
    }
    this.#groupOpDone();
  }

  /** Whether to begin the next change; if not, the job is to end. */
  #isWanted(): boolean {
    const request = this.#request!;
    const wanted = request.listener.stillWanted(request);
    if (!wanted) this.#status = Status.Shutdown;
    return wanted;
  }

  #groupOpDone(): void {
    this.#pending--;
    if (this.#pending > 0) return;
    this.#cursor = this.#groupEnd;
    this.#volume.locks.release(this.#lock);
    this.#next();
  }

  extentDone(op: ExtentOp): void {
    const volume = this.#volume;
    if (op.status !== Status.Ok && this.#status === Status.Ok) this.#status = op.status;
    if (op.kind === ExtentOpKind.Free && op.status === Status.Ok) volume.extents.delete(op.extent);
    const { presentCount } = op;
    volume.owner.giveOp(op);
    if (this.#phase === Phase.Flush) this.#answer();
    else if (this.#edgeBlock < 0) this.#groupOpDone();
    else if (this.#edgeWriting || this.#status !== Status.Ok) this.#edgeDone();
    else this.#edgeRead(presentCount > 0);
  }

  #startEdge(block: number, from: number, to: number): void {
    this.#edgeBlock = block;
    this.#edgeFrom = from;
    this.#edgeTo = to;
    this.#edgeWriting = false;
    if (this.#volume.locks.acquire(this.#lock, block, block + 1, true)) this.#edgeLocked();
  }

  #edgeLocked(): void {
    const { layout, extents, owner } = this.#volume;
    layout.locate(this.#edgeBlock);
    if (!extents.has(layout.extent) && !this.#noHole) {
      this.#edgeUnlock();
      return;
    }
    if (owner.wantScratch(this)) this.scratchReady();
  }

  scratchReady(): void {
    const { layout, extents, owner } = this.#volume;
    this.#scratch = owner.takeScratch();
    layout.locate(this.#edgeBlock);
    if (!extents.has(layout.extent)) {
      this.#edgeRead(false);
      return;
    }
    const op = owner.takeOp(this, 0);
    op.kind = ExtentOpKind.Read;
    this.#volume.address(op, layout.extent, layout.block, 1);
    op.memory = this.#scratch;
    owner.io.submit(op);
  }

  #edgeRead(present: boolean): void {
    const volume = this.#volume;
    const { layout, extents, owner } = volume;
    const { bytes } = owner.pool;
    if ((!present && !this.#noHole) || !this.#isWanted()) {
      this.#edgeDone();
      return;
    }
    if (present) bytes.fill(0, this.#scratch + this.#edgeFrom, this.#scratch + this.#edgeTo);
    else bytes.fill(0, this.#scratch, this.#scratch + BLOCK_BYTES);
    layout.locate(this.#edgeBlock);
    const { extent, block } = layout;
    extents.add(extent);
    this.#edgeWriting = true;
    const op = owner.takeOp(this, 0);
    // Provisioning a block that is all zeros is a Zero; a Write of zeros over nothing would stay nothing.
    op.kind = present ? ExtentOpKind.Write : ExtentOpKind.Zero;
    volume.address(op, extent, block, 1);
    op.memory = this.#scratch;
    op.flags = present ? volume.writeFlags : this.#flags;
    if (present) {
      owner.checksums.blockEntries(this.#scratch, 1, extentSeed(volume.seed, extent), block, op.entries, 0);
    }
    owner.io.submit(op);
  }

  #edgeDone(): void {
    this.#volume.owner.giveScratch(this.#scratch);
    this.#edgeUnlock();
  }

  #edgeUnlock(): void {
    this.#edgeBlock = -1;
    this.#volume.locks.release(this.#lock);
    this.#next();
  }

  /** FUA covers all that was done here, and zeros that were there already by an unstable trim. */
  #finish(): void {
    if (!this.#fua || this.#status !== Status.Ok) {
      this.#answer();
      return;
    }
    this.#phase = Phase.Flush;
    const { owner } = this.#volume;
    const op = owner.takeOp(this, 0);
    op.kind = ExtentOpKind.Flush;
    owner.io.submit(op);
  }

  #answer(): void {
    const request = this.#request!;
    this.#request = null;
    this.#volume.owner.answer(request, this.#status);
    this.#volume.endRange(this);
  }
}
