/** What both engines are made of: shared memory, clock, checksums, and files that are opened in one way. */
import type { Clock, TickTask } from "../core/clock.js";
import type { Disk } from "../core/disk.js";
import type { Pool } from "../core/pool.js";
import type { Addon } from "./addon.js";
import type { EngineOptions, OpenDiskOptions, OpenedDisk, PoolShare } from "./api.js";
import { NativeChecksums } from "./native-checksums.js";
import { SharedMemory } from "./native-memory.js";
import { type OpenFile, openFile, reserveRange } from "./open-disk.js";
import { SystemRandom, systemClock } from "./system-clock.js";

/** How an engine waits for events and delivers them. */
export interface EngineLoop {
  run(event: () => void): void;
  atTickEnd(task: TickTask): void;
}

/** What the sockets of an engine share. */
export interface EngineNet<Loop extends EngineLoop> {
  readonly addon: Addon;
  readonly loop: Loop;
  readonly memory: SharedMemory;
  readonly traffic: { bytesReceived: number; bytesSent: number };
  readonly tcpUserTimeoutMs: number | undefined;
}

export abstract class EngineBase<Loop extends EngineLoop> {
  readonly pool: Pool;
  readonly clock: Clock;
  readonly random = new SystemRandom();
  readonly checksums: NativeChecksums;
  protected readonly addon: Addon;
  protected readonly loop: Loop;
  protected readonly memory: SharedMemory;
  protected readonly net: EngineNet<Loop>;

  constructor(addon: Addon, options: EngineOptions, loop: Loop) {
    this.addon = addon;
    this.loop = loop;
    this.memory = new SharedMemory(addon, options);
    this.pool = this.memory.pool;
    this.checksums = new NativeChecksums(addon, this.memory.id);
    this.clock = systemClock((event) => loop.run(event));
    this.net = {
      addon,
      loop,
      memory: this.memory,
      traffic: { bytesReceived: 0, bytesSent: 0 },
      tcpUserTimeoutMs: options.tcpUserTimeoutMs,
    };
  }

  poolShare(from: number, to: number): PoolShare {
    return this.memory.share(from, to);
  }

  atTickEnd(task: TickTask): void {
    this.loop.atTickEnd(task);
  }

  async openDisk(options: OpenDiskOptions): Promise<OpenedDisk> {
    const file = await openFile(this.addon, this.pool, options);
    return {
      disk: this.diskOf(file),
      created: file.created,
      kind: file.kind,
      direct: file.direct,
      instanceTag: file.instanceTag,
      reserve: (offset, length) => reserveRange(this.addon, file, offset, length),
    };
  }

  protected abstract diskOf(file: OpenFile): Disk;
}
