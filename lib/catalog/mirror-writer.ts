/**
 * Writes of the mirror over one connection. Stateless but for the numbering of stamps: what Redis is
 * expected to hold is in the tracks, and every script checks it first.
 */
import type { VolumeRecord } from "../replica/record.js";
import type { MirrorSource } from "./api.js";
import { STEP_TIMEOUT_MS } from "./connection.js";
import { ExtentIndex } from "./extent-index.js";
import {
  bucketKey,
  bucketOf,
  bucketsKey,
  IDENTITY_KEY,
  layerOfBucket,
  NAMES_KEY,
  recordKey,
  stampKey,
  VOLUMES_KEY,
} from "./keys.js";
import type { MirrorClient } from "./mirror-client.js";
import { STALE } from "./scripts.js";
import { type MirrorClock, withDeadline } from "./timing.js";
import { extentOf, layerOf, type VolumeTrack } from "./volume-track.js";

/** Buckets that are read or written in one round trip: bounds memory and the time of one step. */
const BUCKETS_PER_STEP = 64;

/** Redis does not hold what was written last: it lost something, or got it back. */
export class StaleError extends Error {
  override readonly name = "StaleError";
}

interface BucketChange {
  /** Empty it first. */
  readonly replace: boolean;
  readonly value: string;
  readonly sets: readonly string[];
  readonly deletes: readonly string[];
}

export class MirrorWriter {
  readonly #client: MirrorClient;
  readonly #source: MirrorSource;
  readonly #session: string;
  readonly #clock: MirrorClock;
  #stamps = 0;
  #serial = 0;

  /** `session` is unique to this connection: a late command of any other finds stamps it does not expect. */
  constructor(client: MirrorClient, source: MirrorSource, session: string, clock: MirrorClock) {
    this.#client = client;
    this.#source = source;
    this.#session = session;
    this.#clock = clock;
  }

  get identity(): readonly [store: string, session: string, serial: string] {
    return [this.#source.storeId, this.#session, String(this.#serial)];
  }

  /**
   * Writes the list of volumes. Done before a new volume's keys are written and after an old one's are gone,
   * so that it always covers all keys there are.
   */
  async putCatalogue(records: readonly VolumeRecord[]): Promise<void> {
    const [store, session, serial] = this.identity;
    this.#serial++;
    const pairs = records.flatMap((record) => [String(record.id), record.name]);
    const keys = [IDENTITY_KEY, VOLUMES_KEY, NAMES_KEY];
    const next = String(this.#serial);
    await this.#script(
      this.#client.laminaPutCatalogue(...keys, store, session, serial, next, ...pairs),
      "catalogue",
    );
  }

  /** Makes Redis equal to the truth for one volume, writing only what differs. Returns changed buckets. */
  async rebuild(track: VolumeTrack, record: VolumeRecord): Promise<number> {
    const { volume } = track;
    const index = new ExtentIndex((visit) => this.#source.inventory(volume, visit));
    const first = this.#nextStamp();
    // From here on changes are remembered; they come after what the index has just taken.
    track.stamp = first;
    await this.#within(this.#client.set(stampKey(volume), first));
    const there = await this.#within(this.#client.smembers(bucketsKey(volume)));
    const names = [...new Set([...index.bucketNames(), ...there])];
    let changed = 0;
    for (let at = 0; at < names.length; at += BUCKETS_PER_STEP) {
      changed += await this.#mend(track, index, names.slice(at, at + BUCKETS_PER_STEP));
    }
    await this.putRecord(track, record);
    return changed;
  }

  /** Compares a few buckets with the truth and replaces those that differ. */
  async #mend(track: VolumeTrack, index: ExtentIndex, names: readonly string[]): Promise<number> {
    const found = await this.#within(
      Promise.all(names.map((name) => this.#client.hgetall(bucketKey(track.volume, name)))),
    );
    const writes: Promise<void>[] = [];
    names.forEach((name, i) => {
      const wanted = index.fields(name);
      if (!this.#isEqual(track.volume, name, found[i]!, wanted))
        writes.push(...this.#changeBucket(track, name, true, wanted, []));
    });
    await Promise.all(writes);
    return writes.length;
  }

  #isEqual(
    volume: number,
    name: string,
    found: Readonly<Record<string, string>>,
    wanted: readonly string[],
  ): boolean {
    if (Object.keys(found).length !== wanted.length) return false;
    return wanted.every((field) => found[field] === this.#valueOf(volume, name, field));
  }

  async putRecord(track: VolumeTrack, record: VolumeRecord): Promise<void> {
    const { stamp, volume } = track;
    const next = this.#advance(track);
    const keys = [stampKey(volume), recordKey(volume)];
    await this.#script(
      this.#client.laminaPutRecord(
        ...keys,
        stamp ?? "",
        next,
        ...recordFields(record),
        ...(this.#source.fields?.(record) ?? []),
      ),
      record.name,
    );
    track.recordVersion = record.version;
  }

  /** Writes the extent changes that were remembered. */
  async applyChanges(track: VolumeTrack): Promise<void> {
    const buckets = new Map<string, { sets: string[]; deletes: string[] }>();
    for (const [change, exists] of track.takeChanges()) {
      const name = bucketOf(layerOf(change), extentOf(change));
      let bucket = buckets.get(name);
      if (bucket === undefined) {
        bucket = { sets: [], deletes: [] };
        buckets.set(name, bucket);
      }
      (exists ? bucket.sets : bucket.deletes).push(String(extentOf(change)));
    }
    const all = [...buckets];
    for (let at = 0; at < all.length; at += BUCKETS_PER_STEP) {
      const step = all.slice(at, at + BUCKETS_PER_STEP);
      await Promise.all(
        step.flatMap(([name, { sets, deletes }]) => this.#changeBucket(track, name, false, sets, deletes)),
      );
    }
  }

  /** Removes every key of a volume, the list of its buckets last, so that an interrupted removal can go on. */
  async drop(volume: number): Promise<void> {
    await this.#within(this.#client.unlink(stampKey(volume), recordKey(volume)));
    const names = await this.#within(this.#client.smembers(bucketsKey(volume)));
    for (let at = 0; at < names.length; at += BUCKETS_PER_STEP) {
      const keys = names.slice(at, at + BUCKETS_PER_STEP).map((name) => bucketKey(volume, name));
      await this.#within(this.#client.unlink(...keys));
    }
    await this.#within(this.#client.unlink(bucketsKey(volume)));
  }

  /** Extents that have the same value are set together, in one script each, one behind the other. */
  #changeBucket(
    track: VolumeTrack,
    name: string,
    replace: boolean,
    sets: readonly string[],
    deletes: readonly string[],
  ): Promise<void>[] {
    const byValue = new Map<string, string[]>();
    for (const field of sets) {
      const value = this.#valueOf(track.volume, name, field);
      const alike = byValue.get(value);
      if (alike === undefined) byValue.set(value, [field]);
      else alike.push(field);
    }
    const [first = [this.#source.nodeId, []] as const, ...others] = byValue;
    return [
      this.#writeBucket(track, name, { replace, value: first[0], sets: first[1], deletes }),
      ...others.map(([value, alike]) =>
        this.#writeBucket(track, name, { replace: false, value, sets: alike, deletes: [] }),
      ),
    ];
  }

  #valueOf(volume: number, name: string, field: string): string {
    const { holders, nodeId } = this.#source;
    return holders === undefined
      ? nodeId
      : holders.call(this.#source, volume, layerOfBucket(name), Number(field));
  }

  async #writeBucket(track: VolumeTrack, name: string, { replace, value, sets, deletes }: BucketChange) {
    const { stamp, volume } = track;
    const next = this.#advance(track);
    const keys = [stampKey(volume), bucketsKey(volume), bucketKey(volume, name)];
    const head = [stamp ?? "", next, name, replace ? "1" : "0", value, String(sets.length)];
    await this.#script(
      this.#client.laminaChangeBucket(...keys, ...head, ...sets, ...deletes),
      `volume ${volume}`,
    );
  }

  #advance(track: VolumeTrack): string {
    const next = this.#nextStamp();
    track.stamp = next;
    return next;
  }

  #nextStamp(): string {
    this.#stamps++;
    return `${this.#session}:${this.#stamps}`;
  }

  #within<T>(answer: Promise<T>): Promise<T> {
    return withDeadline(answer, STEP_TIMEOUT_MS, this.#clock);
  }

  async #script(answer: Promise<unknown>, what: string): Promise<void> {
    if ((await this.#within(answer)) === STALE) {
      throw new StaleError(`Redis has another state of ${what}`);
    }
  }
}

/** The fields of `lamina:{v<id>}:record`, flat. Numbers in decimal, lists and objects as JSON. */
export function recordFields(record: VolumeRecord): string[] {
  const fields: Record<string, string> = {
    id: String(record.id),
    name: record.name,
    size: String(record.size),
    description: record.description,
    readOnly: record.readOnly ? "1" : "0",
    policy: JSON.stringify(record.policy),
    access: JSON.stringify(record.access),
    epoch: String(record.epoch),
    generation: String(record.generation),
    version: String(record.version),
    createdAt: String(record.createdAt),
    state: record.state,
  };
  return Object.entries(fields).flat();
}
