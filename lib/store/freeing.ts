/**
 * From FREE to free: the bytes of a slot that nobody owns become zeros before anyone can own it.
 *
 * Invariants
 *  1. FREE is durable before a byte changes; nothing is in flight to the slot, copies and scrubs included;
 *     its hot bit is set; the zeros are durable; then FREED is logged and the slot is free (invariant 17).
 *  2. A free slot that is found hot at the opening is zeroed again: a lost ALLOC may have had data.
 */
import { assert } from "../core/assert.js";
import { type Routine, type Start, startRoutine } from "../core/routine.js";
import { DeviceFailure, isFull, pause } from "./device.js";
import { SlotState } from "./directory.js";
import { endOfBatch } from "./hot.js";
import { FREE_WORDS } from "./log-records.js";
import type { Parts } from "./parts.js";
import { cutZeroes } from "./zeroing.js";

export interface FreeingOwner {
  /** The slot is free, zero, and hot. */
  slotFreed(slot: number): void;
  /** The log has no room for a FREED: a checkpoint is needed. */
  wantLog(): void;
}

interface Freed {
  readonly slot: number;
  /** Sequence of its FREE; 0 for a free slot that is zeroed again. */
  readonly sequence: number;
}

export class Freeing {
  readonly #parts: Parts;
  readonly #owner: FreeingOwner;
  readonly #zeros: number;
  readonly #zerosBytes: number;
  #queue: Freed[] = [];
  readonly #slots = new Set<number>();
  /** Slots that are durably zero and whose FREED has not been logged. */
  readonly #zeroed: number[] = [];
  #running = false;
  #stopped = false;
  bytesZeroed = 0;
  zeroCalls = 0;

  /** `zeros`: a pool buffer of `zerosBytes` zeros. */
  constructor(parts: Parts, owner: FreeingOwner, zeros: number, zerosBytes: number) {
    this.#parts = parts;
    this.#owner = owner;
    this.#zeros = zeros;
    this.#zerosBytes = zerosBytes;
  }

  get running(): boolean {
    return this.#running;
  }
  /** Slots on their way. */
  get count(): number {
    return this.#slots.size;
  }

  /** A slot is zero and its FREED finds no room in the log. */
  get waitsForLog(): boolean {
    return this.#zeroed.length > 0;
  }

  has(slot: number): boolean {
    return this.#slots.has(slot);
  }

  add(slot: number, sequence: number): void {
    this.#slots.add(slot);
    this.#queue.push({ slot, sequence });
    this.start();
  }

  stop(): void {
    this.#stopped = true;
  }

  /** A slot that could not go on may do so now: room in the log, or nobody uses its table any more. */
  start(): void {
    if (this.#stopped || this.#parts.device.failed !== null) return;
    this.#recordFreed();
    if (this.#running || this.#queue.length === 0) return;
    this.#running = true;
    startRoutine(this.#run(), (error) => {
      this.#running = false;
      if (error !== null) this.#parts.device.failWith(error);
      this.#parts.device.onIdle();
    });
  }

  *#run(): Routine<void> {
    // What else this batch of events frees shares the syncs.
    yield* endOfBatch(this.#parts.device);
    while (!this.#stopped) {
      const batch = this.#takeBatch();
      if (batch.length === 0) return;
      yield* this.#zeroBatch(batch);
    }
  }

  /** Slots that nobody uses any more. */
  #takeBatch(): Freed[] {
    const { cache, device } = this.#parts;
    const batch: Freed[] = [];
    const rest: Freed[] = [];
    for (const freed of this.#queue) {
      const unused = batch.length < device.tunables.freeingBatch && cache.get(freed.slot) === null;
      (unused ? batch : rest).push(freed);
    }
    this.#queue = rest;
    return batch;
  }

  *#zeroBatch(batch: readonly Freed[]): Routine<void> {
    const { log, sync, hot } = this.#parts;
    log.append();
    yield* sync.syncThrough(Math.max(...batch.map(({ sequence }) => sequence)));
    for (const { slot } of batch) hot.request(slot);
    if (batch.some(({ slot }) => !hot.isHot(slot))) yield* hot.drain();
    for (const { slot } of batch) assert(hot.isHot(slot), "only a hot slot is zeroed");
    for (const { slot } of batch) yield* this.#zeroSlot(slot);
    yield* sync.sync();
    for (const { slot } of batch) this.#zeroed.push(slot);
    this.#recordFreed();
    log.append();
  }

  /** Logs what is zero now, as far as the log has room; the rest waits for a checkpoint. */
  #recordFreed(): void {
    const { log, directory } = this.#parts;
    for (let slot = this.#zeroed.pop(); slot !== undefined; slot = this.#zeroed.pop()) {
      if (directory.state[slot] === SlotState.Freeing) {
        if (!log.makeRoom(FREE_WORDS)) {
          this.#zeroed.push(slot);
          this.#owner.wantLog();
          return;
        }
        directory.freed(slot, log.freed(slot, directory.alloc[slot]!));
      }
      this.#slots.delete(slot);
      this.#owner.slotFreed(slot);
    }
  }

  *#zeroSlot(slot: number): Routine<void> {
    const { device, sync } = this.#parts;
    for (let attempt = 0; ; attempt++) {
      const result = yield this.#startZeroes(slot);
      sync.touch();
      if (result >= 0) break;
      if (isFull(result)) yield* pause(device, device.tunables.spaceRetryMs);
      else if (attempt >= device.tunables.writeRetries) {
        throw new DeviceFailure(`a slot could not be zeroed (errno ${-result})`);
      }
    }
    this.bytesZeroed += device.layout.slotBytes;
  }

  #startZeroes(slot: number): Start {
    const { layout, env, tunables } = this.#parts.device;
    const { disk } = env;
    return (resume) => {
      let open = 0;
      let worst = 0;
      const listener = {
        diskDone(_tag: number, done: number): void {
          if (done < 0) worst = done;
          open--;
          if (open === 0) resume(worst);
        },
      };
      const punch = (at: number, length: number): void => {
        open++;
        this.zeroCalls++;
        disk.zero(at, length, listener, 0);
      };
      const overwrite = (at: number, length: number): void => {
        open++;
        disk.write(at, this.#zeros, length, listener, 0);
      };
      const offset = layout.slotsStart + slot * layout.slotBytes;
      const { zeroGrainBytes } = disk;
      cutZeroes(offset, layout.slotBytes, zeroGrainBytes, tunables.punchBytesMin, this.#zerosBytes, {
        punch,
        overwrite,
      });
    };
  }
}
