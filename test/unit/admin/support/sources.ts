/** Sources of an admin API without devices: the real registry over a store that is only a map. */
import type { AdminSources, GatewayNumbers } from "../../../../lib/admin/index.js";
import { EventLog, mirrorOff } from "../../../../lib/catalog/index.js";
import type { Checksums } from "../../../../lib/core/checksum.js";
import type { Clock } from "../../../../lib/core/clock.js";
import { PIECE_BYTES } from "../../../../lib/core/limits.js";
import { Pool } from "../../../../lib/core/pool.js";
import type { BadBlock, Store, StoreStats } from "../../../../lib/store/api.js";
import { DeviceRegistry } from "../../../../lib/volume/registry.js";

export class MapStore implements Store {
  readonly extentBlocks = 1024;
  readonly #records = new Map<number, Uint8Array>();
  readonly bad: BadBlock[] = [];
  failed: string | null = null;
  scrubs: number[] = [];

  inventory(): void {}
  slotsOf(): number {
    return 0;
  }
  volumesWithSlots(): number[] {
    return [];
  }
  dropVolume(_volume: number, done: (error: null) => void): void {
    setImmediate(done, null);
  }
  records(): ReadonlyMap<number, Uint8Array> {
    return this.#records;
  }
  putRecord(volume: number, bytes: Uint8Array | null, done: (error: null) => void): void {
    if (bytes === null) this.#records.delete(volume);
    else this.#records.set(volume, bytes);
    setImmediate(done, null);
  }
  submit(): void {
    throw new Error("no extents here");
  }
  badBlocks(volume: number): readonly BadBlock[] {
    return this.bad.filter((block) => block.volume === volume);
  }
  startScrub(pace: number): void {
    this.scrubs.push(pace);
  }
  close(done: (error: null) => void): void {
    setImmediate(done, null);
  }
  stats(): StoreStats {
    return {
      slots: 100,
      freeSlots: 90,
      liveSlots: 8,
      freeingSlots: 2,
      hotSlots: 3,
      slotBytes: 4_194_304,
      logBytes: 1,
      logUsedBytes: 1,
      logAppends: 7,
      logAppendedBytes: 1,
      syncs: 1,
      checkpoints: 1,
      cacheBytes: 1,
      cacheLimitBytes: 1,
      cacheMisses: 1,
      blocksRead: 1,
      blocksWritten: 1,
      bytesZeroed: 1,
      zeroCalls: 1,
      bitRotBlocks: this.bad.length,
      adoptedBlocks: 0,
      waitingForSpace: 0,
      lossy: false,
      failed: this.failed,
      scrub: { running: false, passes: 0, lastPassEndedAt: 0 },
    };
  }
}

const clock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  setTimer(delayMs, fire) {
    const timer = setTimeout(fire, delayMs);
    return { cancel: () => clearTimeout(timer) };
  },
};

const checksums: Checksums = {
  crc32c: () => 0,
  crc32cBytes: () => 0,
  blockEntries: () => {},
};

export interface TestSources extends AdminSources {
  readonly registry: DeviceRegistry;
  readonly store: MapStore;
  readonly numbers: GatewayNumbers;
}

export function makeSources(data = "/nowhere"): TestSources {
  const store = new MapStore();
  const pool = new Pool(new Uint8Array(PIECE_BYTES));
  const random = { u32: () => Math.floor(Math.random() * 2 ** 32) };
  const ticker = { atTickEnd: (task: { tick(): void }) => setImmediate(() => task.tick()) };
  const registry = new DeviceRegistry({ store, pool, clock, random, ticker, checksums });
  const numbers: GatewayNumbers = {
    connections: 2,
    handshakes: 1,
    requestsInFlight: 5,
    requests: new Float64Array(9),
    errors: new Float64Array(9),
    bytes: new Float64Array(9),
    latency: new Float64Array(9 * 28),
    latencySum: new Float64Array(9),
    counters: { connectionsAccepted: 4 },
  };
  const mirror = mirrorOff(0);
  return {
    registry,
    store,
    numbers,
    events: new EventLog(() => Date.now()),
    server: {
      version: "0.0.0",
      pid: process.pid,
      startedAt: Date.now(),
      data,
      ioEngine: "threads",
      ioFallbackReason: null,
      device: { path: `${data}/store.0`, kind: "file", direct: true, sizeBytes: 2 ** 30 },
      listeners: () => ["nbd://127.0.0.1:10809"],
      tls: "notls",
      accessListsRequired: false,
      notReady: () => null,
    },
    mirror: () => Promise.resolve(mirror),
    mirrorNow: () => mirror,
    gateway: () => numbers,
    scrub: () => ({ lastEndedAt: null, nextAt: 0 }),
    engine: () => ({ enters: 0, submissions: 0, completions: 0, wakeups: 0, bytesReceived: 0, bytesSent: 0 }),
    pool: () => ({ capacityBytes: pool.capacityBytes, freeBytes: pool.freeBytes }),
  };
}
