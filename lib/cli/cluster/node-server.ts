/** The composition root of `lamina node`: one device behind the node protocol. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { EVENT_ROUTES, type Route, STORE_ROUTES, viewScrub } from "../../admin/index.js";
import type { EventLog } from "../../catalog/index.js";
import type { DialEnvironment, NodePlace } from "../../cluster/dial.js";
import { NodeDirectory } from "../../cluster/directory.js";
import type { ClusterKey } from "../../cluster/key.js";
import { learnMembers, readMembers, writeMembers } from "../../cluster/members.js";
import { nearby } from "../../cluster/nearby.js";
import { NodeSide } from "../../cluster/node-side.js";
import { blocksOf } from "../../cluster/rot.js";
import { LaminaError } from "../../core/errors.js";
import { StabilityMap } from "../../replica/stability.js";
import type { MemberStore } from "../../store/index.js";
import { addressText } from "../../uring/address.js";
import type { Engine, ListenAddress, Listener } from "../../uring/api.js";
import { findDevice, type ReadyDevice, readyDevice } from "../serve/device.js";
import type { Parts } from "../serve/parts.js";
import type { ScrubSchedule } from "../serve/scrub-schedule.js";
import { startScrubs } from "../serve/scrubs.js";
import { openServed } from "../serve/store.js";
import type { Later } from "../serve/story.js";
import { VERSION } from "../version.js";
import type { NodeOptions } from "./options.js";
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
import { type NodeStatusView, viewCluster } from "./views.js";

/** Throws LaminaError; whatever had been started is taken down then. */
export function startNode(options: NodeOptions, log: Logger): Promise<Role> {
  return startRole(options, log, compose);
}

async function compose(ground: RoleGround<NodeOptions>): Promise<Role> {
  const { options, log, parts, startedAt, key, engine, events, linkTls, dial, packing } = ground;
  const data = await holdData(ground);
  const device = await takeDevice(engine, options, key, log, parts);
  const stability = new StabilityMap();
  const later: Later = { mirror: null, registry: null };
  const { store } = await openServed({ engine, events, later, log, parts }, device, { stability });
  const side = new NodeSide({
    engine,
    dial,
    store,
    stability,
    key,
    tls: linkTls,
    packing,
    version: VERSION,
    startedAt,
    place: () => where,
    refused: (peer, why) => log.warn({ peer }, `somebody was turned away: ${why}`),
    stands: (standing, why) => {
      if (standing === "registered") log.info("the device is registered");
      else log.warn(`the device is ${standing === "unknown" ? "not registered" : standing}: ${why}`);
    },
    configChanged: (set) => noteConfig(options.data, key, set, log),
    swept: (volume) =>
      log.info(
        { volume },
        "the extents of a volume that was removed, or has no seat here any more, were given back",
      ),
  });
  const known = readMembers(options.data, key);
  if (known !== null) side.learned(known);
  const listener = await engine.listen(options.listen, (stream) => side.accept(stream));
  const where = addressText(listener.address);
  const near = dial.nearby === true ? await listenNearby(engine, side, listener.address, log) : null;
  parts.add(async () => {
    side.close();
    await listener.close();
    await near?.close();
    await untilSessionsEnd(side);
  });
  if (known === null) await form(dial, options, key, side, log);
  refuseOther(side, options, where);
  side.start(newPeer());
  later.registry = { byId: (id) => side.catalogue?.volumes.get(id)?.record };
  const scrubs = await startScrubs({ engine, device, data, store, events, log });
  parts.add(() => scrubs.close());
  const made = { engine, dial, options, key, device, store, side, startedAt, where, events, scrubs };
  const sources = sourcesOf(made);
  const gauges = () => nodeGauges(sources.status());
  const routes: readonly Route<NodeSources>[] = [...EVENT_ROUTES, ...STORE_ROUTES];
  const admin = await startRoleAdmin({ options, events, sources, routes, gauges, log }, parts);
  log.info(
    { node: side.node, data, device: device.path, engine: engine.kind, admin: admin.address },
    "lamina node serves",
  );
  events.record("server-started", null, `lamina ${VERSION} serves ${device.path} as a node on ${where}`);
  return {
    ready: [`lamina ready node ${where}`],
    reloadTls: () => reloadLinkTls(ground),
    close: () => parts.takeDown(),
  };
}

/** Null: somebody else has the name, and processes of this machine use TCP like others. */
async function listenNearby(
  engine: Engine,
  side: NodeSide,
  address: ListenAddress,
  log: Logger,
): Promise<Listener | null> {
  if (address.kind !== "tcp") return null;
  try {
    return await engine.listen(nearby(side.node, address), (stream) => side.accept(stream));
  } catch (error) {
    if (!(error instanceof LaminaError)) throw error;
    log.warn(`processes on this machine reach the node by TCP only: ${error.message}`);
    return null;
  }
}

async function takeDevice(
  engine: Engine,
  options: NodeOptions,
  key: ClusterKey,
  log: Logger,
  parts: Parts,
): Promise<ReadyDevice> {
  const found = await findDevice(engine, options, (reason) => log.warn(reason));
  const own = clusterIdText(key);
  if (found.identity !== null && found.identity.clusterId !== own) {
    found.opened?.disk.close();
    const { path, identity } = found;
    throw new LaminaError("CLUSTER_DEVICE_FOREIGN", { path, found: identity.clusterId, own });
  }
  const device = await readyDevice(engine, found, key.cluster);
  parts.add(() => device.opened.disk.close());
  if (device.formatted) log.info({ path: device.path }, "a new store was made");
  if (!device.opened.direct)
    log.warn({ path: device.path }, "O_DIRECT is refused here: I/O goes through the page cache");
  return device;
}

/**
 * The first start. In a new cluster all config nodes find one another, and each writes down who they are; a node that
 * is none of them is told by them.
 */
async function form(
  dial: DialEnvironment,
  options: NodeOptions,
  key: ClusterKey,
  side: NodeSide,
  log: Logger,
): Promise<void> {
  const set = await persist(log, async () => {
    const learned = await learnMembers(dial, key, options.cluster, isNamed(options));
    return learned.kind === "known" ? { is: learned.set } : { missing: learned.what };
  });
  writeMembers(options.data, key, set);
  side.learned(set);
  log.info(
    { config: side.config.map(({ address }) => addressText(address)) },
    "the config nodes are written down",
  );
}

/** It is to be a config node. */
function isNamed({ cluster, listen }: NodeOptions): boolean {
  return cluster.some((address) => addressText(address) === addressText(listen));
}

/**
 * At the address of a config node only its own device may listen: another one was wiped, or is of another directory.
 * A config node that listens elsewhere is a copy: whichever of the two registers later is quarantined. One that was
 * replaced may go on at its own address, if nobody else is there.
 */
function refuseOther(side: NodeSide, options: NodeOptions, where: string): void {
  const known = side.config.find(({ address }) => addressText(address) === where);
  if (known?.node === side.node) return;
  const isConfig = side.config.some(({ node }) => node === side.node);
  if (known === undefined && (isConfig || side.isKnownDevice || !isNamed(options))) return;
  throw new LaminaError("CLUSTER_NODE_STRANGE", {
    address: where,
    what: isConfig
      ? "its device is the config node of another address; the data directories were swapped"
      : "its device is not the config node that the cluster knows there",
  });
}

/** Sessions end when what they have in the store has: the store is closed after that. */
async function untilSessionsEnd(side: NodeSide): Promise<void> {
  while ((side.core?.sessions ?? 0) > 0) await sleep(SESSION_POLL_MS);
}
const SESSION_POLL_MS = 5;

interface Made {
  readonly engine: Engine;
  readonly dial: DialEnvironment;
  readonly options: NodeOptions;
  readonly key: ClusterKey;
  readonly device: ReadyDevice;
  readonly store: MemberStore;
  readonly side: NodeSide;
  readonly startedAt: number;
  readonly where: string;
  readonly events: EventLog;
  readonly scrubs: ScrubSchedule;
}

interface NodeSources extends RoleSources {
  readonly events: EventLog;
  readonly store: MemberStore;
  status(): NodeStatusView;
}

function sourcesOf(made: Made): NodeSources {
  const { engine, dial, options, key, device, store, side, startedAt, where, events, scrubs } = made;
  const config = (): readonly NodePlace[] => side.config;
  let directory: NodeDirectory | null = null;
  return {
    events,
    store,
    status(): NodeStatusView {
      const { capacityBytes, usedBytes, lossy, sessions, failed, standing, rot } = side.describe();
      const links = viewLinks(config(), ({ node }) => side.isLinked(node) ?? true);
      const down = links
        .filter(({ linked }) => !linked)
        .map(({ address }) => `node ${address} cannot be reached`);
      return {
        role: "node",
        ...viewProcess(startedAt, options.data),
        ready: failed === null,
        notices: [
          ...(failed === null ? [] : [`the device has failed: ${failed}`]),
          ...(standing === "registered"
            ? []
            : [
                `the device is ${standing === "unknown" ? "not registered yet" : standing} and serves nothing`,
              ]),
          ...(lossy ? ["the device lost power without a clean shutdown and waits to be put right"] : []),
          ...rot.map(({ volume, blocks, extents }) => {
            const name = side.catalogue?.volumes.get(volume)?.record.name ?? `#${volume}`;
            return `volume ${name}: ${blocks} block(s) of ${extents} extent(s) here fail their checksum; repaired from another copy within minutes, for which a gateway opens the volume if nobody has it open`;
          }),
          ...down,
        ],
        listeners: [where],
        ioEngine: engine.kind,
        linkTls: options.linkTls !== null,
        links,
        node: side.node,
        device: { path: device.path, kind: device.opened.kind, direct: device.opened.direct },
        capacityBytes,
        usedBytes,
        lossy: store.identity.lossy,
        sessions,
        scrub: viewScrub(scrubs.status(), store.stats().scrub.running),
        badBlocks: blocksOf(rot),
      };
    },
    async cluster() {
      directory ??= new NodeDirectory(dial, key, config);
      await Promise.all([directory.refresh(), side.catalogue!.refresh()]);
      const live = [...side.catalogue!.volumes.values()].flatMap(({ record }) =>
        record.state === "live" ? [record] : [],
      );
      return viewCluster(dial, key, directory, live);
    },
  };
}

function nodeGauges(view: NodeStatusView) {
  const { capacityBytes, usedBytes, sessions, ready, links, scrub, badBlocks } = view;
  return {
    node_up: ready ? 1 : 0,
    node_capacity_bytes: capacityBytes,
    node_used_bytes: usedBytes,
    node_sessions: sessions,
    node_links: links.filter(({ linked }) => linked).length,
    store_bad_blocks: badBlocks,
    store_scrub_running: Number(scrub.running),
    store_scrub_last_end_seconds: scrub.lastEndedAt === null ? 0 : Date.parse(scrub.lastEndedAt) / 1000,
  };
}
