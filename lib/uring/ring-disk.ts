/**
 * Disk on the ring. Reads and writes go past the page cache; runs of zeros are punched (file) or unmapped
 * (device) by fallocate on a kernel worker; an append is one synchronous write through the page cache, because
 * the ring would hand a buffered write to a worker (43 µs instead of 1–2). On tmpfs the same is true of every
 * read and write.
 */
import { KIB } from "../core/limits.js";
import {
  IORING_FSYNC_DATASYNC,
  IORING_OP_FALLOCATE,
  IORING_OP_FSYNC,
  IORING_OP_READ,
  IORING_OP_WRITE,
  SQE_WORD,
} from "./abi.js";
import type { Addon } from "./addon.js";
import { type DiskOp, DiskOpKind, FileDisk, ZERO_MODES } from "./file-disk.js";
import { type SharedMemory, ZEROS_BYTES } from "./native-memory.js";
import type { OpenFile } from "./open-disk.js";
import type { AfterSubmit, RingLoop } from "./ring-loop.js";

const TWO_32 = 2 ** 32;
/**
 * Longest copies that are done at once; longer ones are worth a worker, which copies beside this thread. Measured
 * at 128 KiB (docs/profile.md).
 */
const AT_ONCE_BYTES_MAX = 64 * KIB;
/** Longest reads that the thread may spin for, however many there are. */
const SHORT_READ_BYTES_MAX = 16 * KIB;

export class RingDisk extends FileDisk implements AfterSubmit {
  readonly #loop: RingLoop;
  /** Appended and not yet on its way to the device: one stretch, from the first such byte to the end of the last. */
  #dirtyFrom = 0;
  #dirtyTo = 0;

  constructor(addon: Addon, loop: RingLoop, memory: SharedMemory, file: OpenFile) {
    super(addon, memory, file);
    this.#loop = loop;
  }

  protected override start(op: DiskOp): void {
    if (this.file.inMemory && this.#atOnce(op)) return;
    const { ring } = this.#loop;
    const { words } = ring;
    const at = ring.prepare(op);
    this.#loop.deviceRequests++;
    words[at + SQE_WORD.fd] = this.file.fd;
    switch (op.kind) {
      case DiskOpKind.Read:
        if (op.length <= SHORT_READ_BYTES_MAX) this.#loop.shortReads++;
        words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_READ;
        this.#range(at, op, op.memory + op.done, op.length - op.done);
        break;
      case DiskOpKind.Write:
        words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_WRITE;
        this.#range(at, op, op.memory + op.done, op.length - op.done);
        break;
      case DiskOpKind.WriteZeros:
        words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_WRITE;
        this.#range(at, op, this.memory.zerosOffset, Math.min(op.length - op.done, ZEROS_BYTES));
        break;
      case DiskOpKind.Zero:
        words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_FALLOCATE;
        words[at + SQE_WORD.off] = op.offset;
        words[at + SQE_WORD.off + 1] = op.offset / TWO_32;
        // fallocate has its length where others have their address.
        words[at + SQE_WORD.addr] = op.length;
        words[at + SQE_WORD.addr + 1] = op.length / TWO_32;
        words[at + SQE_WORD.len] = ZERO_MODES[op.zeroMode]!;
        break;
      case DiskOpKind.Sync:
        this.#dirtyFrom = this.#dirtyTo;
        words[at + SQE_WORD.opcodeFlagsIoprio] = IORING_OP_FSYNC;
        words[at + SQE_WORD.opFlags] = IORING_FSYNC_DATASYNC;
        break;
    }
  }

  override ringDone(op: DiskOp, result: number): void {
    this.#loop.deviceRequests--;
    if (op.kind === DiskOpKind.Read && op.length <= SHORT_READ_BYTES_MAX) this.#loop.shortReads--;
    this.opDone(op, result);
  }

  override close(): void {
    this.#dirtyFrom = this.#dirtyTo;
    super.close();
  }

  override appendNow(offset: number, memory: number, length: number): number {
    const result = super.appendNow(offset, memory, length);
    // Behind the end of a ring it goes on at the front; what was left behind is the sync's.
    if (offset < this.#dirtyTo || this.#dirtyFrom === this.#dirtyTo) this.#dirtyFrom = offset;
    this.#dirtyTo = offset + length;
    return result;
  }

  /** Telling the device takes 20 µs: afterwards, while it is busy with the requests of the batch anyway. */
  appendedSyncsSoon(): void {
    if (!this.file.inMemory && this.#dirtyFrom < this.#dirtyTo) this.#loop.afterSubmit(this);
  }

  submitted(): void {
    // Closed or synced in the meantime.
    if (this.#dirtyFrom === this.#dirtyTo) return;
    this.addon.fileWriteBack(this.file.appendFd, this.#dirtyFrom, this.#dirtyTo - this.#dirtyFrom);
    this.#dirtyFrom = this.#dirtyTo;
  }

  /** On a file system in memory the ring would wake a worker for what is a copy. True: it was done here. */
  #atOnce(op: DiskOp): boolean {
    if (op.length > AT_ONCE_BYTES_MAX) return false;
    const { addon, file, memory } = this;
    let result: number;
    if (op.kind === DiskOpKind.Read) {
      result = addon.fileReadNow(memory.id, file.fd, op.offset, op.memory, op.length);
    } else if (op.kind === DiskOpKind.Write) {
      result = addon.fileWriteNow(memory.id, file.fd, op.offset, op.memory, op.length);
    } else if (op.kind === DiskOpKind.Sync) {
      // Nothing is kept anywhere else: fdatasync of such a file does nothing.
      result = 0;
    } else {
      return false;
    }
    this.#loop.post(op, result);
    return true;
  }

  #range(at: number, op: DiskOp, memory: number, length: number): void {
    const { words } = this.#loop.ring;
    const offset = op.offset + op.done;
    const address = this.memory.address + memory;
    words[at + SQE_WORD.off] = offset;
    words[at + SQE_WORD.off + 1] = offset / TWO_32;
    words[at + SQE_WORD.addr] = address;
    words[at + SQE_WORD.addr + 1] = address / TWO_32;
    words[at + SQE_WORD.len] = length;
  }
}
