/** What nodes and gateways have in common: how they start, what they answer, how they end. */
import { randomInt } from "node:crypto";
import type { Logger } from "pino";
import { type Admin, type AdminFace, answering, type Route, startAdminOf } from "../../admin/index.js";
import type { EventLog } from "../../catalog/index.js";
import type { NodePlace } from "../../cluster/dial.js";
import type { ClusterKey } from "../../cluster/key.js";
import type { PeerId } from "../../replica/api.js";
import { addressText } from "../../uring/address.js";
import type { Engine } from "../../uring/api.js";
import type { Parts } from "../serve/parts.js";
import type { RoleOptions } from "./options.js";
import type { ClusterView, RoleStatusView } from "./views.js";

/** A process of a cluster that serves. */
export interface Role {
  /** What it prints when it is ready, a line each. */
  readonly ready: readonly string[];
  close(): Promise<void>;
}

/** Random, of this life of the process: nobody else has it. */
export function newPeer(): PeerId {
  return 1 + randomInt(2 ** 32) * 2 ** 15 + randomInt(2 ** 15);
}

export interface RoleSources {
  status(): RoleStatusView;
  cluster(): Promise<ClusterView>;
}

const ROLE_ROUTES: readonly Route<RoleSources>[] = [
  { method: "GET", path: "/v1/status", handle: (role) => ({ status: 200, body: role.status() }) },
  {
    method: "GET",
    path: "/v1/cluster",
    handle: async (role) => ({ status: 200, body: await role.cluster() }),
  },
];

export interface RoleAdmin<Sources extends RoleSources> {
  readonly options: RoleOptions;
  readonly events: EventLog;
  readonly sources: Sources;
  /** Beside its own. */
  readonly routes: readonly Route<Sources>[];
  /** Plain gauges by name, exported as lamina_<name>. */
  readonly gauges: () => Readonly<Record<string, number>>;
  readonly log: Logger;
}

export async function startRoleAdmin<Sources extends RoleSources>(
  { options, events, sources, routes, gauges, log }: RoleAdmin<Sources>,
  parts: Parts,
): Promise<Admin> {
  const all: readonly Route<Sources>[] = [...ROLE_ROUTES, ...routes];
  const face: AdminFace = {
    events,
    notReady: () => (sources.status().ready ? null : (sources.status().notices[0] ?? "it is starting")),
    metrics: {
      contentType: "text/plain; version=0.0.4; charset=utf-8",
      text: () => Promise.resolve(metricsText(gauges())),
      close: () => undefined,
    },
    route: (method, path) => answering(all, sources, method, path),
  };
  const { host, port } = options.admin;
  const admin = await startAdminOf(face, {
    directory: options.data,
    host,
    port,
    onError: (error) => log.error({ err: error }, "an admin request failed"),
  });
  parts.add(() => admin.close());
  return admin;
}

function metricsText(gauges: Readonly<Record<string, number>>): string {
  return Object.entries(gauges)
    .map(([name, value]) => `# TYPE lamina_${name} gauge\nlamina_${name} ${value}\n`)
    .join("");
}

/** Links of a process to the config nodes, for its status. */
export function viewLinks(
  config: readonly NodePlace[],
  isLinked: (place: NodePlace) => boolean,
): RoleStatusView["links"] {
  return config.map((place) => ({
    node: place.node,
    address: addressText(place.address),
    linked: isLinked(place),
  }));
}

export function clusterIdText(key: ClusterKey): string {
  return Buffer.from(key.cluster).toString("hex");
}

/** Said once when the engine is not the one that was hoped for. */
export function warnOfEngine(engine: Engine, events: EventLog, log: Logger): void {
  if (engine.fallbackReason === null) return;
  log.warn(engine.fallbackReason);
  events.record("io-engine-fallback", null, engine.fallbackReason);
}
