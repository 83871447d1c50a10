/**
 * Read and Map.
 *
 * A block is answered only if its bytes match its entry; absent blocks are answered as zeros without looking at
 * the disk. A read whose table is not in memory goes to the disk at once, beside the table.
 */
import { ENTRY_ABSENT } from "../core/checksum.js";
import { EXTENT_OP_BLOCKS_MAX, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { BLOCK_BYTES, BLOCK_SHIFT } from "../core/limits.js";
import { Status } from "../core/status.js";
import type { Job } from "./job.js";
import { clearPresent, fillPresent } from "./present.js";
import type { EarlyReads, RequestCore } from "./request-core.js";
import { type Table, TableState } from "./table.js";

export class ReadPath implements EarlyReads {
  readonly #core: RequestCore;
  readonly #computed = new Uint32Array(EXTENT_OP_BLOCKS_MAX);
  blocksRead = 0;

  constructor(core: RequestCore) {
    this.#core = core;
  }

  look(op: ExtentOp): void {
    const slot = this.#core.find(op);
    if (slot < 0) {
      clearPresent(op);
      this.#core.finish(op, Status.Ok);
      return;
    }
    const table = this.#core.tableFor(op, slot);
    if (table === null) return;
    fillPresent(op, table.entries);
    if (op.kind === ExtentOpKind.Map || op.presentCount === 0) this.#core.finish(op, Status.Ok);
    else this.#read(op, table);
  }

  /** One disk read from the first to the last block that has bytes. */
  #read(op: ExtentOp, table: Table): void {
    const { entries } = table;
    let first = op.block;
    let last = op.block + op.blocks - 1;
    while (entries[first] === ENTRY_ABSENT) first++;
    while (entries[last] === ENTRY_ABSENT) last--;
    const job = this.#core.jobs.take(op, table);
    job.firstBlock = first;
    job.blocks = last - first + 1;
    this.#submit(job);
  }

  /** Which of its blocks have bytes is asked when both are there. */
  readEarly(op: ExtentOp, table: Table): void {
    const job = this.#core.jobs.take(op, table);
    job.early = true;
    job.firstBlock = op.block;
    job.blocks = op.blocks;
    job.next = table.earlyReads;
    table.earlyReads = job;
    this.#submit(job);
  }

  #submit(job: Job): void {
    const op = job.op!;
    const { disk, completions } = this.#core;
    job.parts = 1;
    job.result = 0;
    const memory = op.memory + ((job.firstBlock - op.block) << BLOCK_SHIFT);
    const offset = this.#core.offsetOf(job.table!.slot, job.firstBlock);
    disk.read(offset, memory, job.blocks << BLOCK_SHIFT, completions, job.id);
  }

  /** The disk has answered, and an early read has its table. */
  done(job: Job): void {
    if (job.early && this.#answeredByTable(job)) return;
    const op = job.op!;
    const bad = job.result < 0 ? op.block : this.#verify(job);
    if (bad >= 0 && job.retries === 0) {
      // Once more: a transient error or a read that went astray is not the block's fault.
      job.retries = 1;
      this.#submit(job);
      return;
    }
    const unreadable = job.result < 0;
    const { slot } = job.table!;
    this.#core.release(job);
    if (bad < 0) {
      this.blocksRead += op.blocks;
      this.#core.answer(op, Status.Ok);
      return;
    }
    if (!unreadable) {
      op.badBlock = bad;
      const { directory, bad: found } = this.#core.parts;
      found.add(directory.volume[slot]!, directory.layer[slot]!, directory.extent[slot]!, bad);
    }
    this.#core.answer(op, Status.Io);
  }

  /** True when the table alone decides: it is lost, or none of the blocks has bytes. */
  #answeredByTable(job: Job): boolean {
    const op = job.op!;
    const { state, entries } = job.table!;
    const lost = state === TableState.Lost;
    if (!lost) {
      fillPresent(op, entries);
      if (op.presentCount > 0) return false;
    }
    this.#core.release(job);
    if (lost) op.badBlock = op.block;
    this.#core.answer(op, lost ? Status.Io : Status.Ok);
    return true;
  }

  /** First block whose bytes fail their entry, or −1. Absent blocks become zeros in memory. */
  #verify(job: Job): number {
    const op = job.op!;
    const { entries, seed } = job.table!;
    const { checksums, pool } = this.#core.parts.device.env;
    const { firstBlock, blocks } = job;
    const memory = op.memory + ((firstBlock - op.block) << BLOCK_SHIFT);
    checksums.blockEntries(memory, blocks, seed, firstBlock, this.#computed, 0);
    for (let i = 0; i < blocks; i++) {
      const entry = entries[firstBlock + i]!;
      if (entry === this.#computed[i]) continue;
      if (entry !== ENTRY_ABSENT) return firstBlock + i;
      const at = memory + (i << BLOCK_SHIFT);
      pool.bytes.fill(0, at, at + BLOCK_BYTES);
    }
    if (blocks < op.blocks) {
      pool.bytes.fill(0, op.memory, memory);
      pool.bytes.fill(0, memory + (blocks << BLOCK_SHIFT), op.memory + (op.blocks << BLOCK_SHIFT));
    }
    return -1;
  }
}
