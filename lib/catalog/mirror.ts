/**
 * The mirror: keeps Redis equal to the volume records and the extent index, behind the writes.
 *
 * Invariants
 *  1. Nothing here is awaited by I/O or by a control operation, and nothing read from Redis is ever used for
 *     anything but finding out what to write (DESIGN invariant 20).
 *  2. Once the state is "mirrored", Redis equals the truth; whatever Redis loses or gets back afterwards is
 *     found by its stamp, at the next write or the next check, and written anew.
 *  3. Memory is bounded: at PENDING_MAX remembered changes a volume is marked to be written anew instead.
 *  4. A Redis that mirrors another store is never written to.
 *  5. Of several gateways of a cluster one writes records and index; the others take that over when it has stood still
 *     for STANDBY_MS. What the former one still sends finds stamps that it does not expect.
 */
import { randomBytes } from "node:crypto";
import { LaminaError } from "../core/errors.js";
import type { VolumeRecord } from "../replica/record.js";
import type { MirrorSource, MirrorState, MirrorStatus } from "./api.js";
import { connectRedis, reasonOf, STEP_TIMEOUT_MS } from "./connection.js";
import type { EventLog, LaminaEvent } from "./events.js";
import {
  CURSORS_KEY,
  EVENTS_KEPT,
  EVENTS_KEY,
  IDENTITY_KEY,
  NODES_KEY,
  SCHEMA_VERSION,
  stampKey,
  VOLUMES_KEY,
} from "./keys.js";
import type { MirrorClient } from "./mirror-client.js";
import { MirrorWriter, StaleError } from "./mirror-writer.js";
import { HELD, STALE } from "./scripts.js";
import { type MirrorClock, sleep, systemClock, withDeadline } from "./timing.js";
import { describeTarget, type RedisTarget } from "./url.js";
import { VolumeTrack } from "./volume-track.js";

/** Extent changes remembered over all volumes. */
const PENDING_MAX = 65_536;
/** Changes gather this long before they are written. */
const GATHER_MS = 20;
/** An idle mirror compares its stamps this often. */
const CHECK_MS = 2000;
/** Buckets are compared one by one this often, against what no stamp shows (a key deleted by hand). */
const DEEP_CHECK_MS = 3_600_000;
/** `status` waits this long for a comparison. */
const REFRESH_MS = 500;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 2000;
/** A Redis that is refused is asked again this often: an operator may have mended it. */
const REFUSED_RETRY_MS = 10_000;

/** Another gateway that mirrors and has said nothing for so long is taken for gone. Many times CHECK_MS. */
const STANDBY_MS = 10_000;
/** A gateway that writes for long says in between that it goes on. */
const BEAT_MS = 1000;

/** A session is named at random. */
const SESSION_BYTES = 8;

const NO_EVENT = "0-0";

export interface MirrorOptions {
  readonly target: RedisTarget;
  readonly source: MirrorSource;
  readonly events: EventLog;
  /** Milliseconds since 1970. */
  readonly wall: () => number;
  /** For tests and the simulator. */
  readonly connect?: (target: RedisTarget) => Promise<MirrorClient>;
  readonly clock?: MirrorClock;
  readonly session?: () => string;
  readonly checkMs?: number;
  readonly pendingMax?: number;
  readonly standbyMs?: number;
  /** Of several gateways that mirror the same cluster: its name, the same in each of its lives. */
  readonly gateway?: string;
  /** Brings the source up to date before it is written anew. */
  readonly prepare?: () => Promise<void>;
}

export class Mirror {
  readonly #options: MirrorOptions;
  readonly #redis: string;
  readonly #clock: MirrorClock;
  readonly #tracks = new Map<number, VolumeTrack>();
  /** Volumes whose keys must go: removed here, or known to Redis only. */
  readonly #surplus = new Set<number>();
  /** What the list of volumes in Redis looks like; null when it must be written. */
  #catalogue: string | null = null;
  #eventId: string | null = null;
  #beatAt = Number.NEGATIVE_INFINITY;
  #pending = 0;
  #state: MirrorState = "connecting";
  #reason: string | null = null;
  #since: number;
  #mirroredAt = 0;
  #rebuilds = 0;
  #failures = 0;
  #deepCheckedAt = 0;
  /** Checks that somebody asked for: wanted, and done. */
  #checkAsked = false;
  /** A volume's keys were not what they should be: the list of volumes may be gone too. */
  #checkNeeded = false;
  #checks = 0;
  #closed = false;
  #dirty = true;
  #wake: (() => void) | null = null;
  #client: MirrorClient | null = null;
  #running: Promise<void> | null = null;

  constructor(options: MirrorOptions) {
    this.#options = options;
    this.#redis = describeTarget(options.target);
    this.#clock = options.clock ?? systemClock;
    this.#since = options.wall();
  }

  start(): void {
    this.#options.events.subscribe(() => this.#touch());
    this.#running ??= this.#run();
  }

  /** A record was created, changed or removed. Never waits. */
  recordsChanged(): void {
    this.#touch();
  }

  /** An extent appeared or went. Called by the store while it serves requests: a map entry at most. */
  extentChanged(volume: number, layer: number, extent: number, exists: boolean): void {
    const track = this.#tracks.get(volume);
    if (track === undefined) return;
    this.#pending += track.note(layer, extent, exists);
    if (this.#pending > (this.#options.pendingMax ?? PENDING_MAX)) this.#pending -= track.makeStale();
    this.#touch();
  }

  /** Compares with Redis now instead of at the next turn, and waits for the outcome at most `waitMs`. */
  async refresh(waitMs: number = REFRESH_MS): Promise<MirrorStatus> {
    if (this.#state === "mirrored" || this.#state === "behind") {
      const asked = this.#checks;
      this.#checkAsked = true;
      this.#touch();
      const end = this.#clock.now() + waitMs;
      // The check that is under way may have begun before we were asked: the one after it counts.
      while (this.#checks < asked + 1 && !this.#closed && this.#clock.now() < end)
        await sleep(5, this.#clock);
    }
    return this.status();
  }

  status(): MirrorStatus {
    return {
      state: this.#state === "mirrored" && this.#dirty ? "behind" : this.#state,
      redis: this.#redis,
      reason: this.#reason,
      since: this.#since,
      mirroredAt: this.#mirroredAt,
      pending: this.#pending,
      rebuilds: this.#rebuilds,
      failures: this.#failures,
    };
  }

  /** Tries once to write what is left, at most `graceMs` long, then ends the connection. */
  async close(graceMs: number = 1000): Promise<void> {
    if (this.#state === "behind" || (this.#dirty && this.#state === "mirrored")) {
      await withDeadline(this.#settled(), graceMs, this.#clock).catch(() => {});
    }
    this.#closed = true;
    this.#wake?.();
    if (this.#client !== null) this.#client.disconnect();
    await this.#running;
  }

  async #settled(): Promise<void> {
    while (this.#state === "behind" || this.#state === "mirrored") {
      if (this.#state === "mirrored" && !this.#dirty) return;
      await sleep(10, this.#clock);
    }
  }

  async #run(): Promise<void> {
    let retryMs = RETRY_FIRST_MS;
    while (!this.#closed) {
      const reachedAt = this.#mirroredAt;
      try {
        this.#client = await (this.#options.connect ?? connectRedis)(this.#options.target);
        await this.#follow(this.#client);
      } catch (error) {
        if (!this.#closed) this.#fail(error);
      }
      if (this.#client !== null) this.#client.disconnect();
      this.#client = null;
      if (this.#mirroredAt !== reachedAt) retryMs = RETRY_FIRST_MS;
      await this.#pause(this.#state === "refused" ? REFUSED_RETRY_MS : retryMs);
      retryMs = Math.min(retryMs * 2, RETRY_MAX_MS);
    }
  }

  /** Serves one connection until it fails (throws) or the mirror is closed. */
  async #follow(client: MirrorClient): Promise<void> {
    const session = this.#options.session?.() ?? randomBytes(SESSION_BYTES).toString("hex");
    const writer = new MirrorWriter(client, this.#options.source, session, this.#clock);
    if (!(await this.#claim(client, session))) return;
    await this.#options.prepare?.();
    let checkedAt = Number.NEGATIVE_INFINITY;
    while (!this.#closed) {
      const asked = this.#checkAsked;
      if (asked || this.#checkNeeded || this.#clock.now() - checkedAt >= this.#checkMs) {
        this.#checkAsked = false;
        this.#checkNeeded = false;
        if (!(await this.#check(client, writer))) return;
        checkedAt = this.#clock.now();
      }
      this.#dirty = false;
      await this.#writeAll(client, writer);
      if (asked) this.#checks++;
      if (this.#dirty) continue;
      this.#becomeMirrored();
      await this.#pause(this.#checkMs);
      if (this.#dirty) await sleep(GATHER_MS, this.#clock);
    }
  }

  get #checkMs(): number {
    return this.#options.checkMs ?? CHECK_MS;
  }

  /** False: the mirror was closed first. Throws REDIS_FOREIGN when another store's mirror is there. */
  async #claim(client: MirrorClient, session: string): Promise<boolean> {
    const { storeId } = this.#options.source;
    const what = [IDENTITY_KEY, storeId, SCHEMA_VERSION, session] as const;
    const answer =
      this.#options.gateway === undefined
        ? await withDeadline(client.laminaClaim(...what), STEP_TIMEOUT_MS, this.#clock)
        : await this.#claimShared(client, what);
    if (answer === null) return false;
    if (answer !== "OK") {
      throw new LaminaError("REDIS_FOREIGN", { redis: this.#redis, found: String(answer), own: storeId });
    }
    this.#catalogue = null;
    for (const id of Object.keys(
      await withDeadline(client.hgetall(VOLUMES_KEY), STEP_TIMEOUT_MS, this.#clock),
    )) {
      if (/^\d{1,15}$/.test(id)) this.#surplus.add(Number(id));
    }
    return true;
  }

  /** Waits while another gateway goes on. Null: the mirror was closed. */
  async #claimShared(client: MirrorClient, what: readonly string[]): Promise<unknown> {
    const standbyMs = this.#options.standbyMs ?? STANDBY_MS;
    let seen = "";
    let seenAt = this.#clock.now();
    while (!this.#closed) {
      const stood = this.#clock.now() - seenAt >= standbyMs ? seen : "";
      const answer = await withDeadline(
        client.laminaClaimShared(...what, stood),
        STEP_TIMEOUT_MS,
        this.#clock,
      );
      if (typeof answer !== "string" || !answer.startsWith(HELD)) return answer;
      const held = answer.slice(HELD.length);
      if (held !== seen) seenAt = this.#clock.now();
      seen = held;
      this.#setState("standby", null);
      await this.#writeEvents(client);
      await this.#pause(this.#checkMs);
    }
    return null;
  }

  /** False: another gateway has taken over. */
  async #beat(client: MirrorClient, writer: MirrorWriter): Promise<boolean> {
    if (this.#options.gateway === undefined) return true;
    const [store, session] = writer.identity;
    this.#beatAt = this.#clock.now();
    const answer = await withDeadline(
      client.laminaBeat(IDENTITY_KEY, store, session),
      STEP_TIMEOUT_MS,
      this.#clock,
    );
    return answer !== STALE;
  }

  /** Compares what Redis says with what it was told. False: somebody else or a wipe took the catalogue; claim anew. */
  async #check(client: MirrorClient, writer: MirrorWriter): Promise<boolean> {
    if (!(await this.#beat(client, writer))) {
      this.#setState("rebuilding", null);
      return false;
    }
    const now = this.#options.wall();
    const deep = now - this.#deepCheckedAt >= DEEP_CHECK_MS;
    if (deep) this.#deepCheckedAt = now;
    const tracks = [...this.#tracks.values()].filter((track) => track.stamp !== null);
    const [identity, stamps] = await withDeadline(
      Promise.all([
        client.hmget(IDENTITY_KEY, "store", "session", "serial"),
        Promise.all(tracks.map((track) => client.get(stampKey(track.volume)))),
      ]),
      STEP_TIMEOUT_MS,
      this.#clock,
    );
    tracks.forEach((track, i) => {
      const lost = stamps[i] !== track.stamp;
      if (lost && this.#state === "mirrored") this.#setState("rebuilding", null);
      if (lost || deep) this.#makeStale(track);
    });
    await this.#checkNodes(client);
    if (this.#options.gateway === undefined) await this.#checkEvents(client);
    const own = writer.identity;
    if (identity.every((value, i) => value === own[i])) return true;
    this.#setState("rebuilding", null);
    return false;
  }

  async #checkNodes(client: MirrorClient): Promise<void> {
    const { source } = this.#options;
    const nodes = source.nodes?.() ?? new Map([[source.nodeId, source.node()]]);
    const found = await withDeadline(client.hgetall(NODES_KEY), STEP_TIMEOUT_MS, this.#clock);
    for (const [name, facts] of nodes) {
      const wanted = JSON.stringify(facts);
      if (found[name] === wanted) continue;
      await withDeadline(client.hset(NODES_KEY, name, wanted), STEP_TIMEOUT_MS, this.#clock);
    }
    if (source.nodes === undefined) return;
    for (const name of Object.keys(found)) {
      if (!nodes.has(name)) await withDeadline(client.hdel(NODES_KEY, name), STEP_TIMEOUT_MS, this.#clock);
    }
  }

  /** The stream ends where this finds it: it may have lost its end, or all of it. */
  async #checkEvents(client: MirrorClient): Promise<void> {
    const last = await withDeadline(
      client.xrevrange(EVENTS_KEY, "+", "-", "COUNT", 1),
      STEP_TIMEOUT_MS,
      this.#clock,
    );
    const found = last[0]?.[0] ?? NO_EVENT;
    if (this.#eventId === null) this.#options.events.raiseFloor(found);
    this.#eventId = found;
  }

  async #writeAll(client: MirrorClient, writer: MirrorWriter): Promise<void> {
    const records = this.#options.source.records();
    this.#adoptRecords(records);
    try {
      for (const volume of this.#surplus) {
        await writer.drop(volume);
        this.#surplus.delete(volume);
      }
      await this.#writeCatalogue(writer, records);
    } catch (error) {
      this.#catalogue = null;
      if (error instanceof StaleError) throw new Error("Redis lost the list of volumes", { cause: error });
      throw error;
    }
    for (const record of records) {
      if (this.#clock.now() - this.#beatAt >= BEAT_MS && !(await this.#beat(client, writer)))
        this.#checkNeeded = true;
      else await this.#writeVolume(writer, record);
      // No keys are written that no list covers.
      if (this.#checkNeeded) return;
    }
    await this.#writeEvents(client);
  }

  /** Brings the tracks in line with the records there are now. */
  #adoptRecords(records: readonly VolumeRecord[]): void {
    const live = new Set<number>();
    for (const record of records) {
      live.add(record.id);
      this.#surplus.delete(record.id);
      if (!this.#tracks.has(record.id)) this.#tracks.set(record.id, new VolumeTrack(record.id));
    }
    for (const track of this.#tracks.values()) {
      if (live.has(track.volume)) continue;
      this.#makeStale(track);
      this.#tracks.delete(track.volume);
      this.#surplus.add(track.volume);
    }
  }

  async #writeCatalogue(writer: MirrorWriter, records: readonly VolumeRecord[]): Promise<void> {
    const wanted = records.map((record) => `${record.id} ${record.name}`).join("\n");
    if (wanted === this.#catalogue) return;
    this.#becomeBehind();
    await writer.putCatalogue(records);
    this.#catalogue = wanted;
  }

  async #writeVolume(writer: MirrorWriter, record: VolumeRecord): Promise<void> {
    const track = this.#tracks.get(record.id);
    if (track === undefined) return;
    try {
      if (track.stamp === null) {
        this.#becomeBehind();
        const changed = await writer.rebuild(track, record);
        if (changed > 0) this.#rebuilds++;
        return;
      }
      if (track.recordVersion === record.version && track.pending === 0) return;
      this.#becomeBehind();
      if (track.recordVersion !== record.version) await writer.putRecord(track, record);
      this.#pending -= track.pending;
      await writer.applyChanges(track);
    } catch (error) {
      // What of it has arrived is not known: this volume is compared bucket by bucket the next time.
      this.#makeStale(track);
      if (!(error instanceof StaleError)) throw error;
      this.#setState("rebuilding", null);
      this.#checkNeeded = true;
      this.#dirty = true;
    }
  }

  async #writeEvents(client: MirrorClient): Promise<void> {
    const { gateway } = this.#options;
    if (gateway === undefined) await this.#writeOnlyEvents(client);
    else await this.#writeOwnEvents(client, gateway);
  }

  async #writeOwnEvents(client: MirrorClient, gateway: string): Promise<void> {
    const cursor = await withDeadline(client.hget(CURSORS_KEY, gateway), STEP_TIMEOUT_MS, this.#clock);
    const events = this.#options.events.after(cursor ?? NO_EVENT);
    if (events.length === 0) return;
    const keys = [EVENTS_KEY, CURSORS_KEY];
    // Stale: Redis has lost the cursor or got an older one back. The next turn finds that.
    await withDeadline(
      client.laminaAppendOwnEvents(
        ...keys,
        gateway,
        cursor ?? "",
        String(EVENTS_KEPT),
        ...eventFields(events),
      ),
      STEP_TIMEOUT_MS,
      this.#clock,
    );
  }

  async #writeOnlyEvents(client: MirrorClient): Promise<void> {
    const mirrored = this.#eventId;
    if (mirrored === null) return;
    const events = this.#options.events.after(mirrored);
    const last = events.at(-1);
    if (last === undefined) return;
    const answer = await withDeadline(
      client.laminaAppendEvents(EVENTS_KEY, mirrored, String(EVENTS_KEPT), ...eventFields(events)),
      STEP_TIMEOUT_MS,
      this.#clock,
    );
    if (answer === STALE) {
      await this.#checkEvents(client);
      this.#dirty = true;
    } else {
      this.#eventId = last.id;
    }
  }

  #makeStale(track: VolumeTrack): void {
    this.#pending -= track.makeStale();
  }

  #touch(): void {
    this.#dirty = true;
    if (this.#state === "mirrored") this.#wake?.();
  }

  #becomeBehind(): void {
    if (this.#state === "mirrored") this.#setState("behind", null);
  }

  #becomeMirrored(): void {
    const before = this.#state;
    this.#mirroredAt = this.#options.wall();
    this.#setState("mirrored", null);
    if (before === "rebuilding" || before === "down" || before === "refused") {
      this.#options.events.record("mirror-rebuilt", null, `the mirror in ${this.#redis} is complete again`);
    }
  }

  #fail(error: unknown): void {
    this.#failures++;
    const refused = error instanceof LaminaError && error.code !== "REDIS_UNREACHABLE";
    const reason = reasonOf(error);
    const before = this.#state;
    this.#setState(refused ? "refused" : "down", reason);
    if (before === this.#state) return;
    this.#options.events.record(
      refused ? "mirror-refused" : "mirror-lost",
      null,
      `${reason}; volumes are served without the mirror`,
    );
  }

  #setState(state: MirrorState, reason: string | null): void {
    if (state !== this.#state) this.#since = this.#options.wall();
    this.#state = state;
    this.#reason = reason;
  }

  /** Waits, but not past the next change (while there is a connection) or the end. */
  async #pause(ms: number): Promise<void> {
    if (this.#closed || (this.#state === "mirrored" && this.#dirty)) return;
    await new Promise<void>((resolve) => {
      const timer = this.#clock.setTimer(ms, resolve, true);
      this.#wake = () => {
        timer.cancel();
        resolve();
      };
    });
    this.#wake = null;
  }
}

function eventFields(events: readonly LaminaEvent[]): string[] {
  return events.flatMap((event) => [event.id, event.kind, event.volume ?? "", event.text]);
}

/** The mirror's words when there is none. */
export function mirrorOff(since: number): MirrorStatus {
  return {
    state: "off",
    redis: null,
    reason: null,
    since,
    mirroredAt: 0,
    pending: 0,
    rebuilds: 0,
    failures: 0,
  };
}
