/** Write: blocks that are all zeros over absent ones stay absent, the rest gets its record, then its bytes. */
import { assert } from "../core/assert.js";
import { ENTRY_ABSENT } from "../core/checksum.js";
import { EXTENT_OP_BLOCKS_MAX, type ExtentOp } from "../core/extent-io.js";
import { BLOCK_BYTES, BLOCK_SHIFT } from "../core/limits.js";
import type { Allocation } from "./allocation.js";
import type { Changes } from "./changes.js";
import type { Job } from "./job.js";
import { deltaWords, STAMP_WORDS } from "./log-records.js";
import { isZero } from "./metadata-io.js";
import type { RequestCore } from "./request-core.js";
import type { Table } from "./table.js";

const BLOCK_WORDS = BLOCK_BYTES / 4;

export class WritePath {
  readonly #core: RequestCore;
  readonly #changes: Changes;
  readonly #allocation: Allocation;
  blocksWritten = 0;

  constructor(core: RequestCore, changes: Changes, allocation: Allocation) {
    this.#core = core;
    this.#changes = changes;
    this.#allocation = allocation;
  }

  write(op: ExtentOp): void {
    assert(op.blocks > 0 && op.blocks <= EXTENT_OP_BLOCKS_MAX, "a write is 1 to 256 blocks");
    const slot = this.#core.find(op);
    if (slot < 0) {
      if (this.#isAllZero(op)) {
        this.#core.finishUnchanged(op);
        return;
      }
      const fresh = this.#allocation.allocate(op, deltaWords(op.blocks));
      if (fresh === null) return;
      this.#keepAbsent(op, fresh.entries);
      this.#stage(op, fresh);
      return;
    }
    const table = this.#core.tableFor(op, slot);
    if (table === null) return;
    if (this.#keepAbsent(op, table.entries)) {
      this.#changes.stampOnly(op);
      return;
    }
    if (!this.#core.isHot(op, slot) || !this.#core.hasLogRoom(op, deltaWords(op.blocks) + STAMP_WORDS))
      return;
    this.#stage(op, table);
  }

  #stage(op: ExtentOp, table: Table): void {
    const { log } = this.#core.parts;
    this.#changes.stamp(op, table.slot);
    this.#changes.stage(op, table, log.delta(table.slot, table.alloc, op.block, op.blocks, op.entries));
  }

  /**
   * Blocks of zeros over absent blocks stay absent: their entries in `op` become ABSENT. True when nothing is
   * left to be written.
   */
  #keepAbsent(op: ExtentOp, entries: Uint32Array): boolean {
    let left = op.blocks;
    for (let i = 0; i < op.blocks; i++) {
      if (entries[op.block + i] === ENTRY_ABSENT && this.#isZeroBlock(op.memory + (i << BLOCK_SHIFT))) {
        op.entries[i] = ENTRY_ABSENT;
        left--;
      }
    }
    return left === 0;
  }

  #isAllZero(op: ExtentOp): boolean {
    for (let i = 0; i < op.blocks; i++) if (!this.#isZeroBlock(op.memory + (i << BLOCK_SHIFT))) return false;
    return true;
  }

  #isZeroBlock(memory: number): boolean {
    return isZero(this.#core.parts.device.words, memory >>> 2, BLOCK_WORDS);
  }

  submit(job: Job): void {
    const op = job.op!;
    const { disk, completions } = this.#core;
    job.parts = 1;
    const offset = this.#core.offsetOf(job.table!.slot, op.block);
    disk.write(offset, op.memory, op.blocks << BLOCK_SHIFT, completions, job.id);
  }

  /** The bytes have landed, or not. */
  done(job: Job): void {
    if (job.result < 0) {
      this.#changes.failed(job);
      return;
    }
    const op = job.op!;
    const { entries } = job.table!;
    for (let i = 0; i < op.blocks; i++) entries[op.block + i] = op.entries[i]!;
    this.blocksWritten += op.blocks;
    this.#changes.changed(job);
  }
}
