/** What a process has of a simulated device: requests go on to the device while both are there. */
import type { Disk, DiskListener } from "../../lib/core/disk.js";
import type { SimDevice } from "./device.js";
import type { SimPool } from "./memory.js";
import { Violation } from "./violation.js";
import type { SimProcess } from "./world.js";

/** Kinds of requests. */
export const Kind = { Read: 0, Write: 1, Zero: 2, Sync: 3 } as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

/** The device as one process has it open: lib/core's Disk. */
export class SimDiskHandle implements Disk {
  readonly sizeBytes: number;
  readonly alignBytes: number;
  readonly zeroGrainBytes: number;
  readonly process: SimProcess;
  readonly pool: SimPool;
  readonly #device: SimDevice;
  #closed = false;

  constructor(device: SimDevice, process: SimProcess, pool: SimPool) {
    this.#device = device;
    this.process = process;
    this.pool = pool;
    this.sizeBytes = device.options.sizeBytes;
    this.alignBytes = device.options.alignBytes;
    this.zeroGrainBytes = device.options.zeroGrainBytes;
  }

  get closed(): boolean {
    return this.#closed;
  }

  read(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void {
    if (this.#use()) this.#device.submit(this, Kind.Read, offset, memory, length, listener, tag);
  }

  write(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void {
    if (this.#use()) this.#device.submit(this, Kind.Write, offset, memory, length, listener, tag);
  }

  zero(offset: number, length: number, listener: DiskListener, tag: number): void {
    if (this.#use()) this.#device.submit(this, Kind.Zero, offset, 0, length, listener, tag);
  }

  sync(listener: DiskListener, tag: number): void {
    if (this.#use()) this.#device.submit(this, Kind.Sync, 0, 0, 0, listener, tag);
  }

  appendNow(offset: number, memory: number, length: number): number {
    return this.#use() ? this.#device.append(offset, memory, length) : length;
  }

  close(): void {
    if (!this.#use()) return;
    this.#closed = true;
  }

  /** Another process has the device now. */
  abandon(): void {
    this.#closed = true;
  }

  /** False for a dead process: what is left of its promises must not do anything. */
  #use(): boolean {
    if (!this.process.alive) return false;
    if (this.#closed) throw new Violation("CONTRACT", "the disk was used after it was closed");
    return true;
  }
}
