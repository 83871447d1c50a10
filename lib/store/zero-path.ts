/**
 * Zero and Free. Zeroing is a write: in flight and unanswered until the bytes are zeros. A whole extent is freed
 * by record alone; its slot is zeroed before anybody can have it again.
 */
import { assert } from "../core/assert.js";
import { ENTRY_ABSENT } from "../core/checksum.js";
import { ExtentFlag, type ExtentOp } from "../core/extent-io.js";
import { BLOCK_SHIFT } from "../core/limits.js";
import type { Allocation } from "./allocation.js";
import type { Changes } from "./changes.js";
import type { Freeing } from "./freeing.js";
import type { Job } from "./job.js";
import { ABSENT_WORDS, deltaWords, FREE_WORDS, STAMP_WORDS } from "./log-records.js";
import { hasPresent } from "./present.js";
import type { RequestCore } from "./request-core.js";
import type { Table } from "./table.js";
import type { ZeroEntries } from "./zero-entries.js";
import { cutZeroes, type ZeroParts } from "./zeroing.js";

export class ZeroPath implements ZeroParts {
  readonly #core: RequestCore;
  readonly #changes: Changes;
  readonly #allocation: Allocation;
  #freeing!: Freeing;
  #entries!: ZeroEntries;
  /** A pool buffer of zeros. */
  #zeros = 0;
  #zerosBytes = 0;
  /** Job whose parts are being submitted. */
  #cutting: Job | null = null;
  bytesZeroed = 0;
  zeroCalls = 0;

  constructor(core: RequestCore, changes: Changes, allocation: Allocation) {
    this.#core = core;
    this.#changes = changes;
    this.#allocation = allocation;
  }

  wire(freeing: Freeing, entries: ZeroEntries, zeros: number, zerosBytes: number): void {
    this.#freeing = freeing;
    this.#entries = entries;
    this.#zeros = zeros;
    this.#zerosBytes = zerosBytes;
  }

  // ---- Zero --------------------------------------------------------------------------------------------

  zero(op: ExtentOp): void {
    const noHole = (op.flags & ExtentFlag.NoHole) !== 0;
    const slot = this.#core.find(op);
    if (slot < 0) {
      if (!noHole) {
        this.#core.finishUnchanged(op);
        return;
      }
      const fresh = this.#allocation.allocate(op, deltaWords(op.blocks));
      if (fresh !== null) this.#stage(op, fresh, true);
      return;
    }
    if (!noHole && op.blocks === this.#core.parts.device.layout.extentBlocks) {
      this.free(op);
      return;
    }
    const table = this.#core.tableFor(op, slot);
    if (table === null) return;
    if (!noHole && !hasPresent(op, table.entries)) {
      this.#changes.stampOnly(op);
      return;
    }
    const words = noHole ? deltaWords(op.blocks) : ABSENT_WORDS;
    if (!this.#core.isHot(op, slot) || !this.#core.hasLogRoom(op, words + STAMP_WORDS)) return;
    this.#stage(op, table, noHole);
  }

  #stage(op: ExtentOp, table: Table, noHole: boolean): void {
    const { log } = this.#core.parts;
    const { slot, alloc } = table;
    this.#changes.stamp(op, slot);
    const sequence = noHole
      ? log.delta(slot, alloc, op.block, op.blocks, this.#entries.of(op, table))
      : log.absent(slot, alloc, op.block, op.blocks);
    this.#changes.stage(op, table, sequence);
  }

  /** From the first to the last block that has bytes; absent ones are zeros. */
  submit(job: Job): void {
    const op = job.op!;
    const table = job.table!;
    const noHole = (op.flags & ExtentFlag.NoHole) !== 0;
    let first = op.block;
    let last = op.block + op.blocks - 1;
    if (!noHole) {
      while (table.entries[first] === ENTRY_ABSENT) first++;
      while (table.entries[last] === ENTRY_ABSENT) last--;
    }
    const offset = this.#core.offsetOf(table.slot, first);
    const length = (last - first + 1) << BLOCK_SHIFT;
    const punchMin = noHole ? Number.POSITIVE_INFINITY : this.#core.parts.device.tunables.punchBytesMin;
    assert(this.#cutting === null, "one job is cut at a time");
    this.#cutting = job;
    cutZeroes(offset, length, this.#core.disk.zeroGrainBytes, punchMin, this.#zerosBytes, this);
    this.#cutting = null;
  }

  punch(offset: number, length: number): void {
    const job = this.#cutting!;
    job.parts++;
    this.zeroCalls++;
    this.#core.disk.zero(offset, length, this.#core.completions, job.id);
  }

  overwrite(offset: number, length: number): void {
    const job = this.#cutting!;
    job.parts++;
    this.#core.disk.write(offset, this.#zeros, length, this.#core.completions, job.id);
  }

  /** The bytes are zeros, or not. */
  done(job: Job): void {
    if (job.result < 0) {
      this.#changes.failed(job);
      return;
    }
    const op = job.op!;
    const { entries } = job.table!;
    if ((op.flags & ExtentFlag.NoHole) !== 0) {
      const zeros = this.#entries.of(op, job.table!);
      for (let i = 0; i < op.blocks; i++) entries[op.block + i] = zeros[i]!;
    } else {
      entries.fill(ENTRY_ABSENT, op.block, op.block + op.blocks);
    }
    this.bytesZeroed += op.blocks << BLOCK_SHIFT;
    this.#changes.changed(job);
  }

  // ---- Free --------------------------------------------------------------------------------------------

  free(op: ExtentOp): void {
    const slot = this.#core.find(op);
    if (slot >= 0) {
      if (!this.#core.hasLogRoom(op, FREE_WORDS)) return;
      this.freeSlot(slot);
    }
    // The record is appended before the answer goes out, both at the end of this batch.
    this.#core.finishUnchanged(op);
  }

  /** Stages FREE for a live slot; the log has room for it. */
  freeSlot(slot: number): void {
    const { directory, log, cache, pending, unsettled, sync, bad, device } = this.#core.parts;
    const volume = directory.volume[slot]!;
    const layer = directory.layer[slot]!;
    const extent = directory.extent[slot]!;
    const sequence = log.free(slot, directory.alloc[slot]!);
    directory.free(slot, sequence);
    pending.forget(slot);
    unsettled.remove(slot);
    cache.discard(slot);
    sync.touch();
    if (bad.count > 0) bad.gone(volume, layer, extent);
    this.#freeing.add(slot, sequence);
    device.env.events.extentChanged(volume, layer, extent, false);
    // A Map holds no lock: one that waited for the slot to be settled finds the extent gone.
    this.#core.waiting.settled(slot);
    this.#core.wantTick();
  }
}
