/** JSON resources: what the API answers. Sizes are bytes, times ISO 8601. */

import type { TlsMode } from "nbd-protocol-ts";
import type { MirrorStatus } from "../catalog/api.js";
import type { LaminaEvent } from "../catalog/events.js";
import { BLOCK_BYTES } from "../core/limits.js";
import type { VolumeRecord } from "../replica/record.js";
import type { StoreStats } from "../store/api.js";
import { layoutOf } from "../volume/layout.js";
import type { VolumeUsage } from "../volume/registry-api.js";
import type { AdminSources, ScrubTimes, ThreadNumbers, VolumeSources } from "./api.js";

/** Bad blocks that `volume show` lists; the newest are kept. */
const BAD_BLOCKS_SHOWN = 1000;

export interface VolumeView {
  readonly id: number;
  readonly name: string;
  readonly size: number;
  readonly description: string;
  readonly readOnly: boolean;
  readonly replicas: number;
  readonly minReplicas: number;
  readonly stripeCount: number;
  readonly stripeUnit: number;
  readonly onFull: "wait" | "enospc";
  readonly access: VolumeRecord["access"];
  readonly createdAt: string;
  readonly version: number;
  readonly usage: {
    readonly extents: number;
    readonly bytes: number;
    readonly connections: number;
    readonly badBlocks: number;
  };
}

export interface BadBlockView {
  readonly layer: number;
  readonly extent: number;
  readonly block: number;
  /** Byte of the volume at which the block begins; it is 4096 bytes long. */
  readonly offset: number;
  readonly foundAt: string;
}

export type VolumeDetailView = VolumeView & { readonly badBlocks: readonly BadBlockView[] };

export interface EventView {
  readonly id: string;
  readonly at: string;
  readonly kind: string;
  readonly volume: string | null;
  readonly text: string;
}

export interface MirrorView {
  readonly state: MirrorStatus["state"];
  readonly redis: string | null;
  readonly reason: string | null;
  readonly since: string;
  readonly mirroredAt: string | null;
  readonly pending: number;
  readonly rebuilds: number;
  readonly failures: number;
}

export interface StoreView {
  readonly capacityBytes: number;
  readonly freeBytes: number;
  readonly usedBytes: number;
  readonly freeingBytes: number;
  readonly stats: StoreStats;
}

/** What every process that serves says of itself. */
export interface ProcessView {
  readonly version: string;
  readonly pid: number;
  readonly startedAt: string;
  readonly data: string;
  readonly ready: boolean;
  /** What is wrong or waited for, one sentence each; empty when all is well. */
  readonly notices: readonly string[];
  readonly listeners: readonly string[];
}

export interface StatusView extends ProcessView {
  /** NOTLS, SELECTIVETLS or FORCEDTLS of the protocol. */
  readonly tls: TlsMode;
  readonly io: { readonly engine: string; readonly fallbackReason: string | null };
  readonly device: {
    readonly path: string;
    readonly kind: string;
    readonly direct: boolean;
    readonly sizeBytes: number;
  };
  readonly store: StoreView;
  readonly scrub: { readonly running: boolean; readonly lastEndedAt: string | null; readonly nextAt: string };
  readonly mirror: MirrorView;
  readonly volumes: number;
  readonly gateway: {
    readonly connections: number;
    readonly requestsInFlight: number;
    /** Connection threads; empty when one thread does everything. */
    readonly threads: readonly ThreadNumbers[];
  };
  readonly pool: { readonly capacityBytes: number; readonly freeBytes: number };
}

export function volumeView(record: VolumeRecord, usage: VolumeUsage): VolumeView {
  const { id, name, size, description, readOnly, policy, access, version } = record;
  return {
    id,
    name,
    size,
    description,
    readOnly,
    ...policy,
    access,
    createdAt: iso(record.createdAt),
    version,
    usage: {
      extents: usage.extents,
      bytes: usage.slotBytes,
      connections: usage.connections,
      badBlocks: usage.badBlocks,
    },
  };
}

export function volumeDetailView(record: VolumeRecord, sources: VolumeSources): VolumeDetailView {
  const bad = sources.store.badBlocks(record.id).slice(-BAD_BLOCKS_SHOWN);
  const layout = layoutOf(sources.store.stats().slotBytes / BLOCK_BYTES, record.policy);
  return {
    ...volumeView(record, sources.registry.usage(record.id)),
    badBlocks: bad.map(({ layer, extent, block, foundAt }) => ({
      layer,
      extent,
      block,
      offset: layout.volumeBlockOf(extent, block) * BLOCK_BYTES,
      foundAt: iso(foundAt),
    })),
  };
}

export function eventView(event: LaminaEvent): EventView {
  return { id: event.id, at: iso(event.at), kind: event.kind, volume: event.volume, text: event.text };
}

export function storeView(stats: StoreStats): StoreView {
  const { slotBytes } = stats;
  return {
    capacityBytes: stats.slots * slotBytes,
    freeBytes: stats.freeSlots * slotBytes,
    usedBytes: stats.liveSlots * slotBytes,
    freeingBytes: stats.freeingSlots * slotBytes,
    stats,
  };
}

export function viewMirror(mirror: MirrorStatus): MirrorView {
  const { since, mirroredAt } = mirror;
  return { ...mirror, since: iso(since), mirroredAt: mirroredAt === 0 ? null : iso(mirroredAt) };
}

/** Null: the mirror needs nobody. */
export function mirrorNotice({ state, since, reason }: MirrorStatus): string | null {
  if (state !== "down" && state !== "refused") return null;
  return `the mirror in Redis is ${state} since ${iso(since)}: ${reason}`;
}

export function statusView(sources: AdminSources, mirror: MirrorStatus): StatusView {
  const { server } = sources;
  const stats = sources.store.stats();
  const gateway = sources.gateway();
  return {
    version: server.version,
    pid: server.pid,
    startedAt: iso(server.startedAt),
    data: server.data,
    ready: notReadyReason(sources) === null,
    notices: notices(sources, stats, mirror),
    listeners: server.listeners(),
    tls: server.tls,
    io: { engine: server.ioEngine, fallbackReason: server.ioFallbackReason },
    device: server.device,
    store: storeView(stats),
    scrub: viewScrub(sources.scrub(), stats.scrub.running),
    mirror: viewMirror(mirror),
    volumes: sources.registry.list().length,
    gateway: {
      connections: gateway.connections,
      requestsInFlight: gateway.requestsInFlight,
      threads: sources.threads?.().map(({ connections, requests }) => ({ connections, requests })) ?? [],
    },
    pool: sources.pool(),
  };
}

export function viewScrub({ lastEndedAt, nextAt }: ScrubTimes, running: boolean): StatusView["scrub"] {
  return {
    running,
    lastEndedAt: lastEndedAt === null ? null : iso(lastEndedAt),
    nextAt: iso(nextAt),
  };
}

/** Why /healthz is not 200; null when it is. */
export function notReadyReason(sources: AdminSources): string | null {
  const { failed } = sources.store.stats();
  return sources.server.notReady() ?? (failed === null ? null : `the device has failed: ${failed}`);
}

function notices(sources: AdminSources, stats: StoreStats, mirror: MirrorStatus): string[] {
  const { server } = sources;
  const list: (string | null)[] = [
    notReadyReason(sources),
    server.ioFallbackReason === null ? null : `io_uring is not used: ${server.ioFallbackReason}`,
    server.device.direct ? null : `${server.device.path} refuses O_DIRECT: I/O goes through the page cache`,
    stats.waitingForSpace === 0 ? null : `${stats.waitingForSpace} write(s) wait: the device is full`,
    stats.lossy ? "the device lost power without a clean shutdown and is being settled" : null,
    stats.bitRotBlocks === 0 ? null : `${stats.bitRotBlocks} block(s) are damaged: see lamina volume show`,
    mirrorNotice(mirror),
  ];
  return list.filter((notice) => notice !== null);
}

function iso(wall: number): string {
  return new Date(wall).toISOString();
}
