/**
 * The mirror of one life in a simulated Redis, and the comparison of the two: the real code of lib/catalog on the
 * simulated clock. Whatever Redis answers, nothing of a run may depend on it; once it is well, it must come to equal
 * the volumes' records and the store's inventory (invariant 20).
 */
import { EventLog } from "../../lib/catalog/events.js";
import { bucketKey, bucketOf, NAMES_KEY, recordKey, VOLUMES_KEY } from "../../lib/catalog/keys.js";
import { Mirror } from "../../lib/catalog/mirror.js";
import { recordFields } from "../../lib/catalog/mirror-writer.js";
import type { Timer } from "../../lib/core/clock.js";
import type { Store } from "../../lib/store/api.js";
import type { DeviceRegistry } from "../../lib/volume/registry.js";
import type { Coverage } from "./coverage.js";
import type { RedisHost, SimRedis } from "./redis.js";
import { Violation } from "./violation.js";
import type { SimProcess } from "./world.js";

/** Longer than the mirror waits between two looks at what Redis holds. */
const MIRROR_IDLE_US = 5e6;
const STORE_ID = "simulated";
const NODE_ID = "n1";
/** A key of an index bucket, and the volume that it belongs to. */
const VOLUME_KEY = /^lamina:\{v(\d+)\}:/;

export class SimMirror {
  readonly #host: RedisHost;
  readonly #mirror: Mirror;
  readonly #redis: SimRedis;
  readonly #registry: DeviceRegistry;
  readonly #store: Store;

  constructor(
    host: RedisHost,
    process: SimProcess,
    redis: SimRedis,
    registry: DeviceRegistry,
    store: Store,
    session: () => string,
  ) {
    this.#host = host;
    this.#redis = redis;
    this.#registry = registry;
    this.#store = store;
    const events = new EventLog(() => process.wall());
    this.#mirror = new Mirror({
      target: { kind: "unix", path: "/simulated", db: 0, username: null, password: null },
      source: {
        storeId: STORE_ID,
        nodeId: NODE_ID,
        records: () => registry.list(),
        inventory: (volume, visit) => store.inventory(volume, visit),
        node: () => ({ slots: store.stats().slots }),
      },
      events,
      wall: () => process.wall(),
      connect: () => redis.connect(process),
      clock: {
        now: () => process.now(),
        setTimer(delayMs: number, fire: () => void): Timer {
          return process.setTimer(delayMs, () => {
            host.promiseMoved();
            fire();
          });
        },
      },
      session,
    });
    registry.onEvent((event) => {
      host.promiseMoved();
      events.record("volume-changed", event.record.name, event.kind);
      this.#mirror.recordsChanged();
    });
    this.#mirror.start();
    host.promiseMoved();
  }

  extentChanged(volume: number, layer: number, extent: number, exists: boolean): void {
    this.#mirror.extentChanged(volume, layer, extent, exists);
    this.#host.promiseMoved();
  }

  get state(): string {
    return this.#mirror.status().state;
  }

  close(): Promise<void> {
    return this.#mirror.close();
  }

  /** Null when Redis equals the truth; else the first difference. */
  difference(): string | null {
    const records = this.#registry.list();
    const wanted = new Map(records.map(({ id, name }) => [String(id), name]));
    const names = new Map(records.map(({ id, name }) => [name, String(id)]));
    if (!isSame(this.#redis.hash(VOLUMES_KEY), wanted)) return "the list of volumes differs";
    if (!isSame(this.#redis.hash(NAMES_KEY), names)) return "the names of volumes differ";
    for (const record of records) {
      const difference = this.#volumeDifference(record.id, recordFields(record));
      if (difference !== null) return `volume ${record.name}: ${difference}`;
    }
    return null;
  }

  /**
   * Keys of volumes that are on no list. A Redis that is emptied under a running mirror may keep a few: the mirror
   * writes a volume anew, and the process dies before it has seen that the list is gone too. Nobody reads them.
   */
  orphans(): number {
    const live = new Set(this.#registry.list().map(({ id }) => String(id)));
    return this.#redis.keys().filter((key) => {
      const volume = VOLUME_KEY.exec(key)?.[1];
      return volume !== undefined && !live.has(volume);
    }).length;
  }

  #volumeDifference(volume: number, fields: readonly string[]): string | null {
    const record = new Map<string, string>();
    for (let i = 0; i < fields.length; i += 2) record.set(fields[i]!, fields[i + 1]!);
    if (!isSame(this.#redis.hash(recordKey(volume)), record)) return "its record differs";
    const buckets = new Map<string, Map<string, string>>();
    this.#store.inventory(volume, (layer, extent) => {
      const key = bucketKey(volume, bucketOf(layer, extent));
      const bucket = buckets.get(key) ?? new Map<string, string>();
      buckets.set(key, bucket.set(String(extent), NODE_ID));
    });
    for (const [key, bucket] of buckets) {
      if (!isSame(this.#redis.hash(key), bucket)) return `its extents in ${key} differ`;
    }
    const prefix = bucketKey(volume, "");
    const surplus = this.#redis.keys().find((key) => key.startsWith(prefix) && !buckets.has(key));
    return surplus === undefined ? null : `${surplus} lists extents that are not there`;
  }
}

/** Lets the run go on meanwhile. */
export interface Waiter {
  readonly coverage: Coverage;
  until(condition: () => boolean, what: string): Promise<void>;
  /** Lets time pass, while there is something to happen. */
  wait(us: number): Promise<void>;
}

/** Once Redis is well it comes to equal the truth, and stays equal; the same after one loss more. */
export async function checkMirror(mirror: SimMirror, redis: SimRedis, waiter: Waiter): Promise<void> {
  waiter.coverage.count("redis:compared");
  await untilMirrored(mirror, waiter);
  await waiter.wait(MIRROR_IDLE_US);
  const difference = mirror.difference();
  if (difference !== null) throw new Violation("I20", `Redis was equal, but now ${difference}`);
  redis.lose();
  await untilMirrored(mirror, waiter);
  waiter.coverage.count("redis:orphan-keys", mirror.orphans());
}

async function untilMirrored(mirror: SimMirror, waiter: Waiter): Promise<void> {
  try {
    await waiter.until(() => mirror.difference() === null, "Redis to be equal");
  } catch (error) {
    if (!(error instanceof Violation) || error.invariant !== "I23") throw error;
    Violation.raised = null;
    throw new Violation("I20", `Redis (${mirror.state}) is well, but ${mirror.difference()}`, error);
  }
}

function isSame(found: ReadonlyMap<string, string>, wanted: ReadonlyMap<string, string>): boolean {
  if (found.size !== wanted.size) return false;
  for (const [key, value] of wanted) if (found.get(key) !== value) return false;
  return true;
}
