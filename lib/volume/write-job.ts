/**
 * One Write of at most a piece. Exclusive lock; if an end is not on a block boundary, the old block is read
 * into scratch and merged (under the same lock, so two half-block writers never lose each other: invariant
 * 5); then one operation per extent touched, with the checksums computed here. Unless its client is gone by then (rule 5 of
 * api.ts): a Trim passes over extents that nobody has begun to write, so what it must not pass is not begun late.
 */

import { extentSeed } from "../core/checksum.js";
import { ExtentFlag, type ExtentListener, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { Status } from "../core/status.js";
import { VolumeFlag, type VolumeRequest } from "./api.js";
import type { ScratchWaiter } from "./owner.js";
import { type LockOwner, RangeLock } from "./range-lock.js";
import type { VolumeCore } from "./volume.js";

const TAG_DATA = 0;
const TAG_HEAD = 1;
const TAG_TAIL = 2;
const TAG_FLUSH = 3;

const NO_SCRATCH = -1;

export class WriteJob implements LockOwner, ExtentListener, ScratchWaiter {
  readonly #volume: VolumeCore;
  readonly #lock = new RangeLock(this);
  #request: VolumeRequest | null = null;
  #first = 0;
  #blocks = 0;
  /** Bytes of the first and the last block that are kept: before the range, and behind it. */
  #headBytes = 0;
  #tailBytes = 0;
  #headScratch = NO_SCRATCH;
  #tailScratch = NO_SCRATCH;
  #pending = 0;
  #status: Status = Status.Ok;
  scratchWanted = 0;
  nextWaiter: ScratchWaiter | null = null;
  nextFree: WriteJob | null = null;

  constructor(volume: VolumeCore) {
    this.#volume = volume;
  }

  start(request: VolumeRequest): void {
    this.#request = request;
    const endByte = request.offset + request.length;
    this.#first = Math.floor(request.offset / BLOCK_BYTES);
    const end = Math.floor((endByte - 1) / BLOCK_BYTES) + 1;
    this.#blocks = end - this.#first;
    this.#headBytes = request.offset % BLOCK_BYTES;
    this.#tailBytes = (BLOCK_BYTES - (endByte % BLOCK_BYTES)) % BLOCK_BYTES;
    this.#status = Status.Ok;
    if (this.#volume.locks.acquire(this.#lock, this.#first, end, true)) this.lockGranted();
  }

  lockGranted(): void {
    if (this.#headBytes === 0 && this.#tailBytes === 0) {
      this.#write();
      return;
    }
    const oneBlock = this.#blocks === 1;
    this.scratchWanted = oneBlock || this.#headBytes === 0 || this.#tailBytes === 0 ? 1 : 2;
    if (this.#volume.owner.wantScratch(this)) this.scratchReady();
  }

  scratchReady(): void {
    const { owner } = this.#volume;
    const oneBlock = this.#blocks === 1;
    if (this.#headBytes > 0 || oneBlock) this.#headScratch = owner.takeScratch();
    if (this.#tailBytes > 0 && !oneBlock) this.#tailScratch = owner.takeScratch();
    this.#pending = 1;
    if (this.#headScratch !== NO_SCRATCH) this.#readOld(this.#first, this.#headScratch, TAG_HEAD);
    if (this.#tailScratch !== NO_SCRATCH) {
      this.#readOld(this.#first + this.#blocks - 1, this.#tailScratch, TAG_TAIL);
    }
    this.#edgeDone();
  }

  #readOld(volumeBlock: number, scratch: number, tag: number): void {
    const { layout, extents, owner } = this.#volume;
    layout.locate(volumeBlock);
    if (!extents.has(layout.extent)) {
      this.#merge(tag, false);
      return;
    }
    const op = owner.takeOp(this, tag);
    op.kind = ExtentOpKind.Read;
    this.#volume.address(op, layout.extent, layout.block, 1);
    op.memory = scratch;
    this.#pending++;
    owner.io.submit(op);
  }

  /** Brings the kept bytes of an end block into the request's memory. */
  #merge(tag: number, present: boolean): void {
    const request = this.#request!;
    const { bytes } = this.#volume.owner.pool;
    const scratch = tag === TAG_HEAD ? this.#headScratch : this.#tailScratch;
    const both = this.#blocks === 1;
    if (tag === TAG_HEAD && this.#headBytes > 0) {
      keep(bytes, request.memory, scratch, 0, this.#headBytes, present);
    }
    if (tag === TAG_TAIL || (both && this.#tailBytes > 0)) {
      const block = request.memory + (this.#blocks - 1) * BLOCK_BYTES;
      keep(bytes, block, scratch, BLOCK_BYTES - this.#tailBytes, this.#tailBytes, present);
    }
  }

  #edgeDone(): void {
    this.#pending--;
    if (this.#pending > 0) return;
    this.#giveScratch();
    if (this.#status === Status.Ok) this.#write();
    else this.#end();
  }

  #giveScratch(): void {
    const { owner } = this.#volume;
    const head = this.#headScratch;
    const tail = this.#tailScratch;
    this.#headScratch = NO_SCRATCH;
    this.#tailScratch = NO_SCRATCH;
    if (head !== NO_SCRATCH) owner.giveScratch(head);
    if (tail !== NO_SCRATCH) owner.giveScratch(tail);
  }

  #write(): void {
    const volume = this.#volume;
    const request = this.#request!;
    const { layout, extents, owner } = volume;
    if (!request.listener.stillWanted(request)) {
      this.#status = Status.Shutdown;
      this.#end();
      return;
    }
    const fua = (request.flags & VolumeFlag.Fua) !== 0;
    const flags = (fua ? ExtentFlag.Fua : 0) | volume.writeFlags;
    let skipped = false;
    this.#pending = 1;
    for (let done = 0; done < this.#blocks; ) {
      layout.locate(this.#first + done);
      const { extent, block } = layout;
      const run = Math.min(layout.run, this.#blocks - done);
      const memory = request.memory + done * BLOCK_BYTES;
      if (!extents.has(extent) && owner.isZero(memory, run * BLOCK_BYTES)) {
        // Zeros over nothing stay nothing: a thin volume stays thin.
        skipped = true;
      } else {
        extents.add(extent);
        const op = owner.takeOp(this, TAG_DATA);
        op.kind = ExtentOpKind.Write;
        volume.address(op, extent, block, run);
        op.memory = memory;
        op.flags = flags;
        owner.checksums.blockEntries(memory, run, extentSeed(volume.seed, extent), block, op.entries, 0);
        this.#pending++;
        owner.io.submit(op);
      }
      done += run;
    }
    // The zeros may only be there because of a trim that is not stable yet.
    if (skipped && fua) {
      const op = owner.takeOp(this, TAG_FLUSH);
      op.kind = ExtentOpKind.Flush;
      this.#pending++;
      owner.io.submit(op);
    }
    this.#dataDone();
  }

  extentDone(op: ExtentOp): void {
    if (op.status !== Status.Ok && this.#status === Status.Ok) this.#status = op.status;
    const { tag } = op;
    const { presentCount } = op;
    this.#volume.owner.giveOp(op);
    if (tag === TAG_HEAD || tag === TAG_TAIL) {
      this.#merge(tag, presentCount > 0);
      this.#edgeDone();
    } else {
      this.#dataDone();
    }
  }

  #dataDone(): void {
    this.#pending--;
    if (this.#pending === 0) this.#end();
  }

  #end(): void {
    const volume = this.#volume;
    const request = this.#request!;
    this.#request = null;
    volume.owner.answer(request, this.#status);
    volume.locks.release(this.#lock);
    volume.endWrite(this);
  }
}

function keep(
  bytes: Uint8Array,
  block: number,
  scratch: number,
  from: number,
  length: number,
  present: boolean,
): void {
  if (present) bytes.copyWithin(block + from, scratch + from, scratch + from + length);
  else bytes.fill(0, block + from, block + from + length);
}
