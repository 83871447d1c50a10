/**
 * Group commit: one fdatasync in flight, and at most one more that is wanted.
 *
 * Invariants
 *  1. Whoever asks is answered by a sync that was submitted after the asking (invariant 6).
 *  2. The first FLUSH of an opening always syncs, whatever this process has written: an earlier life may
 *     have acknowledged what is still in the disk's cache.
 *  3. A failed sync fails the device; nobody who waited for it, then or later, is told success (invariant 22).
 */
import type { DiskListener } from "../core/disk.js";
import type { ExtentOp } from "../core/extent-io.js";
import type { Routine } from "../core/routine.js";
import type { Device } from "./device.js";
import { DeviceFailure } from "./device.js";
import type { Log } from "./log.js";
import { OpList } from "./op-list.js";

/**
 * Up to so many appends before each sync, the log's pages are written back at once instead of by the sync, which
 * then has nothing to wait for but the device's cache.
 */
const APPENDS_PER_SYNC_OFTEN = 4;

/** Told about operations whose sync is over. */
export interface SyncOwner {
  /** Runs the store's end of batch, in which `submit` is called. */
  wantTick(): void;
  syncedOp(op: ExtentOp): void;
}

export class SyncService implements DiskListener {
  readonly #device: Device;
  readonly #log: Log;
  readonly #owner: SyncOwner;
  #inFlight = false;
  #wanted = false;
  #covered = 0;
  #ops = new OpList();
  #opsInFlight = new OpList();
  #routines: ((result: number) => void)[] = [];
  #routinesInFlight: ((result: number) => void)[] = [];
  /** Something was written, zeroed or appended since the last sync was submitted. */
  #dirty = true;
  /** Nobody has asked yet. */
  #isFirst = true;
  /** Syncs submitted so far. What was complete when this was n is stable once `completed` > n. */
  submitted = 0;
  completed = 0;
  /** Appends that the log had seen when an operation last asked for a sync. */
  #appendsThen = 0;
  /** Operations ask for a sync after every few appends: the log's page had better be on its way by then. */
  #often = false;

  constructor(device: Device, log: Log, owner: SyncOwner) {
    this.#device = device;
    this.#log = log;
    this.#owner = owner;
  }

  /** A flush has something to do that no sync in flight does. */
  get dirty(): boolean {
    return this.#dirty || this.#log.changedSequence > this.#covered;
  }
  get idle(): boolean {
    return !this.#inFlight && !this.#wanted;
  }

  /** Bytes of the device changed: the next flush has something to do. */
  touch(): void {
    this.#dirty = true;
  }

  /** `op` is told when everything that is complete now is stable. False: it is already. */
  addOp(op: ExtentOp): boolean {
    if (this.dirty || this.#isFirst) {
      this.#isFirst = false;
      this.#noteOften();
      this.#ops.push(op);
      this.#want();
      return true;
    }
    if (!this.#inFlight) return false;
    this.#opsInFlight.push(op);
    return true;
  }

  #noteOften(): void {
    const { appends } = this.#log;
    this.#often = appends - this.#appendsThen <= APPENDS_PER_SYNC_OFTEN;
    this.#appendsThen = appends;
  }

  /** The log was appended to, and the data that it is about is submitted in the same batch. */
  appended(): void {
    if (!this.#often) return;
    // Nobody has asked for a while: it is not worth the device's time.
    if (this.#log.appends - this.#appendsThen > APPENDS_PER_SYNC_OFTEN) this.#often = false;
    else this.#device.env.disk.appendedSyncsSoon?.();
  }

  /** Everything that is complete now is stable afterwards. Throws DeviceFailure. */
  *sync(): Routine<void> {
    this.#device.check();
    const result = yield (resume) => {
      this.#routines.push(resume);
      this.#want();
    };
    if (result < 0) throw new DeviceFailure(this.#device.failed ?? "sync failed");
  }

  /** Log records up to `sequence` are stable afterwards. */
  *syncThrough(sequence: number): Routine<void> {
    if (this.#log.syncedSequence < sequence) yield* this.sync();
  }

  /** Nobody waits; the background sync. */
  request(): void {
    this.#want();
  }

  #want(): void {
    this.#wanted = true;
    if (!this.#inFlight) this.#owner.wantTick();
  }

  /** At the end of a batch, after the log was appended. */
  submit(): void {
    if (!this.#wanted || this.#inFlight || this.#device.failed !== null) return;
    this.#wanted = false;
    this.#inFlight = true;
    this.#dirty = false;
    this.submitted++;
    this.#covered = this.#log.appendedSequence;
    [this.#ops, this.#opsInFlight] = [this.#opsInFlight, this.#ops];
    [this.#routines, this.#routinesInFlight] = [this.#routinesInFlight, this.#routines];
    this.#device.env.disk.sync(this, 0);
  }

  diskDone(_tag: number, result: number): void {
    this.#inFlight = false;
    this.#device.onIdle();
    if (result < 0) {
      this.#device.fail(`fdatasync failed (errno ${-result}): what was acknowledged may not be stored`);
      return;
    }
    if (this.#device.failed !== null) return;
    this.completed = this.submitted;
    this.#log.markSynced(this.#covered);
    const routines = this.#routinesInFlight;
    this.#routinesInFlight = [];
    for (let op = this.#opsInFlight.shift(); op !== null; op = this.#opsInFlight.shift())
      this.#owner.syncedOp(op);
    for (const resume of routines) resume(0);
    if (this.#wanted) this.#owner.wantTick();
  }

  /** The device has failed: everyone who waits is told so. */
  abandon(): void {
    this.#wanted = false;
    for (const ops of [this.#ops, this.#opsInFlight]) {
      for (let op = ops.shift(); op !== null; op = ops.shift()) this.#owner.syncedOp(op);
    }
    const routines = [...this.#routines, ...this.#routinesInFlight];
    this.#routines = [];
    this.#routinesInFlight = [];
    for (const resume of routines) resume(-1);
  }
}
