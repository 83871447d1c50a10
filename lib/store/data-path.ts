/**
 * Requests: from `submit` to the answer. Reads, writes and zeroes each have a file; here is what keeps them
 * together: the order of a batch, completions, those who wait, and the end.
 *
 * Invariants
 *  1. A write's record is appended before its data is submitted, and its slot is durably hot before either.
 *  2. Entries in memory change when the bytes have landed, then the operation is answered; never before.
 *  3. An operation that cannot go on (table, hot bit, settling, log room, free slot) waits in exactly one list
 *     and starts again from the beginning, so that nothing it had seen before can be stale.
 *  4. After a failure of the device everything is answered with Io; nothing is acknowledged (invariant 22).
 *
 * Nothing here allocates per request: jobs and operations are pooled, lists are linked through them.
 */
import type { TickTask } from "../core/clock.js";
import type { DiskListener } from "../core/disk.js";
import { type ExtentIo, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { Status } from "../core/status.js";
import { Allocation } from "./allocation.js";
import { Changes, type ChangesOwner } from "./changes.js";
import type { Freeing } from "./freeing.js";
import { delist, type Job } from "./job.js";
import type { Loader } from "./loader.js";
import type { Maintenance } from "./maintenance.js";
import type { Parts } from "./parts.js";
import { ReadPath } from "./read-path.js";
import { RequestCore } from "./request-core.js";
import type { SlotPool } from "./slot-pool.js";
import type { SyncOwner } from "./sync.js";
import { type Table, TableState } from "./table.js";
import { Waiting, type WaitingOwner } from "./waiting.js";
import { WritePath } from "./write-path.js";
import { ZeroEntries } from "./zero-entries.js";
import { ZeroPath } from "./zero-path.js";

/** Parts that exist only once the data path does. */
export interface DataPathParts {
  readonly parts: Parts;
  readonly slots: SlotPool;
  readonly freeing: Freeing;
  readonly maintenance: Maintenance;
  readonly loader: Loader;
}

/** Told about what the store as a whole keeps watch on. */
export interface DataPathOwner {
  /** At the end of every batch in which something happened. */
  batchEnded(): void;
  /** Writes wait for space, or none does any more. */
  fullChanged(): void;
  /** An operation met a full file system; try again later. */
  retrySpaceLater(): void;
}

export class DataPath implements ExtentIo, TickTask, DiskListener, SyncOwner, ChangesOwner, WaitingOwner {
  readonly #owner: DataPathOwner;
  readonly #waiting: Waiting;
  readonly #core: RequestCore;
  readonly #allocation: Allocation;
  readonly #changes: Changes;
  readonly #reads: ReadPath;
  readonly #writes: WritePath;
  readonly #zeroes: ZeroPath;
  #parts!: Parts;
  #stopped = false;

  constructor(owner: DataPathOwner) {
    this.#owner = owner;
    this.#waiting = new Waiting(this);
    this.#core = new RequestCore(this.#waiting, this);
    this.#allocation = new Allocation(this.#core, owner);
    this.#changes = new Changes(this.#core, this);
    this.#reads = new ReadPath(this.#core);
    this.#writes = new WritePath(this.#core, this.#changes, this.#allocation);
    this.#zeroes = new ZeroPath(this.#core, this.#changes, this.#allocation);
  }

  /** `zeros`: a pool buffer of `zerosBytes` zeros. */
  wire(wired: DataPathParts, zeros: number, zerosBytes: number): void {
    const { parts, maintenance, loader, slots, freeing } = wired;
    const { layout, env } = parts.device;
    const entries = new ZeroEntries(env.checksums, zeros, zerosBytes, layout.extentBlocks);
    this.#parts = parts;
    this.#core.wire(parts, maintenance, loader, this.#reads);
    this.#allocation.wire(slots, freeing);
    this.#changes.wire(entries);
    this.#zeroes.wire(freeing, entries, zeros, zerosBytes);
  }

  // ---- What it is doing --------------------------------------------------------------------------------

  /** There are operations that have not been answered. */
  get busy(): boolean {
    return this.#core.jobs.count > 0 || this.#core.done.length > 0 || this.#waiting.count > 0;
  }

  get waitingForSpace(): number {
    return this.#waiting.forSpace;
  }

  get waitsForLog(): boolean {
    return this.#waiting.log.length > 0;
  }

  get full(): boolean {
    return this.#waiting.metFull.size > 0 || (this.#waiting.slots.length > 0 && this.#allocation.full);
  }

  get blocksRead(): number {
    return this.#reads.blocksRead;
  }

  get blocksWritten(): number {
    return this.#writes.blocksWritten;
  }

  get bytesZeroed(): number {
    return this.#zeroes.bytesZeroed;
  }

  get zeroCalls(): number {
    return this.#zeroes.zeroCalls;
  }

  // ---- Operations --------------------------------------------------------------------------------------

  submit(op: ExtentOp): void {
    op.badBlock = -1;
    if (this.#stopped) this.finish(op, Status.Shutdown);
    else this.dispatch(op);
  }

  /** New operations are refused; those that wait for what may never come are answered. */
  stop(): void {
    this.#stopped = true;
    this.#waiting.stop();
  }

  dispatch(op: ExtentOp): void {
    if (this.#parts.device.failed !== null) {
      this.finish(op, Status.Io);
      return;
    }
    switch (op.kind) {
      case ExtentOpKind.Read:
      case ExtentOpKind.Map:
        this.#reads.look(op);
        break;
      case ExtentOpKind.Write:
        this.#writes.write(op);
        break;
      case ExtentOpKind.Zero:
        this.#zeroes.zero(op);
        break;
      case ExtentOpKind.Free:
        this.#zeroes.free(op);
        break;
      case ExtentOpKind.Flush:
        if (!this.#parts.sync.addOp(op)) this.finish(op, Status.Ok);
        break;
      case ExtentOpKind.Stamp:
        this.#changes.stampOnly(op);
        break;
    }
  }

  finish(op: ExtentOp, status: Status): void {
    this.#core.finish(op, status);
  }

  /** Stages FREE for a live slot; the log has room for it. */
  freeSlot(slot: number): void {
    this.#zeroes.freeSlot(slot);
  }

  // ---- Completions -------------------------------------------------------------------------------------

  diskDone(tag: number, result: number): void {
    const job = this.#core.jobs.byId(tag);
    if (result < 0) job.result = result;
    job.parts--;
    if (job.parts > 0) return;
    // An early read goes on when the table is there, too.
    if (job.early && job.table!.state === TableState.Loading) return;
    if (this.#parts.device.failed !== null) {
      this.abandon(job);
      return;
    }
    switch (job.op!.kind) {
      case ExtentOpKind.Read:
        this.#reads.done(job);
        break;
      case ExtentOpKind.Write:
        this.#writes.done(job);
        break;
      default:
        this.#zeroes.done(job);
    }
  }

  /** A sync that `op` waited for is over. */
  syncedOp(op: ExtentOp): void {
    if (this.#parts.device.failed === null) this.#core.answer(op, Status.Ok);
    else this.finish(op, Status.Io);
  }

  // ---- End of batch ------------------------------------------------------------------------------------

  wantTick(): void {
    this.#core.wantTick();
  }

  /** One append, then the data, then a sync if one is wanted, then the answers that need no disk. */
  tick(): void {
    const { log, sync } = this.#parts;
    const { done } = this.#core;
    this.#core.tickBegun();
    const { appends } = log;
    log.append();
    this.#changes.submitStaged();
    if (log.appends > appends) sync.appended();
    sync.submit();
    // What these answers ask for is staged after this append: it belongs to the next end of batch.
    for (let left = done.length; left > 0; left--) {
      const op = done.shift()!;
      op.listener.extentDone(op);
    }
    this.#owner.batchEnded();
  }

  submitJob(job: Job): void {
    job.result = 0;
    if (job.op!.kind === ExtentOpKind.Write) this.#writes.submit(job);
    else this.#zeroes.submit(job);
  }

  // ---- Those who wait ----------------------------------------------------------------------------------

  tableLoaded(table: Table): void {
    let job = table.earlyReads;
    table.earlyReads = null;
    while (job !== null) {
      const { next } = job;
      job.next = null;
      if (job.parts === 0) {
        if (this.#parts.device.failed === null) this.#reads.done(job);
        else this.abandon(job);
      }
      job = next;
    }
    this.#waiting.wake(table.waiters);
  }

  slotSettled(slot: number): void {
    this.#waiting.settled(slot);
  }

  slotIsHot(slot: number): void {
    this.#waiting.hot(slot);
  }

  framesFreed(): void {
    this.#waiting.wake(this.#waiting.frames);
  }

  logFreed(): void {
    this.#waiting.wake(this.#waiting.log);
  }

  /** A slot may be taken now. */
  slotsReady(): void {
    this.#waiting.wake(this.#waiting.slots);
  }

  fullChanged(): void {
    this.#owner.fullChanged();
  }

  retrySpaceLater(): void {
    this.#owner.retrySpaceLater();
  }

  /** Space may have come back to the file system. */
  retrySpace(): void {
    this.#waiting.wake(this.#waiting.space);
  }

  // ---- Failure -----------------------------------------------------------------------------------------

  /** The device has failed: nobody waits any longer. What is in flight is answered when it comes back. */
  failed(): void {
    this.#waiting.failed();
    this.#parts.cache.forEachResident((table) => this.#waiting.refuse(table.waiters, Status.Io));
    this.#changes.abandonResolving();
    this.wantTick();
  }

  abandon(job: Job): void {
    const op = job.op!;
    if (op.kind !== ExtentOpKind.Read) delist(job.table!, job);
    this.#core.release(job);
    this.finish(op, Status.Io);
  }
}
