/**
 * What reads, writes and zeroes share: the way from an operation to the table of its extent, and to its answer.
 *
 * An operation that finds something missing (table, hot bit, settling, log room) is put into a list of `waiting`;
 * the finder then has nothing more to do with it.
 */
import { assert } from "../core/assert.js";
import { extentSeed, volumeSeed } from "../core/checksum.js";
import type { TickTask } from "../core/clock.js";
import type { Disk, DiskListener } from "../core/disk.js";
import { ExtentFlag, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { Status } from "../core/status.js";
import { heatAhead } from "./heat-ahead.js";
import { type Job, JobPool } from "./job.js";
import type { Loader } from "./loader.js";
import type { Maintenance } from "./maintenance.js";
import { OpList } from "./op-list.js";
import type { Parts } from "./parts.js";
import { type Table, TableState } from "./table.js";
import type { Waiting } from "./waiting.js";

/** Reads that begin before their table is there to say which blocks have bytes. */
export interface EarlyReads {
  readEarly(op: ExtentOp, table: Table): void;
}

export class RequestCore {
  readonly waiting: Waiting;
  readonly jobs = new JobPool();
  /** Answered at the end of the batch. */
  readonly done = new OpList();
  parts!: Parts;
  maintenance!: Maintenance;
  disk!: Disk;
  /** Where the disk's completions go; the tag is the job's number. */
  readonly completions: DiskListener;
  /** Time of the batch in milliseconds. */
  now = 0;
  readonly #tick: TickTask;
  #loader!: Loader;
  #early!: EarlyReads;
  #tickAsked = false;

  constructor(waiting: Waiting, completions: DiskListener & TickTask) {
    this.waiting = waiting;
    this.completions = completions;
    this.#tick = completions;
  }

  wire(parts: Parts, maintenance: Maintenance, loader: Loader, early: EarlyReads): void {
    assert(this.parts === undefined, "wired once");
    this.parts = parts;
    this.maintenance = maintenance;
    this.#loader = loader;
    this.#early = early;
    this.disk = parts.device.env.disk;
    this.now = parts.device.env.clock.now();
  }

  // ---- Finding the extent ------------------------------------------------------------------------------

  /** Slot of the operation's extent, or −1. */
  find(op: ExtentOp): number {
    return this.parts.directory.index.find(op.volume, op.layer, op.extent);
  }

  /** The slot's table, ready and settled; null when the operation has been put into a list to wait. */
  tableFor(op: ExtentOp, slot: number): Table | null {
    if (this.parts.unsettled.has(slot)) {
      this.waiting.forSettling(slot, op);
      this.maintenance.settleNow(slot);
      return null;
    }
    const { cache } = this.parts;
    const table = cache.get(slot);
    if (table === null) {
      this.#load(op, slot);
      return null;
    }
    table.referenced = true;
    if (table.state === TableState.Ready) return table;
    if (table.state === TableState.Loading) {
      this.#waitForTable(op, table);
    } else {
      op.badBlock = op.block;
      this.finish(op, Status.Io);
    }
    return null;
  }

  #load(op: ExtentOp, slot: number): void {
    const { cache, directory } = this.parts;
    const seed = extentSeed(volumeSeed(op.volume), op.extent);
    const table = cache.claim(slot, directory.alloc[slot]!, seed);
    if (table === null) {
      this.waiting.frames.push(op);
      this.maintenance.wantFrames();
      return;
    }
    this.#loader.load(table);
    this.#waitForTable(op, table);
  }

  #waitForTable(op: ExtentOp, table: Table): void {
    if (op.kind === ExtentOpKind.Read) this.#early.readEarly(op, table);
    else table.waiters.push(op);
  }

  /** The slot may be written to; otherwise the operation waits for its hot bit. */
  isHot(op: ExtentOp, slot: number): boolean {
    if (this.parts.hot.isHot(slot)) return true;
    this.waiting.forHotBit(slot, op);
    if (this.parts.hot.isCool(slot)) {
      this.parts.hot.request(slot);
      heatAhead(this.parts, op, slot, this.now);
    }
    return false;
  }

  hasLogRoom(op: ExtentOp, words: number): boolean {
    if (this.parts.log.makeRoom(words)) return true;
    this.waiting.log.push(op);
    this.maintenance.kick();
    return false;
  }

  /** Byte of the device at which the block of the slot lies. */
  offsetOf(slot: number, block: number): number {
    const { slotsStart, slotBytes } = this.parts.device.layout;
    return slotsStart + slot * slotBytes + block * BLOCK_BYTES;
  }

  // ---- Answering ---------------------------------------------------------------------------------------

  /** Answers now: for completions. */
  answer(op: ExtentOp, status: Status): void {
    this.waiting.over(op);
    op.status = status;
    op.listener.extentDone(op);
  }

  /** Answers at the end of the batch: `submit` never calls back. */
  finish(op: ExtentOp, status: Status): void {
    this.waiting.over(op);
    op.status = status;
    this.done.push(op);
    this.wantTick();
  }

  /**
   * Nothing has to be done. What made it so may not be stable yet (an earlier TRIM), so FUA waits for a sync
   * like any other.
   */
  finishUnchanged(op: ExtentOp): void {
    if ((op.flags & ExtentFlag.Fua) === 0 || !this.parts.sync.addOp(op)) this.finish(op, Status.Ok);
  }

  release(job: Job): void {
    const table = job.table!;
    this.jobs.give(job);
    this.parts.cache.unpin(table);
  }

  wantTick(): void {
    if (this.#tickAsked) return;
    this.#tickAsked = true;
    this.parts.device.env.ticker.atTickEnd(this.#tick);
  }

  tickBegun(): void {
    this.#tickAsked = false;
    this.now = this.parts.device.env.clock.now();
  }
}
