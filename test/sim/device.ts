/**
 * A simulated device and the disk handle that a process has on it.
 *
 * Fault models
 *  - Volatile until sync. `write`, `zero` and `appendNow` change what reads see; what a power loss leaves of
 *    a 512-byte sector is its durable content or any version of it since, each sector by itself: lost, torn,
 *    reordered. Only a `sync` asked for after a completion makes it certain.
 *  - The log goes through the page cache: an append is seen by reads at once and kept by a kill; a power loss
 *    keeps any sectors of any of its pages.
 *  - Kill: requests in flight may have landed, each of their blocks wholly or not at all (the kernel finishes
 *    what it has begun); all of them have before the device can be opened again (the lock on the data
 *    descriptor sees to that; it is tested with real processes, not here).
 *  - No order: requests in flight complete in any order; a read that races with a write sees any mix of
 *    sectors. Payloads are fetched from memory when they land, as by a DMA engine, so memory that is reused too
 *    early shows.
 *  - EIO: of a read nothing is delivered; of a write any sectors may have landed; of a sync any of the
 *    covered versions are marked clean without ever becoming durable, and the next sync does not try them
 *    again (ATC'20 "Can applications recover from fsync failures?").
 *  - Misdirected writes land on another data block; misdirected reads bring another data block's bytes, or, of a
 *    read of any length, the bytes of any block (of zeros too) in the place of one. Never the same wrong bytes for
 *    one block twice running: what repeats itself cannot be told from what is there.
 *  - Rot: one bit at rest changes: of a data block, of a block that nobody uses, of one copy of metadata that has
 *    two, or of the log.
 *  - Full: a write into a hole fails with ENOSPC while the device has no page left.
 *  - Slow: for a while every request takes 1000 times as long.
 *
 * The device itself checks its callers: alignment and bounds, no two changes in flight to one page, no use after
 * close.
 */
import type { DiskListener } from "../../lib/core/disk.js";
import { DiskErrno } from "../../lib/core/disk.js";
import { BLOCK_BYTES, BLOCK_SHIFT } from "../../lib/core/limits.js";
import type { Arena } from "./arena.js";
import { registerAt } from "./content.js";
import { ALL_SECTORS, keepRule } from "./device-losses.js";
import { type DeviceImage, DevicePages, SECTOR_BYTES } from "./device-pages.js";
import { Kind, SimDiskHandle } from "./disk-handle.js";
import { type SimPool, simMemory } from "./memory.js";
import { Prng } from "./prng.js";
import { Violation } from "./violation.js";
import type { SimProcess, SimWorld } from "./world.js";

const SLOW_FACTOR = 1000;
/** No request takes longer: a kernel gives up on a device that does not answer. */
const LATENCY_US_MAX = 50e6;
/** Pages that a fault looks at to find one that holds data. */
const VICTIM_TRIES = 24;

const KIND_NAMES = ["read", "write", "zero", "sync"] as const;

/** Probabilities per request. */
export interface DeviceFaults {
  readEio: number;
  writeEio: number;
  syncEio: number;
  misdirectedRead: number;
  misdirectedWrite: number;
  /** One block of a read of data brings what lies in another. */
  misdirectedPart: number;
}

export interface DeviceOptions {
  readonly sizeBytes: number;
  readonly alignBytes: number;
  readonly zeroGrainBytes: number;
  /** Usual latency of a request; the real one is spread around it. */
  readonly latencyUs: number;
  /** Bytes of a register of the checker (content.ts). */
  readonly granuleBytes: number;
}

/** Told about blocks whose bytes a fault has changed or hidden, by any register in them (content.ts). */
export interface DeviceWitness {
  /** `lost`: older bytes that were once right may be there now; else only bytes that were never right. */
  tainted(register: number, lost: boolean): void;
  /** A read failed or brought other bytes: what is in flight may fail, or a moment later. */
  readFault(): void;
}

class Request {
  kind: Kind = Kind.Read;
  offset = 0;
  memory = 0;
  length = 0;
  listener: DiskListener | null = null;
  tag = 0;
  /** Sync: volatile versions below this are covered. */
  bound = 0;
  active = false;
}

export class SimDevice {
  readonly world: SimWorld;
  readonly options: DeviceOptions;
  readonly faults: DeviceFaults = {
    readEio: 0,
    writeEio: 0,
    syncEio: 0,
    misdirectedRead: 0,
    misdirectedWrite: 0,
    misdirectedPart: 0,
  };
  witness: DeviceWitness | null = null;
  /** Virtual time until which the device is slow. */
  slowUntilUs = 0;
  /** Virtual time before which no sync is done. */
  syncsHeldUntilUs = 0;
  /** Pages beyond the provisioned ones that the device can hold. */
  spacePages = Number.POSITIVE_INFINITY;
  /** Since the last sync that failed: nothing may be acknowledged. Cleared by power loss or reopening. */
  syncFailed = false;
  /** Counts every injected failure of a read, so that an operation can tell whether one met it. */
  readFaults = 0;
  /** The same since the device was opened. */
  readFaultsOfLife = 0;
  /** Writes and zeroings that were failed since the device was opened. */
  writeFaults = 0;
  /** When `syncFailed` was set. */
  syncFailedAtUs = 0;

  readonly #random: Prng;
  /** Decides what crashes leave; apart, so that a crash can be repeated with other losses. */
  #losses: Prng;
  readonly #pages: DevicePages;
  /** Per block that was read astray: the bytes that came. */
  readonly #strays = new Map<number, Buffer>();
  readonly #changing: Uint8Array;

  readonly #requests: Request[] = [];
  readonly #idle: number[] = [];
  #inFlight = 0;
  #handle: SimDiskHandle | null = null;

  constructor(world: SimWorld, arena: Arena, options: DeviceOptions) {
    this.world = world;
    this.options = options;
    this.#random = world.random.fork("device");
    this.#losses = world.random.fork("losses");
    this.#pages = new DevicePages(arena, options.sizeBytes);
    this.#changing = new Uint8Array(this.#pages.count);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Opens the device for a process. What the one before had in flight has landed by now. */
  open(process: SimProcess, pool: SimPool): SimDiskHandle {
    this.crashInFlight();
    this.#handle?.abandon();
    this.#handle = new SimDiskHandle(this, process, pool);
    this.syncFailed = false;
    this.writeFaults = 0;
    this.readFaultsOfLife = 0;
    return this.#handle;
  }

  /** Another one of the states that the crashes of this run can leave. */
  chooseLosses(variant: number): void {
    this.#losses = new Prng(variant, this.world.seed, 0x6c6f7373);
  }

  /** The process was killed: what was in flight has landed in part, now or later, but before `open`. */
  crashInFlight(torn = false): void {
    for (let index = 0; index < this.#requests.length; index++) {
      const request = this.#requests[index]!;
      if (!request.active) continue;
      if (request.kind === Kind.Write || request.kind === Kind.Zero) this.#landSome(request, torn);
      this.#release(index, request);
    }
  }

  /** The power fails: of every version that is not durable, any sectors are lost. */
  powerLoss(): void {
    this.crashInFlight(true);
    const count = this.#pages.losePower(keepRule(this.#losses));
    this.world.coverage.count("fault:versions-at-power-loss", count);
  }

  /** What is on the device now, to be put back later, or elsewhere. It holds the pages until the run is over. */
  image(): DeviceImage {
    return this.#pages.image();
  }

  /** Another content, all of it durable. The program that had the device open is dead. */
  restore(image: DeviceImage): void {
    this.crashInFlight();
    this.#pages.restore(image);
  }

  /** Flips one bit of a data block at rest; false when none was found. */
  rot(): boolean {
    const page = this.#findData();
    if (page < 0) return false;
    this.#taintPage(page, false);
    this.#flip(page);
    this.world.coverage.count("fault:rot");
    return true;
  }

  /** The same in one of the pages of the byte ranges; nobody is told. */
  rotIn(ranges: readonly (readonly [number, number])[]): boolean {
    for (let i = 0; i < VICTIM_TRIES; i++) {
      const [start, end] = this.#random.pick(ranges);
      const page = (start >>> BLOCK_SHIFT) + this.#random.below((end - start) >>> BLOCK_SHIFT);
      if (this.#pages.isZeros(page) || !this.#isAtRest(page)) continue;
      this.#flip(page);
      this.world.coverage.count("fault:rot-metadata");
      return true;
    }
    return false;
  }

  /** Flips one bit of a page of zeros in from … to − 1: of a slot, used or not. */
  rotZeros(from: number, to: number): boolean {
    for (let i = 0; i < VICTIM_TRIES; i++) {
      const page = (from >>> BLOCK_SHIFT) + this.#random.below((to - from) >>> BLOCK_SHIFT);
      if (!this.#pages.isZeros(page) || !this.#isAtRest(page)) continue;
      this.#flip(page);
      this.world.coverage.count("fault:rot-zeros");
      return true;
    }
    return false;
  }

  /**
   * Flips one bit of `length` bytes at `offset`, for a while: returns what takes it back, or null when the page is
   * not at rest.
   */
  rotAt(offset: number, length: number): (() => void) | null {
    const bit = offset * 8 + this.#random.below(length * 8);
    const page = Math.floor(bit / (BLOCK_BYTES * 8));
    if (!this.#isAtRest(page)) return null;
    const undo = this.#pages.keep(page);
    this.#flip(page, bit % (BLOCK_BYTES * 8));
    return undo;
  }

  #isAtRest(page: number): boolean {
    return this.#changing[page] === 0 && this.#pages.isDurable(page);
  }

  #flip(page: number, bit = this.#random.below(BLOCK_BYTES * 8)): void {
    this.#pages.flip(page, bit);
    if (this.world.trace !== null) this.world.say(`fault: bit ${bit} of page ${page} flips`);
  }

  // --- for SimDiskHandle -------------------------------------------------------------------------------

  submit(
    handle: SimDiskHandle,
    kind: Kind,
    offset: number,
    memory: number,
    length: number,
    listener: DiskListener,
    tag: number,
  ): void {
    this.#check(kind, offset, memory, length);
    const index = this.#idle.pop() ?? this.#requests.push(new Request()) - 1;
    const request = this.#requests[index]!;
    request.kind = kind;
    request.offset = offset;
    request.memory = memory;
    request.length = length;
    request.listener = listener;
    request.tag = tag;
    request.bound = this.#pages.nextVersion;
    request.active = true;
    this.#inFlight++;
    if (kind === Kind.Read || kind === Kind.Write) handle.pool.busy(memory, length, 1);
    if (kind === Kind.Write || kind === Kind.Zero) this.#markChanging(request, 1);
    this.world.at(this.#latency(kind, length), this, handle.process, kind, index);
    if (this.world.trace !== null) {
      this.world.say(`disk: ${KIND_NAMES[kind]} ${offset}+${length} asked`);
    }
  }

  append(offset: number, memory: number, length: number): number {
    if (offset < 0 || length < 0 || offset + length > this.options.sizeBytes)
      throw new Violation("CONTRACT", `append ${offset}+${length} outside the device`);
    if (this.world.trace !== null) this.world.say(`disk: append ${offset}+${length}`);
    let at = offset;
    const end = offset + length;
    while (at < end) {
      const page = at >>> BLOCK_SHIFT;
      if (this.#changing[page] !== 0)
        throw new Violation("CONTRACT", `append to page ${page} while a write to it is in flight`);
      const stop = Math.min(end, (page + 1) * BLOCK_BYTES);
      this.#pages.land(page, at, stop, memory + (at - offset), ALL_SECTORS);
      at = stop;
    }
    this.world.note(offset);
    return length;
  }

  simEvent(_code: number, tag: number): void {
    const request = this.#requests[tag]!;
    const { listener, tag: callerTag, kind } = request;
    let result: number;
    switch (kind) {
      case Kind.Read:
        result = this.#finishRead(request);
        break;
      case Kind.Write:
      case Kind.Zero:
        result = this.#finishChange(request);
        break;
      case Kind.Sync:
        result = this.#finishSync(request);
        break;
    }
    if (this.world.trace !== null) {
      this.world.say(`disk: ${KIND_NAMES[kind]} ${request.offset}+${request.length} done: ${result}`);
    }
    this.#release(tag, request);
    this.world.note(result);
    listener!.diskDone(callerTag, result);
  }

  // --- requests ----------------------------------------------------------------------------------------

  #check(kind: Kind, offset: number, memory: number, length: number): void {
    if (kind === Kind.Sync) return;
    const grain = kind === Kind.Zero ? this.options.zeroGrainBytes : this.options.alignBytes;
    const aligned = offset % grain === 0 && length % grain === 0 && memory % this.options.alignBytes === 0;
    if (!aligned || length <= 0 || offset < 0 || offset + length > this.options.sizeBytes)
      throw new Violation(
        "CONTRACT",
        `${KIND_NAMES[kind]} of ${length} bytes at ${offset}, memory ${memory}`,
      );
    if (kind === Kind.Read) return;
    const last = (offset + length - 1) >>> BLOCK_SHIFT;
    for (let page = offset >>> BLOCK_SHIFT; page <= last; page++) {
      if (this.#changing[page] !== 0)
        throw new Violation("I19", `a second change of page ${page} was asked for while one is in flight`);
    }
  }

  #markChanging(request: Request, change: 1 | -1): void {
    const last = (request.offset + request.length - 1) >>> BLOCK_SHIFT;
    for (let page = request.offset >>> BLOCK_SHIFT; page <= last; page++) {
      this.#changing[page] = this.#changing[page]! + change;
    }
  }

  #release(index: number, request: Request): void {
    if (request.kind === Kind.Write || request.kind === Kind.Zero) this.#markChanging(request, -1);
    if (request.kind === Kind.Read || request.kind === Kind.Write)
      this.#handle!.pool.busy(request.memory, request.length, -1);
    request.active = false;
    request.listener = null;
    this.#inFlight--;
    this.#idle.push(index);
  }

  #latency(kind: Kind, length: number): number {
    const base = this.options.latencyUs * (kind === Kind.Sync ? 4 : 1);
    const spread = 0.5 + this.#random.u32() / 2 ** 32;
    const tail = this.#random.chance(0.02) ? 20 : 1;
    const slow = this.world.nowUs < this.slowUntilUs ? SLOW_FACTOR : 1;
    const held = kind === Kind.Sync ? Math.max(0, this.syncsHeldUntilUs - this.world.nowUs) : 0;
    return held + Math.min(LATENCY_US_MAX, (base * spread + length / 2000) * tail * slow);
  }

  #finishRead(request: Request): number {
    if (this.#random.chance(this.faults.readEio)) {
      this.world.coverage.count("fault:read-eio");
      this.#readFaulted();
      return DiskErrno.EIO;
    }
    const { bytes } = simMemory();
    let from = request.offset;
    const misdirected =
      this.faults.misdirectedRead > 0 && this.#random.chance(this.faults.misdirectedRead)
        ? this.#misdirectedRead(request)
        : -1;
    if (misdirected >= 0) from = misdirected;
    const end = from + request.length;
    let to = request.memory;
    for (let at = from; at < end; ) {
      const page = at >>> BLOCK_SHIFT;
      const stop = Math.min(end, (page + 1) * BLOCK_BYTES);
      const source = this.#pages.offsetOf(page) + (at & (BLOCK_BYTES - 1));
      bytes.copyWithin(to, source, source + (stop - at));
      if (this.#changing[page] !== 0) this.#mixInFlight(page, at, stop, to);
      to += stop - at;
      at = stop;
    }
    if (this.faults.misdirectedPart > 0 && this.#random.chance(this.faults.misdirectedPart))
      this.#misdirectPart(request);
    return request.length;
  }

  /** A read that races with a write of `page` sees any of its sectors already changed. */
  #mixInFlight(page: number, from: number, to: number, memory: number): void {
    const { bytes } = simMemory();
    for (const other of this.#requests) {
      if (!other.active || (other.kind !== Kind.Write && other.kind !== Kind.Zero)) continue;
      if (other.offset > page * BLOCK_BYTES || other.offset + other.length <= page * BLOCK_BYTES) continue;
      const seen = this.#random.u32();
      for (let at = from; at < to; at += SECTOR_BYTES) {
        if ((seen & (1 << ((at >>> 9) & 31))) === 0) continue;
        if (at < other.offset || at >= other.offset + other.length) continue;
        const target = memory + (at - from);
        if (other.kind === Kind.Zero) bytes.fill(0, target, target + SECTOR_BYTES);
        else {
          const source = other.memory + (at - other.offset);
          bytes.copyWithin(target, source, source + SECTOR_BYTES);
        }
      }
    }
  }

  #finishChange(request: Request): number {
    if (request.kind === Kind.Write) {
      if (this.#outOfSpace(request)) {
        this.world.coverage.count("fault:enospc");
        return DiskErrno.ENOSPC;
      }
      if (this.faults.misdirectedWrite > 0 && this.#random.chance(this.faults.misdirectedWrite)) {
        if (this.#misdirectWrite(request)) return request.length;
      }
    }
    if (this.#random.chance(this.faults.writeEio)) {
      this.world.coverage.count(request.kind === Kind.Write ? "fault:write-eio" : "fault:zero-eio");
      this.writeFaults++;
      this.#landSome(request, true);
      this.#taintTorn(request);
      return DiskErrno.EIO;
    }
    const end = request.offset + request.length;
    for (let at = request.offset; at < end; ) {
      const page = at >>> BLOCK_SHIFT;
      const stop = Math.min(end, (page + 1) * BLOCK_BYTES);
      const source = request.kind === Kind.Zero ? -1 : request.memory + (at - request.offset);
      this.#pages.land(page, at, stop, source, ALL_SECTORS);
      at = stop;
    }
    return request.length;
  }

  #outOfSpace(request: Request): boolean {
    if (this.spacePages === Number.POSITIVE_INFINITY) return false;
    const last = (request.offset + request.length - 1) >>> BLOCK_SHIFT;
    let wanted = 0;
    for (let page = request.offset >>> BLOCK_SHIFT; page <= last; page++) {
      if (this.#pages.isZeros(page) && page * BLOCK_BYTES >= this.provisionedBelow) wanted++;
    }
    return wanted > 0 && this.usedPages + wanted > this.spacePages;
  }

  #finishSync(request: Request): number {
    const failing = this.#random.chance(this.faults.syncEio);
    this.#pages.sync(request.bound, () => !failing || this.#random.chance(0.5));
    if (!failing) return 0;
    this.syncFailed = true;
    this.syncFailedAtUs = this.world.nowUs;
    this.world.coverage.count("fault:sync-eio");
    return DiskErrno.EIO;
  }

  // --- faults of single requests -----------------------------------------------------------------------

  #readFaulted(): void {
    this.readFaults++;
    this.readFaultsOfLife++;
    this.witness?.readFault();
  }

  /** Offset of another data block to read instead, or −1. Only reads of data are led astray. */
  #misdirectedRead(request: Request): number {
    if (request.length !== BLOCK_BYTES || !this.#holdsData(request.offset >>> BLOCK_SHIFT)) return -1;
    const other = this.#findData();
    const page = request.offset >>> BLOCK_SHIFT;
    if (other < 0 || other === page || !this.#goesAstray(page, other)) return -1;
    this.world.coverage.count("fault:misdirected-read");
    if (this.world.trace !== null) this.world.say(`fault: the read of page ${page} brings page ${other}`);
    this.#readFaulted();
    return other * BLOCK_BYTES;
  }

  /** One block of a read brings the bytes of another block, behind the metadata like itself. */
  #misdirectPart(request: Request): void {
    if (request.offset < this.provisionedBelow || request.length % BLOCK_BYTES !== 0) return;
    const index = this.#random.below(request.length >>> BLOCK_SHIFT);
    const first = Math.ceil(this.provisionedBelow / BLOCK_BYTES);
    const other = first + this.#random.below(this.#pages.count - first);
    const page = (request.offset >>> BLOCK_SHIFT) + index;
    if (other === page || this.#changing[page] !== 0 || !this.#goesAstray(page, other)) return;
    const source = this.#pages.offsetOf(other);
    simMemory().bytes.copyWithin(request.memory + index * BLOCK_BYTES, source, source + BLOCK_BYTES);
    this.world.coverage.count("fault:misdirected-part");
    if (this.world.trace !== null) this.world.say(`fault: the read of page ${page} brings page ${other}`);
    this.#readFaulted();
  }

  /** Whether reading `other` in the place of `page` is wrong, and wrong in another way than the last time. */
  #goesAstray(page: number, other: number): boolean {
    const bytes = this.#bytesOf(other);
    if (this.#bytesOf(page).equals(bytes) || this.#strays.get(page)?.equals(bytes) === true) return false;
    this.#strays.set(page, Buffer.from(bytes));
    return true;
  }

  #bytesOf(page: number): Buffer {
    const { bytes } = simMemory();
    return Buffer.from(bytes.buffer, bytes.byteOffset + this.#pages.offsetOf(page), BLOCK_BYTES);
  }

  /** Lands a one-block data write on another data block; false when that cannot be done now. */
  #misdirectWrite(request: Request): boolean {
    if (request.length !== BLOCK_BYTES || registerAt(request.memory) < 0) return false;
    const victim = this.#findData();
    const page = request.offset >>> BLOCK_SHIFT;
    if (victim < 0 || victim === page) return false;
    this.#taintPage(victim, true);
    this.#taintMemory(request.memory, true);
    this.#pages.land(victim, victim * BLOCK_BYTES, (victim + 1) * BLOCK_BYTES, request.memory, ALL_SECTORS);
    this.world.coverage.count("fault:misdirected-write");
    if (this.world.trace !== null) this.world.say(`fault: write for page ${page} lands on page ${victim}`);
    return true;
  }

  /** Until the write is repeated its blocks may be neither old nor new; a kill can make that last. */
  #taintTorn(request: Request): void {
    const last = (request.offset + request.length - 1) >>> BLOCK_SHIFT;
    for (let page = request.offset >>> BLOCK_SHIFT; page <= last; page++) {
      this.#taintPage(page, false);
      if (request.kind === Kind.Write)
        this.#taintMemory(request.memory + page * BLOCK_BYTES - request.offset, false);
    }
  }

  #findData(): number {
    for (let i = 0; i < VICTIM_TRIES; i++) {
      const page = this.#random.below(this.#pages.count);
      if (this.#isAtRest(page) && this.#holdsData(page)) return page;
    }
    return -1;
  }

  #holdsData(page: number): boolean {
    return !this.#pages.isZeros(page) && this.#dataIn(this.#pages.offsetOf(page));
  }

  #dataIn(offset: number): boolean {
    for (let at = 0; at < BLOCK_BYTES; at += this.options.granuleBytes) {
      if (registerAt(offset + at) >= 0) return true;
    }
    return false;
  }

  #taintPage(page: number, lost: boolean): void {
    this.#taintMemory(this.#pages.offsetOf(page), lost);
  }

  #taintMemory(offset: number, lost: boolean): void {
    for (let at = 0; at < BLOCK_BYTES; at += this.options.granuleBytes) {
      const register = registerAt(offset + at);
      if (register < 0) continue;
      this.witness?.tainted(register, lost);
      return;
    }
  }

  // --- contents ----------------------------------------------------------------------------------------

  /** Any blocks of the request land, or, torn, any sectors. */
  #landSome(request: Request, torn: boolean): void {
    const whole = this.#losses.below(4);
    const end = request.offset + request.length;
    for (let at = request.offset; at < end; ) {
      const page = at >>> BLOCK_SHIFT;
      const stop = Math.min(end, (page + 1) * BLOCK_BYTES);
      const source = request.kind === Kind.Zero ? -1 : request.memory + (at - request.offset);
      const some = torn ? this.#losses.u32() & ALL_SECTORS : ALL_SECTORS * this.#losses.below(2);
      const keep = whole === 0 ? 0 : whole === 1 ? ALL_SECTORS : some;
      if (keep !== 0) this.#pages.land(page, at, stop, source, keep);
      at = stop;
    }
  }

  /** Offset in the simulation memory of what a read of `page` would show now. */
  contentOf(page: number): number {
    return this.#pages.offsetOf(page);
  }

  get usedPages(): number {
    return this.#pages.usedPages;
  }

  get provisionedBelow(): number {
    return this.#pages.provisionedBelow;
  }

  /** Writes below this offset never meet ENOSPC. */
  set provisionedBelow(offset: number) {
    this.#pages.provisionedBelow = offset;
  }
}
