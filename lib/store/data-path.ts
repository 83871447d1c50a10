/**
 * Requests: from `submit` to the answer.
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

import { assert } from "../core/assert.js";
import { ENTRY_ABSENT, extentSeed, volumeSeed } from "../core/checksum.js";
import type { TickTask } from "../core/clock.js";
import type { Disk, DiskListener } from "../core/disk.js";
import {
  EXTENT_OP_BLOCKS_MAX,
  ExtentFlag,
  type ExtentIo,
  type ExtentOp,
  ExtentOpKind,
} from "../core/extent-io.js";
import { BLOCK_BYTES, BLOCK_SHIFT } from "../core/limits.js";
import type { Routine } from "../core/routine.js";
import { Status } from "../core/status.js";
import { isFull } from "./device.js";
import type { Freeing } from "./freeing.js";
import { delist, enlist, type Job, JobPool } from "./job.js";
import type { Loader } from "./loader.js";
import { ABSENT_WORDS, ALLOC_WORDS, deltaWords, FREE_WORDS, STAMP_WORDS } from "./log-records.js";
import type { Maintenance } from "./maintenance.js";
import { isZero } from "./metadata-io.js";
import { OpList } from "./op-list.js";
import type { Parts } from "./parts.js";
import { clearPresent, fillPresent, hasPresent } from "./present.js";
import type { SlotPool } from "./slot-pool.js";
import type { SyncOwner } from "./sync.js";
import { type Table, TableState } from "./table.js";
import { cutZeroes, type ZeroParts } from "./zeroing.js";

const BLOCK_WORDS = BLOCK_BYTES / 4;

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

export class DataPath implements ExtentIo, TickTask, DiskListener, SyncOwner, ZeroParts {
  #wired: DataPathParts | null = null;
  #parts!: Parts;
  #slots!: SlotPool;
  #freeing!: Freeing;
  #maintenance!: Maintenance;
  #loader!: Loader;
  #disk!: Disk;
  readonly #owner: DataPathOwner;
  readonly #jobs = new JobPool();
  /** Answered at the end of the batch. */
  readonly #done = new OpList();
  /** Writes whose record is staged: submitted at the end of the batch. */
  #toSubmit: Job | null = null;
  #lastToSubmit: Job | null = null;
  #tickAsked = false;
  #stopped = false;
  readonly #settleWaiters = new Map<number, OpList>();
  readonly #hotWaiters = new Map<number, OpList>();
  readonly #frameWaiters = new OpList();
  readonly #logWaiters = new OpList();
  /** First writes into an extent that find no free slot, or none that is hot yet. */
  readonly #slotWaiters = new OpList();
  /** Operations that met a full file system and wait for the next try. */
  readonly #spaceWaiters = new OpList();
  /** Writes that met one and whose blocks are being looked at. */
  readonly #resolving = new Set<Job>();
  /** Operations that met one, waiting or just being tried again. */
  readonly #metFull = new Set<ExtentOp>();
  readonly #computed = new Uint32Array(EXTENT_OP_BLOCKS_MAX);
  /** Entries of written zeros, for Zero with NoHole. */
  #zeroEntries = new Uint32Array(0);
  /** Entries that a write which met a full file system should have left. */
  #wantedEntries = new Uint32Array(0);
  #zeros = 0;
  #zerosBytes = 0;
  #reserve = 0;
  /** Job whose zero parts are being submitted. */
  #cutting: Job | null = null;
  #now = 0;
  blocksRead = 0;
  blocksWritten = 0;
  bytesZeroed = 0;
  zeroCalls = 0;

  constructor(owner: DataPathOwner) {
    this.#owner = owner;
  }

  /** `zeros`: a pool buffer of `zerosBytes` zeros. */
  wire(wired: DataPathParts, zeros: number, zerosBytes: number): void {
    assert(this.#wired === null, "wired once");
    this.#wired = wired;
    this.#parts = wired.parts;
    this.#slots = wired.slots;
    this.#freeing = wired.freeing;
    this.#maintenance = wired.maintenance;
    this.#loader = wired.loader;
    const { device } = wired.parts;
    this.#disk = device.env.disk;
    this.#zeros = zeros;
    this.#zerosBytes = zerosBytes;
    this.#zeroEntries = new Uint32Array(device.layout.extentBlocks);
    this.#wantedEntries = new Uint32Array(Math.max(device.layout.extentBlocks, EXTENT_OP_BLOCKS_MAX));
    this.#reserve = Math.floor(device.layout.slots * device.tunables.reserveShare);
    this.#now = device.env.clock.now();
  }

  /** Operations that have not been answered. */
  get busy(): boolean {
    return this.#jobs.count > 0 || this.#done.length > 0 || this.waiting > 0;
  }

  /** Operations that wait for something; of these, for space. */
  get waiting(): number {
    let count = this.#frameWaiters.length + this.#logWaiters.length + this.waitingForSpace;
    for (const list of this.#settleWaiters.values()) count += list.length;
    for (const list of this.#hotWaiters.values()) count += list.length;
    return count;
  }
  get waitingForSpace(): number {
    return this.#slotWaiters.length + this.#metFull.size;
  }
  get waitsForLog(): boolean {
    return this.#logWaiters.length > 0;
  }

  submit(op: ExtentOp): void {
    op.badBlock = -1;
    if (this.#stopped) this.#finish(op, Status.Shutdown);
    else this.#dispatch(op);
  }

  /** New operations are refused; those that wait for what may never come are answered. */
  stop(): void {
    this.#stopped = true;
    this.#refuse(this.#slotWaiters, Status.Shutdown);
    this.#refuse(this.#spaceWaiters, Status.Shutdown);
  }

  #dispatch(op: ExtentOp): void {
    if (this.#parts.device.failed !== null) {
      this.#finish(op, Status.Io);
      return;
    }
    switch (op.kind) {
      case ExtentOpKind.Read:
      case ExtentOpKind.Map:
        this.#look(op);
        break;
      case ExtentOpKind.Write:
        this.#write(op);
        break;
      case ExtentOpKind.Zero:
        this.#zero(op);
        break;
      case ExtentOpKind.Free:
        this.#free(op);
        break;
      case ExtentOpKind.Flush:
        if (!this.#parts.sync.addOp(op)) this.#finish(op, Status.Ok);
        break;
      case ExtentOpKind.Stamp:
        this.#stampOnly(op);
        break;
    }
  }

  /** Answers at the end of the batch: `submit` never calls back. */
  #finish(op: ExtentOp, status: Status): void {
    if (this.#metFull.size > 0) this.#metFull.delete(op);
    op.status = status;
    this.#done.push(op);
    this.wantTick();
  }

  /**
   * Nothing has to be done. What made it so may not be stable yet (an earlier TRIM), so FUA waits for a sync
   * like any other.
   */
  #finishUnchanged(op: ExtentOp): void {
    if ((op.flags & ExtentFlag.Fua) === 0 || !this.#parts.sync.addOp(op)) this.#finish(op, Status.Ok);
  }

  // ---- Finding the extent ------------------------------------------------------------------------------

  #find(op: ExtentOp): number {
    return this.#parts.directory.index.find(op.volume, op.layer, op.extent);
  }

  /** The slot's table, ready and settled; null when the operation has been put into a list to wait. */
  #tableFor(op: ExtentOp, slot: number): Table | null {
    if (this.#parts.unsettled.has(slot)) {
      waitFor(this.#settleWaiters, slot, op);
      this.#maintenance.settleNow(slot);
      return null;
    }
    const { cache } = this.#parts;
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
      this.#finish(op, Status.Io);
    }
    return null;
  }

  #load(op: ExtentOp, slot: number): void {
    const { cache, directory } = this.#parts;
    const seed = extentSeed(volumeSeed(op.volume), op.extent);
    const table = cache.claim(slot, directory.alloc[slot]!, seed);
    if (table === null) {
      this.#frameWaiters.push(op);
      this.#maintenance.wantFrames();
      return;
    }
    this.#loader.load(table);
    this.#waitForTable(op, table);
  }

  /** A read does not wait for the table to begin: which of its blocks have bytes is asked afterwards. */
  #waitForTable(op: ExtentOp, table: Table): void {
    if (op.kind !== ExtentOpKind.Read) {
      table.waiters.push(op);
      return;
    }
    const job = this.#jobs.take(op, table);
    job.early = true;
    job.firstBlock = op.block;
    job.blocks = op.blocks;
    job.next = table.earlyReads;
    table.earlyReads = job;
    this.#submitRead(job);
  }

  /** The slot may be written to; otherwise the operation waits for its hot bit. */
  #isHot(op: ExtentOp, slot: number): boolean {
    if (this.#parts.hot.isHot(slot)) return true;
    waitFor(this.#hotWaiters, slot, op);
    this.#parts.hot.request(slot);
    return false;
  }

  #hasLogRoom(op: ExtentOp, words: number): boolean {
    if (this.#parts.log.makeRoom(words)) return true;
    this.#logWaiters.push(op);
    this.#maintenance.kick();
    return false;
  }

  // ---- Read and Map ------------------------------------------------------------------------------------

  #look(op: ExtentOp): void {
    const slot = this.#find(op);
    if (slot < 0) {
      clearPresent(op);
      this.#finish(op, Status.Ok);
      return;
    }
    const table = this.#tableFor(op, slot);
    if (table === null) return;
    fillPresent(op, table.entries);
    if (op.kind === ExtentOpKind.Map || op.presentCount === 0) this.#finish(op, Status.Ok);
    else this.#read(op, table);
  }

  /** One disk read from the first to the last block that has bytes. */
  #read(op: ExtentOp, table: Table): void {
    const { entries } = table;
    let first = op.block;
    let last = op.block + op.blocks - 1;
    while (entries[first] === ENTRY_ABSENT) first++;
    while (entries[last] === ENTRY_ABSENT) last--;
    const job = this.#jobs.take(op, table);
    job.firstBlock = first;
    job.blocks = last - first + 1;
    this.#submitRead(job);
  }

  #submitRead(job: Job): void {
    const op = job.op!;
    job.parts = 1;
    job.result = 0;
    const memory = op.memory + ((job.firstBlock - op.block) << BLOCK_SHIFT);
    this.#disk.read(
      this.#offsetOf(job.table!.slot, job.firstBlock),
      memory,
      job.blocks << BLOCK_SHIFT,
      this,
      job.id,
    );
  }

  #readDone(job: Job): void {
    const op = job.op!;
    if (job.early) {
      const { state, entries } = job.table!;
      if (state === TableState.Lost) {
        this.#release(job);
        op.badBlock = op.block;
        this.#answer(op, Status.Io);
        return;
      }
      fillPresent(op, entries);
      if (op.presentCount === 0) {
        this.#release(job);
        this.#answer(op, Status.Ok);
        return;
      }
    }
    const bad = job.result < 0 ? op.block : this.#verify(job);
    if (bad >= 0 && job.retries === 0) {
      // Once more: a transient error or a read that went astray is not the block's fault.
      job.retries = 1;
      this.#submitRead(job);
      return;
    }
    const table = job.table!;
    const unreadable = job.result < 0;
    const { slot } = table;
    this.#release(job);
    if (bad < 0) {
      this.blocksRead += op.blocks;
      this.#answer(op, Status.Ok);
      return;
    }
    if (!unreadable) {
      op.badBlock = bad;
      const { directory } = this.#parts;
      this.#parts.bad.add(directory.volume[slot]!, directory.layer[slot]!, directory.extent[slot]!, bad);
    }
    this.#answer(op, Status.Io);
  }

  /** First block whose bytes fail their entry, or −1. Absent blocks become zeros in memory. */
  #verify(job: Job): number {
    const op = job.op!;
    const { entries, seed } = job.table!;
    const { checksums, pool } = this.#parts.device.env;
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

  // ---- Write -------------------------------------------------------------------------------------------

  #write(op: ExtentOp): void {
    assert(op.blocks > 0 && op.blocks <= EXTENT_OP_BLOCKS_MAX, "a write is 1 to 256 blocks");
    const slot = this.#find(op);
    if (slot < 0) {
      if (this.#isAllZero(op)) {
        this.#finishUnchanged(op);
        return;
      }
      const fresh = this.#allocate(op, deltaWords(op.blocks));
      if (fresh === null) return;
      this.#keepAbsent(op, fresh.entries);
      this.#stageWrite(op, fresh);
      return;
    }
    const table = this.#tableFor(op, slot);
    if (table === null) return;
    if (this.#keepAbsent(op, table.entries)) {
      this.#stampOnly(op);
      return;
    }
    if (!this.#isHot(op, slot) || !this.#hasLogRoom(op, deltaWords(op.blocks) + STAMP_WORDS)) return;
    this.#stageWrite(op, table);
  }

  #stageWrite(op: ExtentOp, table: Table): void {
    this.#stamp(op, table.slot);
    this.#stage(op, table, this.#parts.log.delta(table.slot, table.alloc, op.block, op.blocks, op.entries));
  }

  /** A record about blocks of the table is staged: its bytes go out at the end of the batch. */
  #stage(op: ExtentOp, table: Table, sequence: number): void {
    const job = this.#jobs.take(op, table);
    job.sequence = sequence;
    if (sequence < table.dirtySince) table.dirtySince = sequence;
    enlist(table, job);
    this.#queueSubmit(job);
  }

  #queueSubmit(job: Job): void {
    job.next = null;
    if (this.#lastToSubmit === null) this.#toSubmit = job;
    else this.#lastToSubmit.next = job;
    this.#lastToSubmit = job;
    this.wantTick();
  }

  /** The extent belongs to a newer generation from now on. */
  #stamp(op: ExtentOp, slot: number): void {
    const { directory, log } = this.#parts;
    if (!this.#outdates(op, slot)) return;
    directory.stamp(slot, log.stamp(slot, directory.alloc[slot]!, op.generation), op.generation);
  }

  #outdates(op: ExtentOp, slot: number): boolean {
    return op.generation > this.#parts.directory.generation[slot]!;
  }

  /**
   * No block changes. The extent gets its generation all the same: the operation may be a re-send, and a member
   * that never had the first one must find the extent among those that changed without it.
   */
  #stampOnly(op: ExtentOp): void {
    const slot = this.#find(op);
    if (slot >= 0 && this.#outdates(op, slot)) {
      if (!this.#hasLogRoom(op, STAMP_WORDS)) return;
      this.#stamp(op, slot);
      this.#parts.sync.touch();
    }
    this.#finishUnchanged(op);
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
    return isZero(this.#parts.device.words, memory >>> 2, BLOCK_WORDS);
  }

  /**
   * A new slot for the operation's extent, its ALLOC staged, with room for `words` more words of log. Null
   * when the operation waits, or was answered NoSpace.
   */
  #allocate(op: ExtentOp, words: number): Table | null {
    const { directory, log, cache } = this.#parts;
    if (this.#isFull()) {
      if ((op.flags & ExtentFlag.NoWait) !== 0 && this.#freeing.count === 0) {
        this.#finish(op, Status.NoSpace);
      } else {
        this.#slotWaiters.push(op);
        this.#owner.fullChanged();
      }
      return null;
    }
    if (this.#slots.ready === 0) {
      this.#slotWaiters.push(op);
      this.#slots.refill();
      return null;
    }
    if (!log.makeRoom(ALLOC_WORDS + STAMP_WORDS + words)) {
      this.#logWaiters.push(op);
      this.#maintenance.kick();
      return null;
    }
    const slot = this.#slots.take();
    const table = cache.claim(slot, 0, extentSeed(volumeSeed(op.volume), op.extent));
    if (table === null) {
      this.#slots.put(slot);
      this.#frameWaiters.push(op);
      this.#maintenance.wantFrames();
      return null;
    }
    const identity = {
      volume: op.volume,
      layer: op.layer,
      extent: op.extent,
      generation: op.generation,
      created: op.sequence,
    };
    table.alloc = log.alloc(slot, identity);
    table.entries.fill(ENTRY_ABSENT);
    table.state = TableState.Ready;
    directory.allocate(slot, table.alloc, identity);
    this.#parts.device.env.events.extentChanged(op.volume, op.layer, op.extent, true);
    return table;
  }

  /** No slot may be given to a new extent: all are taken, or only the reserve is left. */
  #isFull(): boolean {
    return this.#parts.directory.freeSlots <= this.#reserve;
  }

  get full(): boolean {
    return this.#metFull.size > 0 || (this.#slotWaiters.length > 0 && this.#isFull());
  }

  #writeDone(job: Job): void {
    const op = job.op!;
    if (job.result < 0) {
      this.#writeFailed(job);
      return;
    }
    const table = job.table!;
    const { entries } = table;
    for (let i = 0; i < op.blocks; i++) entries[op.block + i] = op.entries[i]!;
    this.blocksWritten += op.blocks;
    this.#changed(job);
  }

  /** Bytes and entries of the job's blocks are what they should be: answer. */
  #changed(job: Job): void {
    const op = job.op!;
    const { sync, bad } = this.#parts;
    this.#landed(job);
    if (bad.count > 0) bad.mended(op.volume, op.layer, op.extent, op.block, op.blocks);
    this.#release(job);
    this.#maintenance.writeLanded();
    if ((op.flags & ExtentFlag.Fua) === 0 || !sync.addOp(op)) this.#answer(op, Status.Ok);
  }

  /** Nothing of the job is in flight any more, and the table's entries say what its bytes are. */
  #landed(job: Job): void {
    const { sync, times } = this.#parts;
    const table = job.table!;
    table.changes++;
    delist(table, job);
    sync.touch();
    times.wrote(table.slot, this.#now, sync);
  }

  /** Once more with the held payload; a full file system waits, every other error is the device's end. */
  #writeFailed(job: Job): void {
    const { device } = this.#parts;
    if (isFull(job.result)) {
      this.#resolving.add(job);
      this.#maintenance.runTask(() => this.#resolve(job));
      return;
    }
    if (job.retries >= device.tunables.writeRetries) {
      device.fail(`a write failed ${job.retries + 1} times (errno ${-job.result})`);
      this.#abandon(job);
      return;
    }
    job.retries++;
    this.#submitJob(job);
  }

  *#resolve(job: Job): Routine<void> {
    const op = job.op!;
    const table = job.table!;
    if (op.kind === ExtentOpKind.Write) this.#wantedEntries.set(op.entries.subarray(0, op.blocks));
    else if ((op.flags & ExtentFlag.NoHole) === 0) this.#wantedEntries.fill(ENTRY_ABSENT, 0, op.blocks);
    else {
      this.#computeZeroEntries(op, table);
      this.#wantedEntries.set(this.#zeroEntries.subarray(0, op.blocks));
    }
    const found = yield* this.#maintenance.settler.compare(table, op.block, op.blocks, this.#wantedEntries);
    // Blocks that are neither what they were nor what they should be are known to the table only.
    if (found.mixed) yield* this.#maintenance.writeNow(table, job);
    this.#resolved(job, found.complete);
  }

  /**
   * It is known what a write that met a full file system has left behind, and the table says so. If all of it
   * landed after all it is done; otherwise it starts again when there may be space.
   */
  #resolved(job: Job, complete: boolean): void {
    if (!this.#resolving.delete(job)) return;
    const op = job.op!;
    if (complete) {
      this.#changed(job);
      return;
    }
    this.#landed(job);
    this.#release(job);
    this.#maintenance.writeLanded();
    if ((op.flags & ExtentFlag.NoWait) !== 0) {
      this.#finish(op, Status.NoSpace);
      return;
    }
    this.#spaceWaiters.push(op);
    this.#metFull.add(op);
    this.#owner.fullChanged();
    this.#owner.retrySpaceLater();
  }

  // ---- Zero --------------------------------------------------------------------------------------------

  #zero(op: ExtentOp): void {
    const noHole = (op.flags & ExtentFlag.NoHole) !== 0;
    const slot = this.#find(op);
    if (slot < 0) {
      if (!noHole) {
        this.#finishUnchanged(op);
        return;
      }
      const fresh = this.#allocate(op, deltaWords(op.blocks));
      if (fresh !== null) this.#stageZero(op, fresh, true);
      return;
    }
    if (!noHole && op.blocks === this.#parts.device.layout.extentBlocks) {
      this.#free(op);
      return;
    }
    const table = this.#tableFor(op, slot);
    if (table === null) return;
    if (!noHole && !hasPresent(op, table.entries)) {
      this.#stampOnly(op);
      return;
    }
    const words = noHole ? deltaWords(op.blocks) : ABSENT_WORDS;
    if (!this.#isHot(op, slot) || !this.#hasLogRoom(op, words + STAMP_WORDS)) return;
    this.#stageZero(op, table, noHole);
  }

  #stageZero(op: ExtentOp, table: Table, noHole: boolean): void {
    const { log } = this.#parts;
    const { slot, alloc } = table;
    this.#stamp(op, table.slot);
    if (noHole) this.#computeZeroEntries(op, table);
    const sequence = noHole
      ? log.delta(slot, alloc, op.block, op.blocks, this.#zeroEntries)
      : log.absent(slot, alloc, op.block, op.blocks);
    this.#stage(op, table, sequence);
  }

  /** Entries of `op.blocks` blocks of zeros at `op.block`, in `#zeroEntries[0 …]`. */
  #computeZeroEntries(op: ExtentOp, table: Table): void {
    const { checksums } = this.#parts.device.env;
    const step = this.#zerosBytes >>> BLOCK_SHIFT;
    for (let i = 0; i < op.blocks; i += step) {
      const count = Math.min(step, op.blocks - i);
      checksums.blockEntries(this.#zeros, count, table.seed, op.block + i, this.#zeroEntries, i);
    }
  }

  #zeroDone(job: Job): void {
    const op = job.op!;
    if (job.result < 0) {
      this.#writeFailed(job);
      return;
    }
    const { entries } = job.table!;
    if ((op.flags & ExtentFlag.NoHole) !== 0) {
      this.#computeZeroEntries(op, job.table!);
      for (let i = 0; i < op.blocks; i++) entries[op.block + i] = this.#zeroEntries[i]!;
    } else {
      entries.fill(ENTRY_ABSENT, op.block, op.block + op.blocks);
    }
    this.bytesZeroed += op.blocks << BLOCK_SHIFT;
    this.#changed(job);
  }

  /** Submits the parts of a Zero: from the first to the last block that has bytes, absent ones are zeros. */
  #submitZero(job: Job): void {
    const op = job.op!;
    const table = job.table!;
    const noHole = (op.flags & ExtentFlag.NoHole) !== 0;
    let first = op.block;
    let last = op.block + op.blocks - 1;
    if (!noHole) {
      while (table.entries[first] === ENTRY_ABSENT) first++;
      while (table.entries[last] === ENTRY_ABSENT) last--;
    }
    const offset = this.#offsetOf(table.slot, first);
    const length = (last - first + 1) << BLOCK_SHIFT;
    const { tunables } = this.#parts.device;
    const punchMin = noHole ? Number.POSITIVE_INFINITY : tunables.punchBytesMin;
    this.#cutting = job;
    cutZeroes(offset, length, this.#disk.zeroGrainBytes, punchMin, this.#zerosBytes, this);
    this.#cutting = null;
  }

  punch(offset: number, length: number): void {
    const job = this.#cutting!;
    job.parts++;
    this.zeroCalls++;
    this.#disk.zero(offset, length, this, job.id);
  }

  overwrite(offset: number, length: number): void {
    const job = this.#cutting!;
    job.parts++;
    this.#disk.write(offset, this.#zeros, length, this, job.id);
  }

  // ---- Free --------------------------------------------------------------------------------------------

  #free(op: ExtentOp): void {
    const slot = this.#find(op);
    if (slot >= 0) {
      if (!this.#hasLogRoom(op, FREE_WORDS)) return;
      this.freeSlot(slot);
    }
    // The record is appended before the answer goes out, both at the end of this batch.
    this.#finishUnchanged(op);
  }

  /** Stages FREE for a live slot; the log has room for it. */
  freeSlot(slot: number): void {
    const { directory, log, cache, pending, unsettled, sync, bad, device } = this.#parts;
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
    this.slotSettled(slot);
    this.wantTick();
  }

  // ---- Completions -------------------------------------------------------------------------------------

  diskDone(tag: number, result: number): void {
    const job = this.#jobs.byId(tag);
    if (result < 0) job.result = result;
    job.parts--;
    if (job.parts > 0) return;
    // An early read goes on when the table is there, too.
    if (job.early && job.table!.state === TableState.Loading) return;
    if (this.#parts.device.failed !== null) {
      this.#abandon(job);
      return;
    }
    switch (job.op!.kind) {
      case ExtentOpKind.Read:
        this.#readDone(job);
        break;
      case ExtentOpKind.Write:
        this.#writeDone(job);
        break;
      default:
        this.#zeroDone(job);
    }
  }

  #answer(op: ExtentOp, status: Status): void {
    if (this.#metFull.size > 0) this.#metFull.delete(op);
    op.status = status;
    op.listener.extentDone(op);
  }

  #release(job: Job): void {
    const table = job.table!;
    this.#jobs.give(job);
    this.#parts.cache.unpin(table);
  }

  /** A sync that `op` waited for is over. */
  syncedOp(op: ExtentOp): void {
    if (this.#parts.device.failed === null) this.#answer(op, Status.Ok);
    else this.#finish(op, Status.Io);
  }

  // ---- End of batch ------------------------------------------------------------------------------------

  wantTick(): void {
    if (this.#tickAsked) return;
    this.#tickAsked = true;
    this.#parts.device.env.ticker.atTickEnd(this);
  }

  /** One append, then the data, then a sync if one is wanted, then the answers that need no disk. */
  tick(): void {
    this.#tickAsked = false;
    const { log, sync, device } = this.#parts;
    this.#now = device.env.clock.now();
    log.append();
    this.#submitStaged();
    sync.submit();
    // What these answers ask for is staged after this append: it belongs to the next end of batch.
    for (let left = this.#done.length; left > 0; left--) {
      const op = this.#done.shift()!;
      op.listener.extentDone(op);
    }
    this.#owner.batchEnded();
  }

  #submitStaged(): void {
    let job = this.#toSubmit;
    this.#toSubmit = null;
    this.#lastToSubmit = null;
    while (job !== null) {
      const { next } = job;
      job.next = null;
      if (this.#parts.device.failed === null) this.#submitJob(job);
      else this.#abandon(job);
      job = next;
    }
  }

  #submitJob(job: Job): void {
    const op = job.op!;
    job.result = 0;
    if (op.kind === ExtentOpKind.Write) {
      job.parts = 1;
      this.#disk.write(
        this.#offsetOf(job.table!.slot, op.block),
        op.memory,
        op.blocks << BLOCK_SHIFT,
        this,
        job.id,
      );
    } else {
      this.#submitZero(job);
    }
  }

  #offsetOf(slot: number, block: number): number {
    const { slotsStart, slotBytes } = this.#parts.device.layout;
    return slotsStart + slot * slotBytes + block * BLOCK_BYTES;
  }

  // ---- Those who wait ----------------------------------------------------------------------------------

  tableLoaded(table: Table): void {
    let job = table.earlyReads;
    table.earlyReads = null;
    while (job !== null) {
      const { next } = job;
      job.next = null;
      if (job.parts === 0) {
        if (this.#parts.device.failed === null) this.#readDone(job);
        else this.#abandon(job);
      }
      job = next;
    }
    for (let left = table.waiters.length; left > 0; left--) this.#dispatch(table.waiters.shift()!);
  }

  slotSettled(slot: number): void {
    this.#wake(this.#settleWaiters, slot);
  }

  slotIsHot(slot: number): void {
    this.#wake(this.#hotWaiters, slot);
  }

  framesFreed(): void {
    if (this.#frameWaiters.length > 0) this.#wakeAll(this.#frameWaiters);
  }

  logFreed(): void {
    this.#wakeAll(this.#logWaiters);
  }

  /** A slot may be taken now. */
  slotsReady(): void {
    this.#wakeAll(this.#slotWaiters);
  }

  /** Space may have come back to the file system. */
  retrySpace(): void {
    this.#wakeAll(this.#spaceWaiters);
  }

  #wake(lists: Map<number, OpList>, slot: number): void {
    const list = lists.get(slot);
    if (list === undefined) return;
    lists.delete(slot);
    this.#wakeAll(list);
  }

  /** Each starts again once; those that must wait again are behind them in the list. */
  #wakeAll(list: OpList): void {
    for (let left = list.length; left > 0; left--) this.#dispatch(list.shift()!);
  }

  #refuse(list: OpList, status: Status): void {
    for (let op = list.shift(); op !== null; op = list.shift()) this.#finish(op, status);
  }

  // ---- Failure -----------------------------------------------------------------------------------------

  /** The device has failed: nobody waits any longer. What is in flight is answered when it comes back. */
  failed(): void {
    for (const lists of [this.#settleWaiters, this.#hotWaiters]) {
      for (const list of lists.values()) this.#refuse(list, Status.Io);
      lists.clear();
    }
    for (const list of [this.#frameWaiters, this.#logWaiters, this.#slotWaiters, this.#spaceWaiters]) {
      this.#refuse(list, Status.Io);
    }
    this.#parts.cache.forEachResident((table) => this.#refuse(table.waiters, Status.Io));
    for (const job of this.#resolving) this.#abandon(job);
    this.#resolving.clear();
    this.wantTick();
  }

  #abandon(job: Job): void {
    const op = job.op!;
    if (op.kind !== ExtentOpKind.Read) delist(job.table!, job);
    this.#release(job);
    this.#finish(op, Status.Io);
  }
}

function waitFor(lists: Map<number, OpList>, slot: number, op: ExtentOp): void {
  let list = lists.get(slot);
  if (list === undefined) {
    list = new OpList();
    lists.set(slot, list);
  }
  list.push(op);
}
