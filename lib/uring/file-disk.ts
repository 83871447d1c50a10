/**
 * A device behind an open file, without the way its requests are carried out: that is what the engines add.
 *
 * Invariants
 *  1. A request is repeated where the kernel stopped short or asked to come again, and completes once: with
 *     its whole length, or −errno.
 *  2. The descriptors are closed, and the lock is gone, after the last completion.
 */
import { assert } from "../core/assert.js";
import type { Disk, DiskListener } from "../core/disk.js";
import { Errno, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE } from "./abi.js";
import type { Addon } from "./addon.js";
import type { SharedMemory } from "./native-memory.js";
import type { OpenFile } from "./open-disk.js";

/**
 * Ways to zero a range, from the best; the first that the device does not refuse is kept. On block devices
 * the first unmaps and the second may write zeros (what BLKZEROOUT does); behind the last, zeros are written.
 */
export const ZERO_MODES: readonly number[] = [
  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
];

export const DiskOpKind = {
  Read: 0,
  Write: 1,
  /** fallocate with ZERO_MODES[zeroMode]. */
  Zero: 2,
  /** Writes of zeros from the memory's zero stretch. */
  WriteZeros: 3,
  Sync: 4,
} as const;
export type DiskOpKind = (typeof DiskOpKind)[keyof typeof DiskOpKind];

/** One request; pooled by its disk. */
export class DiskOp {
  kind: DiskOpKind = DiskOpKind.Read;
  offset = 0;
  memory = 0;
  length = 0;
  /** Bytes that earlier completions moved. */
  done = 0;
  zeroMode = 0;
  listener: DiskListener = NOBODY;
  tag = 0;
  next: DiskOp | null = null;
  readonly #disk: FileDisk;

  constructor(disk: FileDisk) {
    this.#disk = disk;
  }

  ringDone(result: number): void {
    this.#disk.ringDone(this, result);
  }

  eventDone(result: number): void {
    this.#disk.opDone(this, result);
  }
}

export abstract class FileDisk implements Disk {
  readonly sizeBytes: number;
  readonly alignBytes: number;
  readonly zeroGrainBytes: number;
  protected readonly addon: Addon;
  protected readonly memory: SharedMemory;
  protected readonly file: OpenFile;
  /** Index into ZERO_MODES; its length: zeros are written. */
  #zeroMode = 0;
  #free: DiskOp | null = null;
  #inFlight = 0;
  #closing = false;

  constructor(addon: Addon, memory: SharedMemory, file: OpenFile) {
    this.addon = addon;
    this.memory = memory;
    this.file = file;
    this.sizeBytes = file.sizeBytes;
    this.alignBytes = file.alignBytes;
    this.zeroGrainBytes = file.zeroGrainBytes;
  }

  /** Carries out what is left of `op` and calls `opDone` from the engine's batch. */
  protected abstract start(op: DiskOp): void;

  read(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void {
    this.#checkRange(offset, memory, length);
    this.start(this.#take(DiskOpKind.Read, offset, memory, length, listener, tag));
  }

  write(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void {
    this.#checkRange(offset, memory, length);
    this.start(this.#take(DiskOpKind.Write, offset, memory, length, listener, tag));
  }

  zero(offset: number, length: number, listener: DiskListener, tag: number): void {
    this.#checkRange(offset, 0, length);
    this.#startZero(this.#take(DiskOpKind.Zero, offset, 0, length, listener, tag));
  }

  sync(listener: DiskListener, tag: number): void {
    this.start(this.#take(DiskOpKind.Sync, 0, 0, 0, listener, tag));
  }

  appendNow(offset: number, memory: number, length: number): number {
    return this.addon.fileWriteNow(this.memory.id, this.file.appendFd, offset, memory, length);
  }

  close(): void {
    this.#closing = true;
    if (this.#inFlight === 0) this.#closeNow();
  }

  /** A completion of `op` by the ring. */
  ringDone(op: DiskOp, result: number): void {
    this.opDone(op, result);
  }

  /** A completion of `op`: it is over, or goes on where the kernel stopped short. */
  opDone(op: DiskOp, result: number): void {
    if (result === Errno.EAGAIN || result === Errno.EINTR) this.start(op);
    else if (op.kind === DiskOpKind.Zero && result === Errno.EOPNOTSUPP) this.#zeroOtherwise(op);
    else if (result < 0) this.#finish(op, result);
    else if (op.kind === DiskOpKind.Sync || op.kind === DiskOpKind.Zero) this.#finish(op, op.length);
    else this.#moved(op, result);
  }

  #moved(op: DiskOp, bytes: number): void {
    op.done += bytes;
    if (op.done === op.length) this.#finish(op, op.length);
    // The range lies inside the device, so its end cannot be what stopped it.
    else if (bytes === 0) this.#finish(op, Errno.EIO);
    else this.start(op);
  }

  #startZero(op: DiskOp): void {
    op.zeroMode = this.#zeroMode;
    if (op.zeroMode === ZERO_MODES.length) op.kind = DiskOpKind.WriteZeros;
    this.start(op);
  }

  #zeroOtherwise(op: DiskOp): void {
    // Several may have been refused at once; only the first of them changes the way.
    if (op.zeroMode === this.#zeroMode) this.#zeroMode++;
    this.#startZero(op);
  }

  #checkRange(offset: number, memory: number, length: number): void {
    assert(length > 0 && offset >= 0 && offset + length <= this.sizeBytes, "a request inside the device");
    assert((memory | length) % this.alignBytes === 0, "memory and length are aligned");
    assert(offset % this.alignBytes === 0, "the offset is aligned");
  }

  #take(
    kind: DiskOpKind,
    offset: number,
    memory: number,
    length: number,
    listener: DiskListener,
    tag: number,
  ): DiskOp {
    assert(!this.#closing, "a request to a closed disk");
    let op = this.#free;
    if (op === null) op = new DiskOp(this);
    else this.#free = op.next;
    op.next = null;
    op.kind = kind;
    op.offset = offset;
    op.memory = memory;
    op.length = length;
    op.done = 0;
    op.listener = listener;
    op.tag = tag;
    this.#inFlight++;
    return op;
  }

  #finish(op: DiskOp, result: number): void {
    const { listener, tag } = op;
    op.listener = NOBODY;
    op.next = this.#free;
    this.#free = op;
    this.#inFlight--;
    listener.diskDone(tag, result);
    if (this.#closing && this.#inFlight === 0) this.#closeNow();
  }

  #closeNow(): void {
    // Below zero, so that a close from the last listener does not close twice.
    this.#inFlight = -1;
    if (this.file.appendFd >= 0) this.addon.fileClose(this.file.appendFd);
    this.addon.fileClose(this.file.fd);
  }
}

const NOBODY: DiskListener = {
  diskDone(): void {
    throw new Error("a disk request without listener completed");
  },
};
