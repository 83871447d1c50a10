/** The engine on Node's thread pool and node:net: the same behaviour where the kernel refuses a ring. */
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
import { SystemRandom, systemClock } from "./system-clock.js";
import { ThreadsDisk } from "./threads-disk.js";
import { ThreadsLoop } from "./threads-loop.js";
import { threadsConnect, threadsListen } from "./threads-net.js";
import type { ThreadsNetContext } from "./threads-stream.js";

export class ThreadsEngine implements Engine {
  readonly kind = "threads";
  readonly fallbackReason: string | null;
  readonly pool: Pool;
  readonly clock: Clock;
  readonly random = new SystemRandom();
  readonly threads = null;
  readonly checksums: NativeChecksums;
  readonly #addon: Addon;
  readonly #loop = new ThreadsLoop();
  readonly #memory: SharedMemory;
  readonly #net: ThreadsNetContext;

  constructor(addon: Addon, options: EngineOptions, fallbackReason: string | null) {
    this.#addon = addon;
    this.fallbackReason = fallbackReason;
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
      disk: new ThreadsDisk(this.#addon, this.#loop, this.#memory, file),
      created: file.created,
      kind: file.kind,
      direct: file.direct,
      instanceTag: file.instanceTag,
      reserve: (offset, length) => reserveRange(this.#addon, file, offset, length),
    };
  }

  listen(address: ListenAddress, onStream: (stream: ByteStream) => void): Promise<Listener> {
    return threadsListen(this.#net, address, onStream);
  }

  connect(address: ListenAddress): Promise<ByteStream> {
    return threadsConnect(this.#net, address);
  }

  stats(): EngineStats {
    const wakeups = this.#loop.batches;
    return { enters: 0, submissions: 0, completions: 0, wakeups, ...this.#net.traffic };
  }

  async close(): Promise<void> {
    // What was asked for is finished first: a disk that is closing still has requests in flight.
    await this.#loop.idle();
    this.#memory.close();
  }
}
