/** Where the admin API and the metrics get what they show. The composition root provides it. */

import type { TlsMode } from "nbd-protocol-ts";
import type { MirrorStatus } from "../catalog/api.js";
import type { EventLog } from "../catalog/events.js";
import type { BadBlock, StoreStats } from "../store/api.js";
import type { EngineKind, EngineStats } from "../uring/api.js";
import type { VolumeRegistry } from "../volume/registry-api.js";

/** What the resources of volumes and events need. */
export interface VolumeSources {
  readonly registry: VolumeRegistry;
  readonly store: {
    stats(): Pick<StoreStats, "slotBytes">;
    badBlocks(volume: number): readonly BadBlock[];
  };
  readonly events: EventLog;
  readonly server: Pick<ServerFacts, "accessListsRequired">;
}

export interface AdminSources {
  readonly registry: VolumeRegistry;
  readonly store: AdminStore;
  readonly events: EventLog;
  readonly server: ServerFacts;
  /** Compared with Redis at the moment of asking, as far as it answers at once. */
  mirror(): Promise<MirrorStatus>;
  /** The same as last known; for a scrape. */
  mirrorNow(): MirrorStatus;
  gateway(): GatewayNumbers;
  /** Connection threads; empty when one thread does everything. */
  threads?(): readonly ThreadNumbers[];
  scrub(): ScrubTimes;
  /** Left out: this server cannot be replaced. */
  readonly replacement?: Replacement;
  engine(): EngineStats;
  pool(): { readonly capacityBytes: number; readonly freeBytes: number };
}

/** Another process takes over from this one. */
export interface Replacement {
  /** Sends the listening sockets to process `pid`; the answer says what it has to know. Throws REPLACE_REFUSED. */
  offer(pid: number): unknown;
  /** Has this process end for it. Throws REPLACE_REFUSED. */
  commit(pid: number): void;
}

export interface AdminStore {
  stats(): StoreStats;
  badBlocks(volume: number): readonly BadBlock[];
  startScrub(pace: number): void;
}

/** One connection thread. */
export interface ThreadNumbers {
  readonly connections: number;
  /** Requests answered. */
  readonly requests: number;
}

/** Wall clock. */
export interface ScrubTimes {
  /** Null when none has ended yet. */
  readonly lastEndedAt: number | null;
  readonly nextAt: number;
}

/** What does not change while the server runs. */
export interface ServerFacts {
  readonly version: string;
  readonly pid: number;
  /** Wall clock. */
  readonly startedAt: number;
  readonly data: string;
  readonly ioEngine: EngineKind;
  /** Why io_uring is not used; null when it is, or was not wanted. */
  readonly ioFallbackReason: string | null;
  readonly device: {
    readonly path: string;
    readonly kind: "file" | "block";
    readonly direct: boolean;
    readonly sizeBytes: number;
  };
  /** NBD URIs of the listeners. */
  readonly listeners: () => readonly string[];
  readonly tls: TlsMode;
  /** Volumes without an access list are not allowed here. */
  readonly accessListsRequired: boolean;
  /** Not yet, or not any more: why, in one sentence. Null while everything is served. */
  readonly notReady: () => string | null;
}

/** Counters of the gateway: rows of the arrays are NBD command numbers, the last row is everything else. */
export interface GatewayNumbers {
  readonly connections: number;
  readonly handshakes: number;
  readonly requestsInFlight: number;
  readonly requests: Float64Array;
  readonly errors: Float64Array;
  readonly bytes: Float64Array;
  /** Row by row: requests of less than 2^i microseconds that were not less than 2^(i−1). */
  readonly latency: Float64Array;
  /** Microseconds. */
  readonly latencySum: Float64Array;
  /** Plain counters, exported as lamina_gateway_<name>_total. */
  readonly counters: Readonly<Record<string, number>>;
}
