/**
 * An open store: the parts put together, and the face that the rest of the program sees (api.ts).
 */

import type { Timer } from "../core/clock.js";
import { LaminaError } from "../core/errors.js";
import type { ExtentOp } from "../core/extent-io.js";
import { KIB } from "../core/limits.js";
import { type Routine, startRoutine } from "../core/routine.js";
import type {
  BadBlock,
  DeviceIdentity,
  InventoryVisitor,
  MemberStore,
  Stability,
  StoreStats,
} from "./api.js";
import { BadBlocks } from "./bad-blocks.js";
import { DataPath } from "./data-path.js";
import { type Device, DeviceFailure } from "./device.js";
import { SlotState } from "./directory.js";
import { frameBytesMax, PAGE_BYTES } from "./format.js";
import { Freeing } from "./freeing.js";
import { HOT_ROUND_PAGES, HotBits } from "./hot.js";
import { LOADS_MAX, Loader } from "./loader.js";
import { Log } from "./log.js";
import { FREE_WORDS } from "./log-records.js";
import { Maintenance } from "./maintenance.js";
import type { OpenStoreOptions } from "./options.js";
import type { Parts } from "./parts.js";
import { Records } from "./records.js";
import { isHotIn, type RecoveredState } from "./recovery.js";
import { Scrub } from "./scrub.js";
import { SETTLE_BYTES, Settler } from "./settle.js";
import { SlotPool } from "./slot-pool.js";
import { SlotTimes } from "./slot-times.js";
import { type Superblock, writeSuperblocks } from "./superblock.js";
import { SyncService } from "./sync.js";
import { TableCache } from "./table.js";
import { TableIo } from "./table-io.js";
import { Unsettled } from "./unsettled.js";

/** Zeros that are written where nothing can be given back; one write. */
const ZEROS_BYTES = 64 * KIB;

type Done = (error: LaminaError | null) => void;

export class ExtentStore implements MemberStore {
  readonly extentBlocks: number;
  readonly #device: Device;
  readonly #path: string;
  readonly #parts: Parts;
  readonly #data: DataPath;
  readonly #slots: SlotPool;
  readonly #freeing: Freeing;
  readonly #maintenance: Maintenance;
  readonly #loader: Loader;
  readonly #records: Records;
  readonly #scrub: Scrub;
  /** Pool buffers that are held from opening to close. */
  readonly #buffers: number[] = [];
  readonly #page: number;
  #superblock: Superblock;
  /** Free slots of a device with a corrupt log: neither zeroed nor used. */
  readonly #quarantined: boolean;
  readonly #stability: Stability | null;
  /** LOSSY ends only after other members have put right what may be missing. */
  #lossOpen: boolean;
  #timer: Timer | null = null;
  #spaceTimer: Timer | null = null;
  #isFull = false;
  /**
   * Opening is over. Until then maintenance must not run: no slot counts as unsettled yet, so it would take the
   * device for one that need not be LOSSY any more.
   */
  #serving = false;
  #closing: Done | null = null;
  #closed = false;

  constructor(device: Device, options: OpenStoreOptions, superblock: Superblock, state: RecoveredState) {
    const { layout, tunables, env } = device;
    this.extentBlocks = layout.extentBlocks;
    this.#device = device;
    this.#path = options.path;
    this.#superblock = superblock;
    this.#quarantined = state.log.corruptAt !== null;
    this.#stability = options.stability ?? null;
    this.#lossOpen = this.#stability !== null;
    this.#page = this.#take(PAGE_BYTES);
    const zeros = this.#take(ZEROS_BYTES);
    env.pool.bytes.fill(0, zeros, zeros + ZEROS_BYTES);

    const data = new DataPath({
      batchEnded: () => this.#batchEnded(),
      fullChanged: () => this.#watchSpace(),
      retrySpaceLater: () => this.#retrySpaceLater(),
    });
    const log = new Log(device, this.#take(frameBytesMax(layout.logBytes)), state.log.start);
    const sync = new SyncService(device, log, data);
    const hotListener = { slotIsHot: (slot: number) => this.#slotIsHot(slot) };
    const hot = new HotBits(device, sync, hotListener, this.#take(HOT_ROUND_PAGES * PAGE_BYTES));
    const parts: Parts = {
      device,
      log,
      sync,
      hot,
      directory: state.directory,
      cache: new TableCache(layout.slots, layout.extentBlocks, tunables.cacheBytes),
      tables: new TableIo(device),
      pending: state.pending,
      unsettled: new Unsettled(layout.slots),
      times: new SlotTimes(layout.slots),
      bad: new BadBlocks(env),
    };
    this.#parts = parts;
    this.#data = data;
    this.#slots = new SlotPool(layout.slots, hot, tunables.preHotSlots);
    const settler = new Settler(
      device,
      state.directory,
      parts.tables,
      state.pending,
      this.#take(SETTLE_BYTES),
      this.#take(2 * layout.tableBytes),
    );
    const batch = this.#take(Maintenance.bufferBytes(tunables.checkpointBatch, layout.tableBytes));
    this.#maintenance = new Maintenance(parts, this.#maintenanceOwner(), settler, batch);
    const freeingOwner = {
      slotFreed: (slot: number) => this.#slotFreed(slot),
      wantLog: () => this.#maintenance.kick(),
    };
    this.#freeing = new Freeing(parts, freeingOwner, zeros, ZEROS_BYTES);
    const loads = Array.from({ length: LOADS_MAX }, () => this.#take(layout.tableBytes));
    this.#loader = new Loader(parts, loads, (table) => data.tableLoaded(table));
    device.onIdle = () => {
      if (this.#closing !== null) data.wantTick();
    };
    parts.cache.onDiscarded = () => this.#freeing.start();
    parts.cache.onUnpinned = () => data.framesFreed();
    this.#records = new Records(device, sync, this.#take(PAGE_BYTES));
    this.#scrub = new Scrub(parts, this.#loader);
    data.wire(
      {
        parts,
        slots: this.#slots,
        freeing: this.#freeing,
        maintenance: this.#maintenance,
        loader: this.#loader,
      },
      zeros,
      ZEROS_BYTES,
    );
  }

  /**
   * Last part of opening: makes records equal, sorts the slots, starts what goes on in the background.
   * `logIsWhole`: no power was lost since the last opening, so the log names every write.
   */
  *begin(state: RecoveredState, logIsWhole: boolean): Routine<void> {
    const { hot, directory, unsettled } = this.#parts;
    state.hot.pages.forEach(({ version }, page) => {
      hot.loadedPage(page, version);
    });
    for (let slot = 0; slot < directory.slots; slot++) {
      if (isHotIn(state.hot, slot)) hot.loaded(slot);
    }
    if (logIsWhole) this.#heatNamedSlots(state);
    yield* this.#mendCopies(state);
    for (let slot = directory.slots - 1; slot >= 0; slot--) this.#sort(slot);
    for (let slot = 0; slot < directory.slots; slot++) {
      if (directory.state[slot] === SlotState.Live && hot.isHot(slot)) unsettled.add(slot);
    }
    // The tables of a cool slot say everything already, and those of a dead one nothing.
    for (const slot of [...state.pending.slots()]) if (!unsettled.has(slot)) state.pending.forget(slot);
    this.#slots.refill();
    if (this.lossy) this.#device.env.events.lossy(true);
    this.#serving = true;
    this.#maintenance.kick();
    this.#arm();
  }

  /**
   * A bit counts once copy A is durable. If the process then dies before copy B is written, and A rots, the bit is
   * gone; but the log speaks of every slot that was written to since. After a power loss it need not, and a page
   * that cannot be read is most likely one that was torn, whose bits nobody had relied on yet.
   */
  #heatNamedSlots({ hot: { pages }, pending }: RecoveredState): void {
    const { hot } = this.#parts;
    for (const slot of pending.slots()) if (pages[HotBits.pageOf(slot)]!.halved) hot.loaded(slot);
  }

  /** Makes equal what a crash between two writes, or rot, has left different; before anything else is changed. */
  *#mendCopies(state: RecoveredState): Routine<void> {
    const { hot, log, sync } = this.#parts;
    if (state.staleAnchor !== null) {
      yield* log.repairAnchor(state.staleAnchor, state.log.start, this.#page, () => sync.sync());
    }
    for (const [page, { state: copies, staleB }] of state.hot.pages.entries()) {
      if (copies !== "agree") yield* hot.mendPage(page, staleB);
    }
    yield* this.#records.load(state.records);
  }

  /** Gives a slot that holds nothing to who is in charge of it. */
  #sort(slot: number): void {
    const { hot, directory } = this.#parts;
    if (directory.state[slot] === SlotState.Live || this.#quarantined) return;
    if (directory.state[slot] === SlotState.Free && !hot.isHot(slot)) this.#slots.put(slot);
    else this.#freeing.add(slot, 0);
  }

  #take(bytes: number): number {
    const memory = this.#device.env.pool.allocate(bytes);
    if (memory < 0) {
      this.#giveBuffers();
      throw new LaminaError("DEVICE_FAILED", { path: this.#path, what: "no memory to open it" });
    }
    this.#buffers.push(memory);
    return memory;
  }

  #giveBuffers(): void {
    for (const memory of this.#buffers.splice(0)) this.#device.env.pool.free(memory);
  }

  get lossy(): boolean {
    return this.#superblock.lossy;
  }

  get identity(): DeviceIdentity {
    const { deviceId, clusterId, incarnation, bootId, lossy } = this.#superblock;
    return { deviceId, clusterId, incarnation, bootId, lossy };
  }

  reconciled(): void {
    this.#lossOpen = false;
    this.#maintenance.kick();
  }

  submit(op: ExtentOp): void {
    this.#data.submit(op);
  }

  // ---- What the store holds ----------------------------------------------------------------------------

  inventory(volume: number, visit: InventoryVisitor): void {
    const { directory, hot } = this.#parts;
    for (let slot = 0; slot < directory.slots; slot++) {
      if (directory.state[slot] !== SlotState.Live || directory.volume[slot] !== volume) continue;
      visit(
        directory.layer[slot]!,
        directory.extent[slot]!,
        directory.generation[slot]!,
        directory.created[slot]!,
        hot.isHot(slot),
      );
    }
  }

  slotsOf(volume: number): number {
    return this.#parts.directory.slotsOf(volume);
  }

  volumesWithSlots(): number[] {
    return this.#parts.directory.volumes();
  }

  dropVolume(volume: number, done: Done): void {
    startRoutine(this.#drop(volume), (error) => done(this.#errorOf(error)));
  }

  *#drop(volume: number): Routine<void> {
    const { directory, log, device, sync } = this.#parts;
    for (let slot = 0; slot < directory.slots; slot++) {
      if (directory.state[slot] !== SlotState.Live || directory.volume[slot] !== volume) continue;
      while (!log.makeRoom(FREE_WORDS)) yield* this.#waitForLog();
      device.check();
      if (directory.state[slot] === SlotState.Live && directory.volume[slot] === volume)
        this.#data.freeSlot(slot);
    }
    log.append();
    yield* sync.syncThrough(log.appendedSequence);
  }

  readonly #logRoutines: ((result: number) => void)[] = [];

  *#waitForLog(): Routine<void> {
    this.#device.check();
    yield (resume) => {
      this.#logRoutines.push(resume);
      this.#maintenance.kick();
    };
    this.#device.check();
  }

  records(): ReadonlyMap<number, Uint8Array> {
    return this.#records.all;
  }

  putRecord(volume: number, bytes: Uint8Array | null, done: Done): void {
    this.#records.put(volume, bytes, done);
  }

  badBlocks(volume: number): readonly BadBlock[] {
    return this.#parts.bad.of(volume);
  }

  startScrub(pace: number): void {
    this.#scrub.start(pace);
  }

  stats(): StoreStats {
    const { log, sync, directory, cache, bad, device } = this.#parts;
    const { layout } = device;
    const hotLive = this.#hotLiveSlots();
    return {
      slots: layout.slots,
      freeSlots: directory.freeSlots,
      liveSlots: directory.liveSlots,
      freeingSlots: layout.slots - directory.freeSlots - directory.liveSlots,
      hotSlots: hotLive,
      slotBytes: layout.slotBytes,
      logBytes: log.ringBytes,
      logUsedBytes: log.usedBytes,
      logAppends: log.appends,
      logAppendedBytes: log.appendedBytes,
      syncs: sync.completed,
      checkpoints: this.#maintenance.checkpoints,
      cacheBytes: cache.bytes,
      cacheLimitBytes: cache.limitBytes,
      cacheMisses: this.#loader.misses,
      blocksRead: this.#data.blocksRead,
      blocksWritten: this.#data.blocksWritten,
      bytesZeroed: this.#data.bytesZeroed + this.#freeing.bytesZeroed,
      zeroCalls: this.#data.zeroCalls + this.#freeing.zeroCalls,
      bitRotBlocks: bad.found,
      adoptedBlocks: this.#maintenance.adopted,
      waitingForSpace: this.#data.waitingForSpace,
      lossy: this.lossy,
      failed: device.failed,
      scrub: this.#scrub.stats(),
    };
  }

  #hotLiveSlots(): number {
    const { hot, directory } = this.#parts;
    let count = 0;
    hot.forEachHot((slot) => {
      if (directory.state[slot] === SlotState.Live) count++;
    });
    return count;
  }

  // ---- What the parts tell -----------------------------------------------------------------------------

  #maintenanceOwner(): ConstructorParameters<typeof Maintenance>[1] {
    const store = this;
    return {
      slotSettled: (slot) => store.#data.slotSettled(slot),
      framesFreed: () => store.#data.framesFreed(),
      logFreed: () => store.#logFreed(),
      clearLossy: () => store.#clearLossy(),
      isZeroed: (slot) =>
        !store.#quarantined &&
        store.#parts.directory.state[slot] === SlotState.Free &&
        !store.#freeing.has(slot),
      isStable: (slot) => store.#isStable(slot),
      get lossy() {
        return store.lossy;
      },
      get lossyDue() {
        return store.lossy && !store.#lossOpen;
      },
      get logWanted() {
        return store.#data.waitsForLog || store.#logRoutines.length > 0 || store.#freeing.waitsForLog;
      },
    };
  }

  #isStable(slot: number): boolean {
    // Alone, what is synced here is stable everywhere.
    if (this.#stability === null) return true;
    const { directory } = this.#parts;
    return this.#stability.isStable(directory.volume[slot]!, directory.layer[slot]!, directory.extent[slot]!);
  }

  /** Of a free slot that is not on its way the pool has asked; of any other who writes to it, or frees it. */
  #slotIsHot(slot: number): void {
    if (this.#parts.directory.state[slot] === SlotState.Free && !this.#freeing.has(slot)) {
      this.#slots.heated(slot);
      this.#data.slotsReady();
    } else {
      this.#data.slotIsHot(slot);
    }
  }

  #slotFreed(slot: number): void {
    this.#slots.put(slot);
    this.#slots.refill();
    this.#data.slotsReady();
    this.#data.retrySpace();
  }

  #logFreed(): void {
    this.#data.logFreed();
    for (const resume of this.#logRoutines.splice(0)) resume(0);
    this.#freeing.start();
  }

  /** Every slot that was hot at the opening is settled and durable: an ordinary device again. */
  *#clearLossy(): Routine<void> {
    yield* this.#parts.sync.sync();
    this.#superblock = { ...this.#superblock, sequence: this.#superblock.sequence + 1, lossy: false };
    yield* writeSuperblocks(this.#device.env, this.#superblock, this.#page);
    this.#device.env.events.lossy(false);
  }

  #batchEnded(): void {
    if (this.#device.failed === null && this.#serving) {
      this.#watchSpace();
      this.#maintenance.kick();
      if (this.#timer === null) this.#arm();
    }
    if (this.#closing !== null) this.#closeWhenQuiet();
  }

  #watchSpace(): void {
    const full = this.#data.full;
    if (full === this.#isFull) return;
    this.#isFull = full;
    this.#device.env.events.full(full);
  }

  #retrySpaceLater(): void {
    if (this.#spaceTimer !== null) return;
    const { clock } = this.#device.env;
    this.#spaceTimer = clock.setTimer(this.#device.tunables.spaceRetryMs, () => {
      this.#spaceTimer = null;
      this.#data.retrySpace();
    });
  }

  // ---- The background tick: sync, cooling --------------------------------------------------------------

  /** Ticks while there is something to sync or to cool; an idle store wakes nobody. */
  #arm(): void {
    const { sync, hot } = this.#parts;
    if (this.#timer !== null || this.#closed || this.#device.failed !== null) return;
    if (!sync.dirty && hot.count <= this.#slots.ready) return;
    this.#timer = this.#device.env.clock.setTimer(this.#device.tunables.syncIntervalMs, () => {
      this.#timer = null;
      this.#backgroundTick();
    });
  }

  #backgroundTick(): void {
    if (this.#device.failed !== null || this.#closing !== null) return;
    const { sync, log } = this.#parts;
    if (sync.dirty) {
      startRoutine(sync.sync(), (error) => {
        if (error !== null) this.#device.failWith(error);
        else if (this.#device.failed === null) log.sayWhatIsSynced();
      });
    }
    this.#maintenance.cool();
    this.#arm();
  }

  // ---- End ---------------------------------------------------------------------------------------------

  /** The device has failed: everything that waits is answered, what is in flight when it comes back. */
  deviceFailed(reason: string): void {
    this.#maintenance.stop();
    this.#freeing.stop();
    this.#scrub.stop();
    this.#cancelTimers();
    this.#parts.sync.abandon();
    this.#data.failed();
    for (const resume of this.#logRoutines.splice(0)) resume(-1);
    this.#device.env.events.failed(reason);
  }

  close(done: Done): void {
    this.#closing = done;
    this.#data.stop();
    this.#scrub.stop();
    this.#freeing.stop();
    this.#cancelTimers();
    this.#data.wantTick();
  }

  #cancelTimers(): void {
    this.#timer?.cancel();
    this.#timer = null;
    this.#spaceTimer?.cancel();
    this.#spaceTimer = null;
  }

  /** Requests, frees and rounds end first; then one routine writes what is left. */
  #closeWhenQuiet(): void {
    if (this.#closed || this.#data.busy) return;
    this.#maintenance.stop();
    if (this.#maintenance.running || this.#freeing.running || this.#parts.hot.running) return;
    if (this.#scrub.running || !this.#records.idle || this.#loader.busy || !this.#parts.sync.idle) return;
    this.#closed = true;
    if (this.#device.failed !== null) {
      this.#end();
      return;
    }
    startRoutine(this.#finish(), (error) => {
      if (error !== null && this.#device.failed === null) this.#device.failWith(error);
      this.#end();
    });
  }

  *#finish(): Routine<void> {
    yield* this.#maintenance.close();
    this.#superblock = { ...this.#superblock, sequence: this.#superblock.sequence + 1, clean: true };
    yield* writeSuperblocks(this.#device.env, this.#superblock, this.#page);
  }

  #end(): void {
    const done = this.#closing;
    this.#closing = null;
    this.#giveBuffers();
    const { failed } = this.#device;
    done?.(failed === null ? null : new LaminaError("DEVICE_FAILED", { path: this.#path, what: failed }));
  }

  #errorOf(error: unknown): LaminaError | null {
    if (error === null) return null;
    if (!(error instanceof DeviceFailure)) throw error;
    return new LaminaError("DEVICE_FAILED", { path: this.#path, what: error.message }, error);
  }
}
