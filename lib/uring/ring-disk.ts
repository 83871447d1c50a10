/**
 * Disk on the ring. Reads and writes go past the page cache; runs of zeros are punched (file) or unmapped
 * (device) by fallocate on a kernel worker; an append is one synchronous write through the page cache, because
 * the ring would hand a buffered write to a worker (43 µs instead of 1–2).
 */
import { assert } from "../core/assert.js";
import type { Disk, DiskListener } from "../core/disk.js";
import {
  Errno,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  IORING_FSYNC_DATASYNC,
  IORING_OP_FALLOCATE,
  IORING_OP_FSYNC,
  IORING_OP_READ,
  IORING_OP_WRITE,
  SQE_WORD,
} from "./abi.js";
import type { Addon } from "./addon.js";
import { type SharedMemory, ZEROS_BYTES } from "./native-memory.js";
import type { OpenFile } from "./open-disk.js";
import type { RingTarget } from "./ring.js";
import type { RingLoop } from "./ring-loop.js";

const TWO_32 = 2 ** 32;

/** Ways to zero a range, from the best: the first that the device does not refuse is kept. */
const ZERO_MODES: readonly number[] = [
  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
];

export class RingDisk implements Disk {
  readonly sizeBytes: number;
  readonly alignBytes: number;
  readonly zeroGrainBytes: number;
  readonly #addon: Addon;
  readonly #loop: RingLoop;
  readonly #memory: SharedMemory;
  readonly #file: OpenFile;
  /** Index into ZERO_MODES; behind its end zeros are written. */
  #zeroMode = 0;
  #free: DiskOp | null = null;
  #inFlight = 0;
  #closing = false;

  constructor(addon: Addon, loop: RingLoop, memory: SharedMemory, file: OpenFile) {
    this.#addon = addon;
    this.#loop = loop;
    this.#memory = memory;
    this.#file = file;
    this.sizeBytes = file.sizeBytes;
    this.alignBytes = file.alignBytes;
    this.zeroGrainBytes = file.zeroGrainBytes;
  }

  read(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void {
    this.#checkRange(offset, memory, length);
    this.#submit(this.#take(IORING_OP_READ, offset, memory, length, listener, tag));
  }

  write(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void {
    this.#checkRange(offset, memory, length);
    this.#submit(this.#take(IORING_OP_WRITE, offset, memory, length, listener, tag));
  }

  zero(offset: number, length: number, listener: DiskListener, tag: number): void {
    this.#checkRange(offset, 0, length);
    const op = this.#take(IORING_OP_FALLOCATE, offset, 0, length, listener, tag);
    op.zeroMode = this.#zeroMode;
    if (op.zeroMode === ZERO_MODES.length) this.#writeZeros(op);
    else this.#submit(op);
  }

  sync(listener: DiskListener, tag: number): void {
    this.#submit(this.#take(IORING_OP_FSYNC, 0, 0, 0, listener, tag));
  }

  appendNow(offset: number, memory: number, length: number): number {
    return this.#addon.fileWriteNow(this.#memory.id, this.#file.appendFd, offset, memory, length);
  }

  close(): void {
    this.#closing = true;
    if (this.#inFlight === 0) this.#closeNow();
  }

  /** A completion of `op`: done, or to be continued where the kernel stopped short. */
  opDone(op: DiskOp, result: number): void {
    if (result === Errno.EAGAIN || result === Errno.EINTR) this.#submit(op);
    else if (op.code === IORING_OP_FALLOCATE && result === Errno.EOPNOTSUPP) this.#zeroOtherwise(op);
    else if (result < 0) this.#finish(op, result);
    else if (op.code === IORING_OP_FSYNC || op.code === IORING_OP_FALLOCATE) this.#finish(op, op.length);
    else this.#moved(op, result);
  }

  #moved(op: DiskOp, bytes: number): void {
    op.done += bytes;
    if (op.done === op.length) this.#finish(op, op.length);
    // The range lies inside the device, so its end cannot be what stopped it.
    else if (bytes === 0) this.#finish(op, Errno.EIO);
    else this.#submit(op);
  }

  #checkRange(offset: number, memory: number, length: number): void {
    assert(!this.#closing, "a request to a closed disk");
    assert(length > 0 && offset >= 0 && offset + length <= this.sizeBytes, "a request inside the device");
    assert((memory | length) % this.alignBytes === 0, "memory and length are aligned");
    assert(offset % this.alignBytes === 0, "the offset is aligned");
  }

  #take(
    code: number,
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
    op.code = code;
    op.offset = offset;
    op.address = this.#memory.address + memory;
    op.length = length;
    op.done = 0;
    op.writesZeros = false;
    op.listener = listener;
    op.tag = tag;
    this.#inFlight++;
    return op;
  }

  #submit(op: DiskOp): void {
    const ring = this.#loop.ring;
    const at = ring.prepare(op);
    const words = ring.words;
    words[at + SQE_WORD.opcodeFlagsIoprio] = op.code;
    words[at + SQE_WORD.fd] = this.#file.fd;
    if (op.code === IORING_OP_FSYNC) {
      words[at + SQE_WORD.opFlags] = IORING_FSYNC_DATASYNC;
      return;
    }
    const offset = op.offset + op.done;
    words[at + SQE_WORD.off] = offset;
    words[at + SQE_WORD.off + 1] = offset / TWO_32;
    if (op.code === IORING_OP_FALLOCATE) {
      words[at + SQE_WORD.addr] = op.length;
      words[at + SQE_WORD.addr + 1] = op.length / TWO_32;
      words[at + SQE_WORD.len] = ZERO_MODES[op.zeroMode]!;
      return;
    }
    const address = op.writesZeros ? op.address : op.address + op.done;
    words[at + SQE_WORD.addr] = address;
    words[at + SQE_WORD.addr + 1] = address / TWO_32;
    const left = op.length - op.done;
    words[at + SQE_WORD.len] = op.writesZeros ? Math.min(left, ZEROS_BYTES) : left;
  }

  #zeroOtherwise(op: DiskOp): void {
    // Several may have been refused at once; only the first of them changes the way.
    if (op.zeroMode === this.#zeroMode) this.#zeroMode++;
    op.zeroMode = this.#zeroMode;
    if (op.zeroMode === ZERO_MODES.length) this.#writeZeros(op);
    else this.#submit(op);
  }

  #writeZeros(op: DiskOp): void {
    op.code = IORING_OP_WRITE;
    op.writesZeros = true;
    op.address = this.#memory.address + this.#memory.zerosOffset;
    this.#submit(op);
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
    this.#inFlight = -1;
    if (this.#file.appendFd >= 0) this.#addon.fileClose(this.#file.appendFd);
    this.#addon.fileClose(this.#file.fd);
  }
}

/** One request; pooled by its disk. */
class DiskOp implements RingTarget {
  code = 0;
  offset = 0;
  /** Address of the memory, for the kernel. */
  address = 0;
  length = 0;
  /** Bytes that earlier completions moved. */
  done = 0;
  /** Index into ZERO_MODES of the way that is tried. */
  zeroMode = 0;
  /** Zeros are written from one stretch of them, again and again. */
  writesZeros = false;
  listener: DiskListener = NOBODY;
  tag = 0;
  next: DiskOp | null = null;
  readonly #disk: RingDisk;

  constructor(disk: RingDisk) {
    this.#disk = disk;
  }

  ringDone(result: number): void {
    this.#disk.opDone(this, result);
  }
}

const NOBODY: DiskListener = {
  diskDone(): void {
    throw new Error("a disk request without listener completed");
  },
};
