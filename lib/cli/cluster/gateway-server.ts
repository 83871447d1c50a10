/** The composition root of `lamina gateway`: NBD listeners over the volumes of a cluster. */
import { hostname } from "node:os";
import type { Logger } from "pino";
import {
  mirrorNotice,
  NODE_ROUTES,
  type NodeControl,
  type Route,
  VOLUME_ROUTES,
  type VolumeSources,
  viewMirror,
} from "../../admin/index.js";
import { type EventLog, mirrorOff } from "../../catalog/index.js";
import type { DialEnvironment } from "../../cluster/dial.js";
import { type GatewaySide, openGatewaySide } from "../../cluster/gateway-side.js";
import type { ClusterKey } from "../../cluster/key.js";
import { learnMembers, readMembers, writeMembers } from "../../cluster/members.js";
import type { OwnedVolume } from "../../cluster/owned-volume.js";
import type { ClusterRegistry } from "../../cluster/registry.js";
import { BLOCK_BYTES, EXTENT_BLOCKS } from "../../core/limits.js";
import { needsTls } from "../../gateway/access.js";
import { createGateway, type Gateway } from "../../gateway/index.js";
import { createTls } from "../../gateway/tls.js";
import { readTlsCredentials } from "../../gateway/tls-credentials.js";
import type { ConfigSet } from "../../replica/config/set.js";
import type { Member } from "../../replica/owner/member.js";
import { type ClusterRecord, seatsOf } from "../../replica/owner/record.js";
import type { Engine } from "../../uring/api.js";
import { nbdUri, tryAddress } from "../serve/listeners.js";
import { checkRedis } from "../serve/redis.js";
import { followRegistry, type Later } from "../serve/story.js";
import { checkTls } from "../serve/tls.js";
import { VERSION } from "../version.js";
import { type ClusterMirror, startClusterMirror } from "./mirror.js";
import type { GatewayOptions } from "./options.js";
import {
  clusterIdText,
  holdData,
  newPeer,
  noteConfig,
  persist,
  type Role,
  type RoleGround,
  type RoleSources,
  reloadLinkTls,
  startRole,
  startRoleAdmin,
  viewLinks,
  viewProcess,
} from "./role.js";
import {
  type CareView,
  type CopyView,
  type GatewayStatusView,
  type OwnedView,
  viewBalance,
  viewCluster,
  viewConfigNodes,
  viewSeats,
} from "./views.js";

/** Throws LaminaError; whatever had been started is taken down then. */
export async function startGateway(options: GatewayOptions, log: Logger): Promise<Role> {
  for (const address of options.listen) {
    if (address.kind === "tcp") await tryAddress(address.host, address.port);
  }
  return startRole(options, log, compose);
}

async function compose(ground: RoleGround<GatewayOptions>): Promise<Role> {
  const { options, log, parts, startedAt, key, engine, events, ciphers, dial, packing } = ground;
  // Clients may still be taking their last replies when the volumes have been let go of.
  let gateway: Gateway | null = null;
  parts.add(() => gateway?.close());
  if (options.tls !== null) checkTls(options.tls, log);
  const data = await holdData(ground);
  const set = await setOf(dial, options, key, log);
  const self = { peer: newPeer(), name: `${hostname()}:${options.data}`, careAfterMs: options.careAfterMs };
  const side = openGatewaySide(ground, set, self, {
    tell: (volume, text) => {
      log.warn({ volume }, text);
      events.record("volume-changed", volume, text);
    },
    configChanged: (changed) => noteConfig(options.data, key, changed, log),
    cared: (kind, volume, text) => {
      log.info({ volume }, text);
      events.record(kind, volume, text);
    },
  });
  parts.add(() => side.close());
  await listed(side, log);
  const later: Later = { mirror: null, registry: side.registry };
  followRegistry(side.registry, events, later);
  const mirrored = await startMirror(ground, side);
  later.mirror = mirrored?.mirror ?? null;
  parts.add(() => mirrored?.close());
  const tls = options.tls === null ? null : createTls(options.tls, ciphers);
  const made = createGateway({
    engine,
    registry: side.registry,
    ...(options.defaultExport === null ? {} : { defaultExport: options.defaultExport }),
    ...(tls === null ? {} : { tls }),
    accessListsRequired: options.guardedAddress !== null,
    onConnectionLost: (peer, volume, reason) => log.info({ peer, volume }, `connection ended: ${reason}`),
  });
  gateway = made;
  parts.add(() => drain(made, side, log));
  const sources = sourcesOf({
    engine,
    dial,
    options,
    key,
    side,
    gateway: made,
    events,
    startedAt,
    mirrored,
  });
  const gauges = () => ({
    ...gatewayGauges(sources.status()),
    resync_saved_bytes: packing?.savedBytes ?? 0,
  });
  const routes: readonly Route<GatewaySources>[] = [...VOLUME_ROUTES, ...NODE_ROUTES];
  const admin = await startRoleAdmin({ options, events, sources, routes, gauges, log }, parts);
  for (const address of options.listen) await made.listen(address);
  const uris = urisOf(made, options);
  log.info({ data, engine: engine.kind, admin: admin.address }, "lamina gateway serves");
  events.record("server-started", null, `lamina ${VERSION} serves a cluster on ${uris.join(", ")}`);
  return {
    ready: uris.map((uri) => `lamina ready ${uri}`),
    reloadTls() {
      if (options.tls !== null) tls?.use(readTlsCredentials(options.tls.directory));
      return reloadLinkTls(ground) || tls !== null;
    },
    close: () => parts.takeDown(),
  };
}

/** Null without --redis. Refuses a Redis that must not be written to; one that does not answer is no reason not to serve. */
async function startMirror(
  { options, log, key, events, dial }: RoleGround<GatewayOptions>,
  side: GatewaySide,
): Promise<ClusterMirror | null> {
  const { redis: target, data } = options;
  if (target === null) return null;
  await checkRedis(target, clusterIdText(key), log);
  return startClusterMirror({ target, side, events, dial, key, data });
}

/** Volumes that are not served here as somebody may expect. */
function accessNotices({ guardedAddress, tls }: GatewayOptions, registry: ClusterRegistry): string[] {
  return registry.list().flatMap((record) => {
    const { name, access } = record;
    if (guardedAddress !== null && access.length === 0)
      return [`volume ${name} is not served here: it has no access list, and others reach ${guardedAddress}`];
    if (tls === null && needsTls(record))
      return [`volume ${name} is not served here: its access list asks for TLS, which is off`];
    return [];
  });
}

function urisOf(gateway: Gateway, { tls }: GatewayOptions): string[] {
  return gateway.listeners.map(({ address }) => nbdUri(address, tls?.mode === "forced"));
}

/** Once it has heard who the config nodes are it can start while they are down. */
async function setOf(
  dial: DialEnvironment,
  options: GatewayOptions,
  key: ClusterKey,
  log: Logger,
): Promise<ConfigSet> {
  const known = readMembers(options.data, key);
  if (known !== null) return known;
  const set = await persist(log, async () => {
    const learned = await learnMembers(dial, key, options.cluster, false);
    return learned.kind === "known" ? { is: learned.set } : { missing: learned.what };
  });
  writeMembers(options.data, key, set);
  return set;
}

/** A client that comes first must find the volumes. */
function listed({ registry }: GatewaySide, log: Logger): Promise<void> {
  return persist(log, () =>
    registry.refresh().then(
      () => ({ is: undefined }),
      (error: unknown) => ({ missing: error instanceof Error ? error.message : String(error) }),
    ),
  );
}

/** While it stops, volumes that wait for nodes are given up at the end of each of these. */
const STOP_PATIENCE_MS = 10_000;

/** Clients get their replies. One that waits for a majority in vain is cut off: it has not been told that anything is done. */
async function drain(gateway: Gateway, { registry, care }: GatewaySide, log: Logger): Promise<void> {
  care.stop();
  const giveUp = (): void => {
    for (const volume of registry.abandonWaiting("the gateway stops"))
      log.warn({ volume }, "stops without an answer to what waits: its clients ask again elsewhere");
  };
  const timer = setInterval(giveUp, STOP_PATIENCE_MS);
  try {
    await gateway.drain("close");
    // The gateway's own patience may have ended first: then what waits is still in the volumes.
    if (gateway.stats().requestsInFlight > 0) giveUp();
    await registry.close();
  } finally {
    clearInterval(timer);
  }
}

/** Volumes in need that status names. */
const CARE_SHOWN = 16;

interface Made {
  readonly engine: Engine;
  readonly dial: DialEnvironment;
  readonly options: GatewayOptions;
  readonly key: ClusterKey;
  readonly side: GatewaySide;
  readonly gateway: Gateway;
  readonly events: EventLog;
  readonly startedAt: number;
  readonly mirrored: ClusterMirror | null;
}

interface GatewaySources extends RoleSources, VolumeSources, NodeControl {
  status(): GatewayStatusView;
}

function sourcesOf(made: Made): GatewaySources {
  const { engine, dial, options, key, side, gateway, events, startedAt, mirrored } = made;
  const off = mirrorOff(startedAt);
  const { registry } = side;
  return {
    registry,
    store: { stats: () => ({ slotBytes: EXTENT_BLOCKS * BLOCK_BYTES }), badBlocks: () => [] },
    events,
    server: { accessListsRequired: options.guardedAddress !== null },
    status(): GatewayStatusView {
      const { config } = side.directory;
      const links = viewLinks(config, ({ node }) => side.isLinked(node));
      const owned = ownedViews(side, engine);
      const held = new Set(registry.owned.map(({ id }) => id));
      const others = registry.list().filter(({ id }) => !held.has(id));
      const stale = side.stale();
      const { connections, requestsInFlight } = gateway.stats();
      const mirror = mirrored?.mirror.status() ?? off;
      return {
        role: "gateway",
        ...viewProcess(startedAt, options.data),
        ready: gateway.listeners.length > 0,
        notices: [
          ...owned.flatMap(waitNotice),
          ...careNotices(side),
          ...(stale === null ? [] : [stale]),
          ...accessNotices(options, registry),
          ...[mirrorNotice(mirror)].filter((notice) => notice !== null),
          ...config
            .filter(({ node }) => !side.isLinked(node))
            .map(({ node }) => side.network.faultOf(node) ?? `node ${node} is not linked yet`),
        ],
        listeners: urisOf(gateway, options),
        ioEngine: engine.kind,
        linkTls: options.linkTls !== null,
        links,
        mirror: viewMirror(mirror),
        connections,
        requestsInFlight,
        owned,
        closed: others.flatMap(({ name, owner }) => (owner.released ? [name] : [])),
        elsewhere: others.flatMap(({ name, owner }) => (owner.released ? [] : [name])),
        keepers: keepersOf(side, others),
        care: viewCare(side, options),
      };
    },
    async cluster() {
      const { directory } = side;
      await Promise.all([directory.refresh(), registry.refresh()]);
      const view = await viewCluster(dial, key, directory, registry.list());
      const keepers = keepersOf(side, registry.list());
      const volumes = view.volumes.map((volume) => ({ ...volume, keptBy: keepers[volume.name] ?? null }));
      const waiting = ownedViews(side, engine).flatMap(waitNotice);
      return { ...view, volumes, notices: [...waiting, ...careNotices(side), ...view.notices] };
    },
    drain: async (node, wanted) => viewSeats(node, await side.seats.drain(node, wanted)),
    rebalance: async (wanted) => viewBalance(wanted.dryRun ?? false, await side.seats.rebalance(wanted)),
    retire: (node) => side.seats.retire(node),
    replaceConfig: async (node, by) => viewConfigNodes(await side.configNodes.replace(node, by)),
  };
}

function keepersOf(
  { care }: GatewaySide,
  others: readonly ClusterRecord[],
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    others.flatMap(({ id, name, owner }) => {
      const keeper = owner.released ? null : care.keeperOf(id);
      return keeper === null ? [] : [[name, keeper]];
    }),
  );
}

function viewCare({ care }: GatewaySide, { careAfterMs }: GatewayOptions): CareView {
  const { kept, inNeed } = care;
  const afterSeconds = careAfterMs === null ? null : careAfterMs / 1000;
  return { afterSeconds, kept, inNeed, volumes: care.states(CARE_SHOWN) };
}

/** Volumes that need what only operators or their nodes can give. */
function careNotices({ care }: GatewaySide): string[] {
  return care.states(CARE_SHOWN).flatMap(({ volume, state, why, waitsFor }) => {
    if (state !== "waits") return [];
    const missing =
      waitsFor.length === 0 ? "not enough copies are in sync" : `waits for ${waitsFor.join(", ")}`;
    return [`volume ${volume} is not opened for its copies (${why}): ${missing}`];
  });
}

function ownedViews(side: GatewaySide, engine: Engine): OwnedView[] {
  const { registry, observations } = side;
  return registry.owned.map((owned) => {
    const since = owned.waiting === null ? null : observations.waitingSince(owned.id);
    return {
      name: owned.record?.name ?? registry.byId(owned.id)?.name ?? String(owned.id),
      state: owned.activating ? "activating" : "serving",
      clients: registry.usage(owned.id).connections,
      kept: registry.isKept(owned.id),
      epoch: owned.set?.epoch ?? 0,
      waiting: owned.waiting,
      waitingSince: since === null ? null : new Date(since).toISOString(),
      copies: (owned.set?.members ?? []).map((member) => copyView(side, engine, owned, member)),
      toReconcile: owned.set?.work.reconcile ?? 0,
      toResync: owned.set?.work.resync ?? 0,
      toGiveUp: (owned.set?.members ?? []).reduce((sum, { surplus }) => sum + (surplus?.size ?? 0), 0),
    };
  });
}

function waitNotice({ waiting, waitingSince }: OwnedView): string[] {
  if (waiting === null) return [];
  return [waitingSince === null ? waiting : `${waiting}; it waits since ${waitingSince.slice(11, 19)}`];
}

function copyView(
  { observations }: GatewaySide,
  { clock }: Engine,
  { id, record }: OwnedVolume,
  member: Member,
): CopyView {
  const linked = member.session !== null;
  return {
    address: member.name,
    inSync: member.inSync,
    joining: record !== null && member.index >= seatsOf(record),
    linked,
    awaySince: linked ? null : new Date(member.goneWall).toISOString(),
    resync: observations.progressOf(id, member, clock.now()),
  };
}

function gatewayGauges({ connections, requestsInFlight, owned, care, links, mirror }: GatewayStatusView) {
  return {
    gateway_connections: connections,
    gateway_requests_in_flight: requestsInFlight,
    gateway_volumes_owned: owned.length,
    gateway_volumes_kept: care.kept,
    gateway_volumes_in_need: care.inNeed,
    gateway_volumes_waiting: owned.filter(({ waiting }) => waiting !== null).length,
    gateway_extents_to_resync: owned.reduce((sum, { toResync }) => sum + toResync, 0),
    gateway_mirrored: mirror.state === "mirrored" ? 1 : 0,
    gateway_mirror_standby: mirror.state === "standby" ? 1 : 0,
    gateway_mirror_pending_changes: mirror.pending,
    gateway_links: links.filter(({ linked }) => linked).length,
  };
}
