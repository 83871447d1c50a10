/** The engine on io_uring. */
import { availableParallelism } from "node:os";
import type { ByteStream } from "../core/stream.js";
import type { Addon } from "./addon.js";
import type { Engine, EngineOptions, EngineStats, ListenAddress, Listener } from "./api.js";
import { EngineBase } from "./engine-base.js";
import type { OpenFile } from "./open-disk.js";
import { RingDisk } from "./ring-disk.js";
import { RingLoop } from "./ring-loop.js";
import { ringAdopt, ringConnect, ringListen } from "./ring-net.js";
import { RingThreadLinks } from "./ring-threads.js";

/** Longer than the wake-up it saves, shorter than anybody would call busy. */
const SPIN_MICROS = 64;

/** On one CPU nobody else could bring about what is spun for. */
function spinMicrosByDefault(): number {
  return availableParallelism() > 1 ? SPIN_MICROS : 0;
}

export class RingEngine extends EngineBase<RingLoop> implements Engine {
  readonly kind = "ring";
  readonly fallbackReason = null;
  readonly threads: RingThreadLinks;

  /** Throws RingRefused where the kernel does not allow a ring. */
  constructor(addon: Addon, options: EngineOptions) {
    super(addon, options, new RingLoop(addon, options.spinMicros ?? spinMicrosByDefault()));
    this.threads = new RingThreadLinks(this.net);
  }

  protected diskOf(file: OpenFile): RingDisk {
    return new RingDisk(this.addon, this.loop, this.memory, file);
  }

  listen(address: ListenAddress, onStream: (stream: ByteStream) => void): Promise<Listener> {
    return ringListen(this.net, address, (fd) => onStream(ringAdopt(this.net, fd)));
  }

  connect(address: ListenAddress): Promise<ByteStream> {
    return ringConnect(this.net, address);
  }

  stats(): EngineStats {
    const { ring, wakeups } = this.loop;
    return { ...ring.stats, enters: ring.enters, wakeups, ...this.net.traffic };
  }

  async close(): Promise<void> {
    // What was asked for is finished first: a disk that is closing still has requests in flight.
    await this.loop.idle();
    this.loop.close();
    this.threads.close();
    this.memory.close();
  }
}
