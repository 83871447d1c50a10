/**
 * A disk in memory for unit tests of the store: volatile until synced, with a record of everything that
 * happened in order. Completions wait in the engine's queue.
 */
import type { Disk, DiskListener } from "../../../../lib/core/disk.js";
import type { Engine } from "./engine.js";

const SECTOR = 512;

export type DiskEvent =
  | { readonly kind: "read" | "write" | "zero" | "append"; readonly offset: number; readonly length: number }
  | { readonly kind: "sync" };

/** Decides the fate of a request: 0 to let it happen, or an error number. */
export type Fault = (event: DiskEvent) => number;

export class MemoryDisk implements Disk {
  readonly sizeBytes: number;
  readonly alignBytes = 512;
  readonly zeroGrainBytes: number;
  readonly bytes: Uint8Array;
  /** What would survive a power loss. */
  readonly stable: Uint8Array;
  readonly events: DiskEvent[] = [];
  /** Times that a sync was announced. */
  hints = 0;
  fault: Fault = () => 0;
  /** Where a read is led: the offset whose bytes it brings. */
  leads: (offset: number) => number = (offset) => offset;
  /** Completions are held back while true. */
  frozen = false;
  readonly #held: { readonly event: DiskEvent; readonly run: () => void }[] = [];
  readonly #engine: Engine;
  readonly #dirty = new Set<number>();

  constructor(
    engine: Engine,
    sizeBytes: number,
    options: { zeroGrainBytes?: number; content?: Uint8Array } = {},
  ) {
    this.#engine = engine;
    this.sizeBytes = sizeBytes;
    this.zeroGrainBytes = options.zeroGrainBytes ?? 4096;
    this.bytes = options.content?.slice() ?? new Uint8Array(sizeBytes);
    this.stable = this.bytes.slice();
  }

  read(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void {
    this.#check(offset, length);
    this.#later(listener, tag, { kind: "read", offset, length }, () => {
      const from = this.leads(offset);
      this.#engine.pool.bytes.set(this.bytes.subarray(from, from + length), memory);
      return length;
    });
  }

  write(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void {
    this.#check(offset, length);
    this.#later(listener, tag, { kind: "write", offset, length }, () => {
      this.#put(offset, this.#engine.pool.bytes.subarray(memory, memory + length));
      return length;
    });
  }

  zero(offset: number, length: number, listener: DiskListener, tag: number): void {
    this.#check(offset, length);
    if (offset % this.zeroGrainBytes !== 0 || length % this.zeroGrainBytes !== 0)
      throw new Error("zero off the grain");
    this.#later(listener, tag, { kind: "zero", offset, length }, () => {
      this.#put(offset, new Uint8Array(length));
      return 0;
    });
  }

  sync(listener: DiskListener, tag: number): void {
    const covered = [...this.#dirty];
    // What was complete when the sync was asked for, with the content of that moment.
    const content = covered.map((sector) => this.bytes.slice(sector * SECTOR, (sector + 1) * SECTOR));
    this.#later(listener, tag, { kind: "sync" }, () => {
      covered.forEach((sector, i) => {
        this.stable.set(content[i]!, sector * SECTOR);
        if (same(this.bytes, this.stable, sector)) this.#dirty.delete(sector);
      });
      return 0;
    });
  }

  appendNow(offset: number, memory: number, length: number): number {
    const event: DiskEvent = { kind: "append", offset, length };
    this.events.push(event);
    const error = this.fault(event);
    if (error < 0) return error;
    this.#put(offset, this.#engine.pool.bytes.subarray(memory, memory + length));
    return length;
  }

  appendedSyncsSoon(): void {
    this.hints++;
  }

  close(): void {}

  /** Lets everything that was held back happen. */
  thaw(): void {
    this.frozen = false;
    for (const { run } of this.#held.splice(0)) this.#engine.complete(run);
  }

  /** What was held back first and has not happened yet. */
  get held(): DiskEvent | null {
    return this.#held[0]?.event ?? null;
  }

  /** Lets it happen, and what comes of it. */
  step(): void {
    this.#engine.complete(this.#held.shift()!.run);
    this.#engine.settle();
  }

  /** What a disk holds after a power loss: each un-synced sector old or new, as `keep` decides. */
  afterPowerLoss(keep: (sector: number) => boolean): Uint8Array {
    const content = this.stable.slice();
    for (const sector of this.#dirty) {
      if (keep(sector))
        content.set(this.bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR), sector * SECTOR);
    }
    return content;
  }

  #put(offset: number, from: Uint8Array): void {
    this.bytes.set(from, offset);
    for (let at = Math.floor(offset / SECTOR); at * SECTOR < offset + from.length; at++) this.#dirty.add(at);
  }

  #check(offset: number, length: number): void {
    if (offset % this.alignBytes !== 0 || length % this.alignBytes !== 0 || length <= 0)
      throw new Error("unaligned");
    if (offset + length > this.sizeBytes) throw new Error("past the end of the disk");
  }

  /** The event is noted when it is asked for; it happens when the engine comes to it. */
  #later(listener: DiskListener, tag: number, event: DiskEvent, happen: () => number): void {
    this.events.push(event);
    const run = (): void => {
      const error = this.fault(event);
      listener.diskDone(tag, error < 0 ? error : happen());
    };
    if (this.frozen) this.#held.push({ event, run });
    else this.#engine.complete(run);
  }
}

function same(a: Uint8Array, b: Uint8Array, sector: number): boolean {
  for (let i = sector * SECTOR; i < (sector + 1) * SECTOR; i++) if (a[i] !== b[i]) return false;
  return true;
}
