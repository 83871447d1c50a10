/** Disk on Node's thread pool: for hosts that forbid io_uring. */
import { fdatasync, read, write } from "node:fs";
import type { Addon } from "./addon.js";
import { errnoOf } from "./errno.js";
import { type DiskOp, DiskOpKind, FileDisk, ZERO_MODES } from "./file-disk.js";
import { type SharedMemory, ZEROS_BYTES } from "./native-memory.js";
import type { OpenFile } from "./open-disk.js";
import type { ThreadsLoop } from "./threads-loop.js";

export class ThreadsDisk extends FileDisk {
  readonly #loop: ThreadsLoop;

  constructor(addon: Addon, loop: ThreadsLoop, memory: SharedMemory, file: OpenFile) {
    super(addon, memory, file);
    this.#loop = loop;
  }

  protected override start(op: DiskOp): void {
    const { fd } = this.file;
    const { bytes } = this.memory.pool;
    const offset = op.offset + op.done;
    const left = op.length - op.done;
    const done = (error: Error | null, moved = 0): void =>
      this.#done(op, error === null ? moved : errnoOf(error));
    this.#loop.requestStarted();
    switch (op.kind) {
      case DiskOpKind.Read:
        read(fd, bytes, op.memory + op.done, left, offset, done);
        break;
      case DiskOpKind.Write:
        write(fd, bytes, op.memory + op.done, left, offset, done);
        break;
      case DiskOpKind.WriteZeros:
        write(fd, this.memory.zeros, 0, Math.min(left, ZEROS_BYTES), offset, done);
        break;
      case DiskOpKind.Zero:
        this.#allocate(op);
        break;
      case DiskOpKind.Sync:
        fdatasync(fd, done);
        break;
    }
  }

  #allocate(op: DiskOp): void {
    const done = (result: number): void => this.#done(op, result);
    const mode = ZERO_MODES[op.zeroMode]!;
    const started = this.addon.fileAllocate(this.file.fd, mode, op.offset, op.length, done);
    if (started < 0) done(started);
  }

  #done(op: DiskOp, result: number): void {
    this.#loop.requestOver(op, result);
  }
}
