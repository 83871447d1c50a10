/**
 * What goes on beside requests: settling after an opening, checkpoints, eviction of dirty tables, cooling.
 * One routine does it all, one round after the other.
 *
 * Invariants
 *  1. At most one write is in flight per table and per directory page: only this routine writes them.
 *  2. The log is freed only below what both copies of every table and page durably reflect.
 *  3. A slot is settled before it is checkpointed or cooled. It cools only when its table is durable, its
 *     data synced, nothing is in flight and its owner has called it stable.
 */
import { PIECE_BYTES } from "../core/limits.js";
import { type Routine, startRoutine } from "../core/routine.js";
import { WHOLE_EXTENT } from "./bad-blocks.js";
import { CLEAN, type Directory, SlotState } from "./directory.js";
import { PAGE_BYTES, PageKind } from "./format.js";
import type { Job } from "./job.js";
import type { PageWrite } from "./metadata-io.js";
import type { Parts } from "./parts.js";
import type { Settled, Settler } from "./settle.js";
import { type Table, TableState } from "./table.js";

/** What the store does for the maintenance routine. */
export interface MaintenanceOwner {
  /** Operations that wait for a slot to be settled, a frame, or log room may try again. */
  slotSettled(slot: number): void;
  framesFreed(): void;
  logFreed(): void;
  /** Nothing else to settle: the device may stop being LOSSY. */
  clearLossy(): Routine<void>;
  readonly lossy: boolean;
  /** LOSSY, and nothing outside this device is waited for to end it. */
  readonly lossyDue: boolean;
  /** Someone waits for log room. */
  readonly logWanted: boolean;
  /** The free slot's bytes are durably zero. */
  isZeroed(slot: number): boolean;
  /** Everything that was acknowledged about the slot is on all in-sync members (DESIGN §6). */
  isStable(slot: number): boolean;
}

/** Something whose write lets the log's tail move: a table, a directory page, or a slot to be settled. */
interface LogHolder {
  readonly since: number;
  readonly table: Table | null;
  readonly page: number;
  readonly slot: number;
}

export class Maintenance {
  readonly #parts: Parts;
  readonly #owner: MaintenanceOwner;
  readonly settler: Settler;
  readonly #buffer: number;
  readonly #batch: number;
  readonly #settleWanted = new Set<number>();
  readonly #tasks: (() => Routine<void>)[] = [];
  #framesWanted = false;
  #coolDue = false;
  #underPressure = false;
  /** Nothing but writes in flight holds the log: only one that lands can change that. */
  #stuck = false;
  #running = false;
  #stopped = false;
  checkpoints = 0;
  adopted = 0;

  /** `buffer`: tables or pages of one round; see `bufferBytes`. */
  constructor(parts: Parts, owner: MaintenanceOwner, settler: Settler, buffer: number) {
    this.#parts = parts;
    this.#owner = owner;
    this.settler = settler;
    this.#buffer = buffer;
    this.#batch = batchOf(parts.device.tunables.checkpointBatch, parts.device.layout.tableBytes);
  }

  /** Bytes of the buffer for this many tables a round. */
  static bufferBytes(checkpointBatch: number, tableBytes: number): number {
    return batchOf(checkpointBatch, tableBytes) * tableBytes;
  }

  get running(): boolean {
    return this.#running;
  }

  settleNow(slot: number): void {
    this.#settleWanted.add(slot);
    this.kick();
  }

  wantFrames(): void {
    this.#framesWanted = true;
    this.kick();
  }

  cool(): void {
    this.#coolDue = true;
    this.kick();
  }

  /** A write has landed: what it held of the log may be freed now. */
  writeLanded(): void {
    if (!this.#stuck) return;
    this.#stuck = false;
    this.kick();
  }

  /** Runs `task` between two rounds, when no table or page is being written. */
  runTask(task: () => Routine<void>): void {
    this.#tasks.push(task);
    this.kick();
  }

  /** No further rounds; `close` does what is left. */
  stop(): void {
    this.#stopped = true;
  }

  kick(): void {
    if (this.#running || this.#stopped || this.#parts.device.failed !== null || !this.#hasWork()) return;
    this.#running = true;
    startRoutine(this.#run(), (error) => {
      this.#running = false;
      if (error !== null) this.#parts.device.failWith(error);
      this.#parts.device.onIdle();
    });
  }

  #hasWork(): boolean {
    const { unsettled } = this.#parts;
    return (
      this.#tasks.length > 0 ||
      this.#settleWanted.size > 0 ||
      this.#framesWanted ||
      this.#coolDue ||
      this.#pressure() ||
      unsettled.count > 0 ||
      this.#owner.lossyDue
    );
  }

  *#run(): Routine<void> {
    while (!this.#stopped && this.#hasWork()) {
      this.#parts.device.check();
      const task = this.#tasks.shift();
      if (task !== undefined) yield* task();
      else if (this.#settleWanted.size > 0) yield* this.#settleSome(this.#settleWanted);
      else if (this.#framesWanted) yield* this.#evictRound();
      else if (this.#pressure()) yield* this.#logRound();
      else if (this.#coolDue) yield* this.#coolRound();
      else if (this.#parts.unsettled.count > 0) yield* this.#settleSome(this.#parts.unsettled.slots());
      else yield* this.#owner.clearLossy();
    }
  }

  /** Log pressure with hysteresis; a waiting operation is pressure by itself. */
  #pressure(): boolean {
    const { log, device } = this.#parts;
    const { checkpointAbove, checkpointBelow } = device.tunables;
    const used = log.usedBytes / log.ringBytes;
    if (used > checkpointAbove) this.#underPressure = true;
    else if (used <= checkpointBelow) this.#underPressure = false;
    return (this.#underPressure || this.#owner.logWanted) && log.usedBytes > 0 && !this.#stuck;
  }

  *#settleSome(from: Iterable<number>): Routine<void> {
    const slots: number[] = [];
    for (const slot of from) {
      slots.push(slot);
      if (slots.length === this.#batch) break;
    }
    for (const slot of slots) this.#settleWanted.delete(slot);
    yield* this.#settleRound(slots.filter((slot) => this.#parts.unsettled.has(slot)));
  }

  /** Settles the slots and makes the outcome durable, then lets those who wait go on. */
  *#settleRound(slots: readonly number[]): Routine<void> {
    const { directory, tables, log, sync, device } = this.#parts;
    const outcomes: Settled[] = [];
    const changed: number[] = [];
    const lossy = this.#owner.lossy;
    for (const slot of slots) {
      if (directory.state[slot] !== SlotState.Live) continue;
      const outcome = yield* this.settler.settle(slot, lossy);
      if (directory.state[slot] !== SlotState.Live || directory.alloc[slot] !== outcome.alloc) continue;
      outcomes.push(outcome);
      if (!outcome.changed) continue;
      const memory = this.#buffer + changed.length * device.layout.tableBytes;
      tables.encode(memory, slot, outcome.alloc, this.settler.entries, log.nextSequence);
      changed.push(slot);
    }
    if (changed.length > 0) yield* tables.writeBoth(changed, this.#buffer, log.nextSequence - 1, log, sync);
    for (const outcome of outcomes) this.#settled(outcome);
  }

  #settled(outcome: Settled): void {
    const { directory, pending, unsettled, bad, device } = this.#parts;
    const { slot } = outcome;
    if (directory.alloc[slot] !== outcome.alloc || !unsettled.has(slot)) return;
    const volume = directory.volume[slot]!;
    const layer = directory.layer[slot]!;
    const extent = directory.extent[slot]!;
    pending.forget(slot);
    unsettled.remove(slot);
    if (outcome.lost) bad.add(volume, layer, extent, WHOLE_EXTENT);
    for (const block of outcome.rotten) bad.add(volume, layer, extent, block);
    if (outcome.adopted.length > 0) {
      this.adopted += outcome.adopted.length;
      device.env.events.adopted(volume, extent, outcome.adopted.length);
    }
    this.#owner.slotSettled(slot);
  }

  /** Makes room in the table cache, by writing dirty tables where there are no clean ones. */
  *#evictRound(): Routine<void> {
    this.#framesWanted = false;
    const { cache } = this.#parts;
    const dirty = cache.reclaim(this.#batch);
    yield* this.#writeTables(dirty);
    for (const table of dirty) {
      if (table.state === TableState.Ready && table.pins === 0 && !table.dirty) cache.drop(table);
    }
    // Without a frame there is nothing to be done until somebody is through with a table.
    if (cache.unusedFrames > 0) this.#owner.framesFreed();
  }

  /** Writes what holds the oldest part of the log, and moves its tail. */
  *#logRound(): Routine<void> {
    const holders = this.#logHolders();
    const oldest = holders.sort((x, y) => x.since - y.since).slice(0, this.#batch);
    const slots = oldest.filter(({ slot }) => slot >= 0).map(({ slot }) => slot);
    if (slots.length > 0) yield* this.#settleRound(slots);
    yield* this.#writeTables(oldest.flatMap(({ table }) => (table === null ? [] : [table])));
    yield* this.#writePages(oldest.filter(({ page }) => page >= 0).map(({ page }) => page));
    const used = this.#parts.log.usedBytes;
    yield* this.#moveTail();
    this.#stuck = oldest.length === 0 && this.#parts.log.usedBytes >= used;
  }

  /** What would hold less of the log if it were written now. */
  #logHolders(): LogHolder[] {
    const { cache, directory, unsettled, pending, log } = this.#parts;
    const holders: LogHolder[] = [];
    cache.forEachResident((table) => {
      const { dirtySince: since } = table;
      if (table.state !== TableState.Ready || table.oldestInFlight(log.nextSequence) <= since) return;
      holders.push({ since, table, page: -1, slot: -1 });
    });
    directory.dirtySince.forEach((since, page) => {
      if (since !== CLEAN) holders.push({ since, table: null, page, slot: -1 });
    });
    for (const slot of unsettled.slots()) {
      const since = pending.oldest(slot, CLEAN);
      if (since !== CLEAN) holders.push({ since, table: null, page: -1, slot });
    }
    return holders;
  }

  /** Writes both copies of the tables. What is in flight stays dirty from its own record on. */
  *#writeTables(all: readonly Table[]): Routine<void> {
    const { log, tables, sync, device, cache } = this.#parts;
    const batch = all.filter((table) => table.slot >= 0 && !table.doomed && table.dirty);
    if (batch.length === 0) return;
    const slots: number[] = [];
    for (const table of batch) {
      const position = table.oldestInFlight(log.nextSequence);
      const memory = this.#buffer + slots.length * device.layout.tableBytes;
      tables.encode(memory, table.slot, table.alloc, table.entries, position);
      table.dirtySince = position < log.nextSequence ? position : CLEAN;
      table.pins++;
      slots.push(table.slot);
    }
    yield* tables.writeBoth(slots, this.#buffer, log.nextSequence - 1, log, sync);
    for (const table of batch) cache.unpin(table);
    this.checkpoints += batch.length;
  }

  /** Writes one table as if `job` had landed; only from a task. */
  *writeNow(table: Table, job: Job): Routine<void> {
    const { sequence } = job;
    job.sequence = CLEAN;
    if (!table.dirty) table.dirtySince = sequence;
    yield* this.#writeTables([table]);
    job.sequence = sequence;
  }

  *#writePages(pages: readonly number[]): Routine<void> {
    const { directory, device, log, sync } = this.#parts;
    const { layout, words, io, incarnation } = device;
    if (pages.length === 0) return;
    const reflects = log.nextSequence - 1;
    pages.forEach((page, i) => {
      const memory = this.#buffer + i * PAGE_BYTES;
      directory.encodePage(page, words, memory >>> 2);
      directory.dirtySince[page] = CLEAN;
      const version = ++directory.pageVersion[page]!;
      io.seal(memory, PAGE_BYTES, {
        kind: PageKind.Directory,
        index: page,
        incarnation,
        version,
        position: reflects + 1,
      });
    });
    log.append();
    yield* sync.syncThrough(reflects);
    for (const area of [layout.directoryA, layout.directoryB]) {
      const writes: PageWrite[] = pages.map((page, i) => ({
        offset: area + page * PAGE_BYTES,
        memory: this.#buffer + i * PAGE_BYTES,
        length: PAGE_BYTES,
      }));
      yield* io.writeAll(writes);
      yield* sync.sync();
    }
  }

  *#moveTail(): Routine<void> {
    const { cache, directory, unsettled, pending, log, sync } = this.#parts;
    let oldest = log.nextSequence;
    const hold = (since: number): void => {
      if (since < oldest) oldest = since;
    };
    cache.forEachResident((table) => hold(table.dirtySince));
    directory.dirtySince.forEach(hold);
    for (const slot of unsettled.slots()) hold(pending.oldest(slot, CLEAN));
    yield* log.freeBelow(oldest, this.#buffer, () => sync.sync());
    this.#owner.logFreed();
  }

  /** Clears the hot bits of slots that have been idle for long enough; of more when too many are hot. */
  *#coolRound(): Routine<void> {
    this.#coolDue = false;
    const { hot, device, sync } = this.#parts;
    const now = device.env.clock.now();
    const live: number[] = [];
    hot.forEachHot((slot) => {
      if (this.#mayCool(slot)) live.push(slot);
    });
    const idle = this.#idleEnough(live, now);
    for (let i = 0; i < idle.length; i += this.#batch) {
      const slots = idle.slice(i, i + this.#batch);
      yield* this.#writeTables(this.#dirtyTablesOf(slots));
      if (slots.some((slot) => !this.#parts.times.isSynced(slot, sync))) yield* sync.sync();
      for (const slot of slots) if (this.#isCoolable(slot)) hot.clear(slot);
    }
    hot.flushClears();
  }

  #idleEnough(slots: number[], now: number): number[] {
    const { times, device } = this.#parts;
    const { coolAfterMs, hotSlotsMax } = device.tunables;
    const surplus = slots.length - hotSlotsMax;
    const byAge = slots.sort((a, b) => times.lastUse(a) - times.lastUse(b));
    return byAge.filter((slot, i) => i < surplus || now - times.lastUse(slot) >= coolAfterMs);
  }

  #dirtyTablesOf(slots: readonly number[]): Table[] {
    return slots.flatMap((slot) => {
      const table = this.#parts.cache.get(slot);
      return table?.dirty && table.state === TableState.Ready ? [table] : [];
    });
  }

  /** Live, settled, stable, nothing in flight. */
  #mayCool(slot: number): boolean {
    const { directory, unsettled, cache } = this.#parts;
    if (directory.state[slot] !== SlotState.Live || unsettled.has(slot)) return false;
    return (cache.get(slot)?.inFlight ?? null) === null && this.#owner.isStable(slot);
  }

  #isCoolable(slot: number): boolean {
    const { cache, times, sync } = this.#parts;
    const table = cache.get(slot);
    return this.#mayCool(slot) && !(table?.dirty ?? false) && times.isSynced(slot, sync);
  }

  /** At close: everything that is settled becomes durable and cool, and the log as short as it can be. */
  *close(): Routine<void> {
    this.#stopped = true;
    const { cache, directory, hot, sync } = this.#parts;
    const dirty: Table[] = [];
    cache.forEachResident((table) => {
      if (table.dirty && table.state === TableState.Ready) dirty.push(table);
    });
    for (let i = 0; i < dirty.length; i += this.#batch)
      yield* this.#writeTables(dirty.slice(i, i + this.#batch));
    const pages = dirtyPagesOf(directory);
    for (let i = 0; i < pages.length; i += this.#batch)
      yield* this.#writePages(pages.slice(i, i + this.#batch));
    yield* sync.sync();
    const slots: number[] = [];
    hot.forEachHot((slot) => {
      if (this.#owner.isZeroed(slot) || this.#isCoolable(slot)) slots.push(slot);
    });
    for (const slot of slots) hot.clear(slot);
    yield* hot.drain();
    yield* this.#moveTail();
  }
}

function dirtyPagesOf(directory: Directory): number[] {
  return [...directory.dirtySince.keys()].filter((page) => directory.dirtySince[page] !== CLEAN);
}

/** A round fits the buffer, and the buffer one pool piece. */
function batchOf(checkpointBatch: number, tableBytes: number): number {
  return Math.max(1, Math.min(checkpointBatch, Math.floor(PIECE_BYTES / tableBytes)));
}
