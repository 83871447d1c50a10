/** One Read of at most a piece: shared lock, one operation per extent touched, holes without any. */
import { type ExtentListener, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { BLOCK_BYTES, BLOCK_SHIFT } from "../core/limits.js";
import { Status } from "../core/status.js";
import type { VolumeRequest } from "./api.js";
import { type LockOwner, RangeLock } from "./range-lock.js";
import type { VolumeCore } from "./volume.js";

export class ReadJob implements LockOwner, ExtentListener {
  readonly #volume: VolumeCore;
  readonly #lock = new RangeLock(this);
  #request: VolumeRequest | null = null;
  #first = 0;
  #blocks = 0;
  #pending = 0;
  #dataBlocks = 0;
  #status: Status = Status.Ok;
  nextFree: ReadJob | null = null;

  constructor(volume: VolumeCore) {
    this.#volume = volume;
  }

  start(request: VolumeRequest): void {
    this.#request = request;
    this.#first = Math.floor(request.offset / BLOCK_BYTES);
    const end = Math.floor((request.offset + request.length - 1) / BLOCK_BYTES) + 1;
    this.#blocks = end - this.#first;
    this.#dataBlocks = 0;
    this.#status = Status.Ok;
    if (this.#volume.locks.acquire(this.#lock, this.#first, end, false)) this.lockGranted();
  }

  lockGranted(): void {
    const volume = this.#volume;
    const request = this.#request!;
    const { layout, extents, owner } = volume;
    request.present.fill(0);
    // Counted before the first submit so that no completion can take it to zero early.
    this.#pending = 1;
    for (let done = 0; done < this.#blocks; ) {
      layout.locate(this.#first + done);
      const { extent, block } = layout;
      const run = Math.min(layout.run, this.#blocks - done);
      if (extents.has(extent)) {
        const op = owner.takeOp(this, done);
        op.kind = ExtentOpKind.Read;
        volume.address(op, extent, block, run);
        op.memory = request.memory + done * BLOCK_BYTES;
        this.#pending++;
        owner.io.submit(op);
      }
      done += run;
    }
    this.#finishOne();
  }

  extentDone(op: ExtentOp): void {
    if (op.status !== Status.Ok) this.#failed(op);
    if (op.presentCount > 0) this.#merge(op);
    this.#volume.owner.giveOp(op);
    this.#finishOne();
  }

  /** Keeps the first error, and of all bad blocks the lowest: the operations end in any order. */
  #failed(op: ExtentOp): void {
    if (this.#status === Status.Ok) this.#status = op.status;
    if (op.status !== Status.Io) return;
    const request = this.#request!;
    const known = op.badBlock >= op.block && op.badBlock < op.block + op.blocks;
    const block = this.#first + op.tag + (known ? op.badBlock - op.block : 0);
    // The first block may begin before the range.
    const offset = Math.max(block * BLOCK_BYTES, request.offset);
    if (request.badOffset < 0 || offset < request.badOffset) request.badOffset = offset;
  }

  /** Copies the operation's presence bits to their place in the request. */
  #merge(op: ExtentOp): void {
    this.#dataBlocks += op.presentCount;
    const { present } = this.#request!;
    const at = op.tag;
    if (op.blocks === 1) {
      present[at >>> 5]! |= 1 << (at & 31);
      return;
    }
    for (let i = 0; i < op.blocks; i++) {
      if ((op.present[i >>> 5]! & (1 << (i & 31))) !== 0) {
        const bit = at + i;
        present[bit >>> 5]! |= 1 << (bit & 31);
      }
    }
  }

  #finishOne(): void {
    this.#pending--;
    if (this.#pending > 0) return;
    const volume = this.#volume;
    const request = this.#request!;
    this.#request = null;
    request.allHole = this.#dataBlocks === 0;
    if (!request.allHole && this.#dataBlocks < this.#blocks) this.#fillHoles(request);
    volume.owner.answer(request, this.#status);
    volume.locks.release(this.#lock);
    volume.endRead(this);
  }

  /** Extents without any byte left memory alone; the request's memory must hold zeros there. */
  #fillHoles(request: VolumeRequest): void {
    const { bytes } = this.#volume.owner.pool;
    const { present, memory } = request;
    for (let i = 0; i < this.#blocks; i++) {
      if ((present[i >>> 5]! & (1 << (i & 31))) === 0) {
        const start = memory + (i << BLOCK_SHIFT);
        bytes.fill(0, start, start + BLOCK_BYTES);
      }
    }
  }
}
