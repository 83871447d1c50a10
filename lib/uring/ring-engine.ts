/** The engine on io_uring. */
import { availableParallelism } from "node:os";
import type { Clock, TickTask } from "../core/clock.js";
import type { Pool } from "../core/pool.js";
import type { ByteStream } from "../core/stream.js";
import type { Addon } from "./addon.js";
import type {
  Engine,
  EngineOptions,
  EngineStats,
  ListenAddress,
  Listener,
  OpenDiskOptions,
  OpenedDisk,
  PoolShare,
} from "./api.js";
import { NativeChecksums } from "./native-checksums.js";
import { SharedMemory } from "./native-memory.js";
import { openFile, reserveRange } from "./open-disk.js";
import { RingDisk } from "./ring-disk.js";
import { RingLoop } from "./ring-loop.js";
import { type NetContext, ringAdopt, ringConnect, ringListen } from "./ring-net.js";
import { RingThreadLinks } from "./ring-threads.js";
import { SystemRandom, systemClock } from "./system-clock.js";

/** Longer than the wake-up it saves, shorter than anybody would call busy. */
const SPIN_MICROS = 64;

/** On one CPU nobody else could bring about what is spun for. */
function spinMicrosByDefault(): number {
  return availableParallelism() > 1 ? SPIN_MICROS : 0;
}

export class RingEngine implements Engine {
  readonly kind = "ring";
  readonly fallbackReason = null;
  readonly pool: Pool;
  readonly clock: Clock;
  readonly random = new SystemRandom();
  readonly checksums: NativeChecksums;
  readonly #addon: Addon;
  readonly #loop: RingLoop;
  readonly #memory: SharedMemory;
  readonly #net: NetContext;
  readonly threads: RingThreadLinks;

  /** Throws RingRefused where the kernel does not allow a ring. */
  constructor(addon: Addon, options: EngineOptions) {
    this.#addon = addon;
    this.#loop = new RingLoop(addon, options.spinMicros ?? spinMicrosByDefault());
    this.#memory = new SharedMemory(addon, options);
    this.pool = this.#memory.pool;
    this.checksums = new NativeChecksums(addon, this.#memory.id);
    this.clock = systemClock((event) => this.#loop.run(event));
    this.#net = {
      addon,
      loop: this.#loop,
      memory: this.#memory,
      traffic: { bytesReceived: 0, bytesSent: 0 },
      tcpUserTimeoutMs: options.tcpUserTimeoutMs,
    };
    this.threads = new RingThreadLinks(this.#net);
  }

  poolShare(from: number, to: number): PoolShare {
    return this.#memory.share(from, to);
  }

  atTickEnd(task: TickTask): void {
    this.#loop.atTickEnd(task);
  }

  async openDisk(options: OpenDiskOptions): Promise<OpenedDisk> {
    const file = await openFile(this.#addon, this.pool, options);
    return {
      disk: new RingDisk(this.#addon, this.#loop, this.#memory, file),
      created: file.created,
      kind: file.kind,
      direct: file.direct,
      instanceTag: file.instanceTag,
      reserve: (offset, length) => reserveRange(this.#addon, file, offset, length),
    };
  }

  listen(address: ListenAddress, onStream: (stream: ByteStream) => void): Promise<Listener> {
    return ringListen(this.#net, address, (fd) => onStream(ringAdopt(this.#net, fd)));
  }

  connect(address: ListenAddress): Promise<ByteStream> {
    return ringConnect(this.#net, address);
  }

  stats(): EngineStats {
    const { ring, wakeups } = this.#loop;
    return { ...ring.stats, enters: ring.enters, wakeups, ...this.#net.traffic };
  }

  async close(): Promise<void> {
    // What was asked for is finished first: a disk that is closing still has requests in flight.
    await this.#loop.idle();
    this.#loop.close();
    this.threads.close();
    this.#memory.close();
  }
}
