/** The engine on Node's thread pool and node:net: the same behaviour where the kernel refuses a ring. */
import type { ByteStream } from "../core/stream.js";
import type { Addon } from "./addon.js";
import type { Engine, EngineOptions, EngineStats, ListenAddress, Listener } from "./api.js";
import { EngineBase } from "./engine-base.js";
import type { OpenFile } from "./open-disk.js";
import { ThreadsDisk } from "./threads-disk.js";
import { ThreadsLoop } from "./threads-loop.js";
import { threadsConnect, threadsListen } from "./threads-net.js";

export class ThreadsEngine extends EngineBase<ThreadsLoop> implements Engine {
  readonly kind = "threads";
  readonly fallbackReason: string | null;
  readonly threads = null;

  constructor(addon: Addon, options: EngineOptions, fallbackReason: string | null) {
    super(addon, options, new ThreadsLoop());
    this.fallbackReason = fallbackReason;
  }

  protected diskOf(file: OpenFile): ThreadsDisk {
    return new ThreadsDisk(this.addon, this.loop, this.memory, file);
  }

  listen(address: ListenAddress, onStream: (stream: ByteStream) => void): Promise<Listener> {
    return threadsListen(this.net, address, onStream);
  }

  connect(address: ListenAddress): Promise<ByteStream> {
    return threadsConnect(this.net, address);
  }

  stats(): EngineStats {
    const wakeups = this.loop.batches;
    return { enters: 0, submissions: 0, completions: 0, wakeups, ...this.net.traffic };
  }

  async close(): Promise<void> {
    // What was asked for is finished first: a disk that is closing still has requests in flight.
    await this.loop.idle();
    this.memory.close();
  }
}
