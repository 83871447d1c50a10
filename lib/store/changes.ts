/**
 * What every change of blocks goes through: its record is staged, its bytes go out at the end of the batch, and
 * when they have landed the operation is answered.
 *
 * Invariants
 *  1. A job is in its table's list of writes in flight from the staging of its record until its bytes have landed
 *     and the table's entries say so: a checkpoint meanwhile keeps the record.
 *  2. Bytes that may or may not have landed are compared before anything is concluded.
 */
import { ENTRY_ABSENT } from "../core/checksum.js";
import { EXTENT_OP_BLOCKS_MAX, ExtentFlag, type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import type { Routine } from "../core/routine.js";
import { Status } from "../core/status.js";
import { isFull } from "./device.js";
import { delist, enlist, type Job } from "./job.js";
import { STAMP_WORDS } from "./log-records.js";
import type { RequestCore } from "./request-core.js";
import type { Table } from "./table.js";
import type { ZeroEntries } from "./zero-entries.js";

export interface ChangesOwner {
  /** Sends the bytes of a staged job out. */
  submitJob(job: Job): void;
  /** The device has failed: the job is answered with Io. */
  abandon(job: Job): void;
  /** Writes wait for space, or none does any more. */
  fullChanged(): void;
  /** An operation met a full file system; try again later. */
  retrySpaceLater(): void;
}

export class Changes {
  readonly #core: RequestCore;
  readonly #owner: ChangesOwner;
  /** Changes whose record is staged: submitted at the end of the batch. */
  #toSubmit: Job | null = null;
  #lastToSubmit: Job | null = null;
  /** Changes that met a full file system and whose blocks are being looked at. */
  readonly #resolving = new Set<Job>();
  #zeroEntries!: ZeroEntries;
  /** Entries that a change which met a full file system should have left. */
  #wantedEntries = new Uint32Array(0);

  constructor(core: RequestCore, owner: ChangesOwner) {
    this.#core = core;
    this.#owner = owner;
  }

  wire(zeroEntries: ZeroEntries): void {
    this.#zeroEntries = zeroEntries;
    const { extentBlocks } = this.#core.parts.device.layout;
    this.#wantedEntries = new Uint32Array(Math.max(extentBlocks, EXTENT_OP_BLOCKS_MAX));
  }

  // ---- Before ------------------------------------------------------------------------------------------

  /** A record about blocks of the table is staged: its bytes go out at the end of the batch. */
  stage(op: ExtentOp, table: Table, sequence: number): void {
    const job = this.#core.jobs.take(op, table);
    job.sequence = sequence;
    if (sequence < table.dirtySince) table.dirtySince = sequence;
    enlist(table, job);
    if (this.#lastToSubmit === null) this.#toSubmit = job;
    else this.#lastToSubmit.next = job;
    this.#lastToSubmit = job;
    this.#core.wantTick();
  }

  submitStaged(): void {
    let job = this.#toSubmit;
    this.#toSubmit = null;
    this.#lastToSubmit = null;
    while (job !== null) {
      const { next } = job;
      job.next = null;
      if (this.#core.parts.device.failed === null) this.#owner.submitJob(job);
      else this.#owner.abandon(job);
      job = next;
    }
  }

  /** The extent belongs to a newer generation from now on; the log has room. */
  stamp(op: ExtentOp, slot: number): void {
    const { directory, log } = this.#core.parts;
    if (!this.#outdates(op, slot)) return;
    directory.stamp(slot, log.stamp(slot, directory.alloc[slot]!, op.generation), op.generation);
  }

  #outdates(op: ExtentOp, slot: number): boolean {
    return op.generation > this.#core.parts.directory.generation[slot]!;
  }

  /**
   * No block changes. The extent gets its generation all the same: the operation may be a re-send, and a member
   * that never had the first one must find the extent among those that changed without it.
   */
  stampOnly(op: ExtentOp): void {
    const slot = this.#core.find(op);
    if (slot >= 0 && this.#outdates(op, slot)) {
      if (!this.#core.hasLogRoom(op, STAMP_WORDS)) return;
      this.stamp(op, slot);
      this.#core.parts.sync.touch();
    }
    this.#core.finishUnchanged(op);
  }

  // ---- After -------------------------------------------------------------------------------------------

  /** Bytes and entries of the job's blocks are what they should be: answer. */
  changed(job: Job): void {
    const op = job.op!;
    const { sync, bad } = this.#core.parts;
    this.#landed(job);
    if (bad.count > 0) bad.mended(op.volume, op.layer, op.extent, op.block, op.blocks);
    this.#core.release(job);
    this.#core.maintenance.writeLanded();
    if ((op.flags & ExtentFlag.Fua) === 0 || !sync.addOp(op)) this.#core.answer(op, Status.Ok);
  }

  /** Nothing of the job is in flight any more, and the table's entries say what its bytes are. */
  #landed(job: Job): void {
    const { sync, times } = this.#core.parts;
    const table = job.table!;
    table.changes++;
    delist(table, job);
    sync.touch();
    times.wrote(table.slot, this.#core.now, sync);
  }

  /** Once more with the held payload; a full file system waits, every other error is the device's end. */
  failed(job: Job): void {
    const { device } = this.#core.parts;
    if (isFull(job.result)) {
      this.#resolving.add(job);
      this.#core.maintenance.runTask(() => this.#resolve(job));
      return;
    }
    if (job.retries >= device.tunables.writeRetries) {
      device.fail(`a write failed ${job.retries + 1} times (errno ${-job.result})`);
      this.#owner.abandon(job);
      return;
    }
    job.retries++;
    this.#owner.submitJob(job);
  }

  *#resolve(job: Job): Routine<void> {
    const op = job.op!;
    const table = job.table!;
    const { maintenance } = this.#core;
    this.#want(op, table);
    const found = yield* maintenance.settler.compare(table, op.block, op.blocks, this.#wantedEntries);
    // Blocks that are neither what they were nor what they should be are known to the table only.
    if (found.mixed) yield* maintenance.writeNow(table, job);
    this.#resolved(job, found.complete);
  }

  #want(op: ExtentOp, table: Table): void {
    if (op.kind === ExtentOpKind.Write) {
      this.#wantedEntries.set(op.entries.subarray(0, op.blocks));
    } else if ((op.flags & ExtentFlag.NoHole) === 0) {
      this.#wantedEntries.fill(ENTRY_ABSENT, 0, op.blocks);
    } else {
      this.#wantedEntries.set(this.#zeroEntries.of(op, table).subarray(0, op.blocks));
    }
  }

  /**
   * It is known what a write that met a full file system has left behind, and the table says so. If all of it
   * landed after all it is done; otherwise it starts again when there may be space.
   */
  #resolved(job: Job, complete: boolean): void {
    if (!this.#resolving.delete(job)) return;
    const op = job.op!;
    if (complete) {
      this.changed(job);
      return;
    }
    this.#landed(job);
    this.#core.release(job);
    this.#core.maintenance.writeLanded();
    if ((op.flags & ExtentFlag.NoWait) !== 0) {
      this.#core.finish(op, Status.NoSpace);
      return;
    }
    const { waiting } = this.#core;
    waiting.forRoom(op);
    this.#owner.fullChanged();
    this.#owner.retrySpaceLater();
  }

  /** The device has failed. */
  abandonResolving(): void {
    for (const job of this.#resolving) this.#owner.abandon(job);
    this.#resolving.clear();
  }
}
