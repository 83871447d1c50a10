/** What a process without a device needs to own volumes of a cluster: links, register, lease, catalogue, registry. */
import { EXTENT_BLOCKS } from "../core/limits.js";
import type { NodeId, PeerId, ReplicaSession, SessionListener } from "../replica/api.js";
import { AskedSet } from "../replica/config/follow.js";
import type { ConfigSet } from "../replica/config/set.js";
import { LeaseKeeper } from "../replica/lease.js";
import type { NodeLinks } from "../replica/owner/api.js";
import { PeerLinks } from "../replica/owner/peer-links.js";
import type { Packing } from "../replica/packing.js";
import { RecordRegister } from "../replica/register.js";
import { addressText } from "../uring/address.js";
import type { Engine } from "../uring/api.js";
import { BoardAsker } from "./care/board-view.js";
import { CareRounds } from "./care/rounds.js";
import { Catalogue } from "./catalogue.js";
import { ConfigControl } from "./config-control.js";
import { RecordControl } from "./control.js";
import { shortId } from "./description.js";
import { ClusterNetwork, type DialEnvironment, type NodePlace } from "./dial.js";
import { NodeDirectory } from "./directory.js";
import type { ClusterKey } from "./key.js";
import { linkEnvironment } from "./link-environment.js";
import { Observations } from "./observations.js";
import { placesOf } from "./places.js";
import { ClusterRegistry } from "./registry.js";
import { describe, SeatControl, seatsOfNewVolume } from "./seats.js";

/** How often the records are asked for. */
const REFRESH_MS = 1000;
/** Every so many of those the nodes are asked for, too. */
const DIRECTORY_LOOKS = 5;

/** Links to every node that a record names, whether it was heard of before or not. */
class AllLinks implements NodeLinks {
  readonly #links: PeerLinks;

  constructor(links: PeerLinks) {
    this.#links = links;
  }

  session(node: NodeId): ReplicaSession | null {
    this.#links.add(node);
    return this.#links.session(node);
  }

  watch(node: NodeId, listener: SessionListener): void {
    this.#links.add(node);
    this.#links.watch(node, listener);
  }

  unwatch(node: NodeId, listener: SessionListener): void {
    this.#links.add(node);
    this.#links.unwatch(node, listener);
  }
}

export interface GatewaySide {
  readonly registry: ClusterRegistry;
  readonly directory: NodeDirectory;
  readonly seats: SeatControl;
  readonly configNodes: ConfigControl;
  readonly observations: Observations;
  readonly care: CareRounds;
  readonly network: ClusterNetwork;
  /** Whether there is a session to the node. */
  isLinked(node: NodeId): boolean;
  /** Why the records could not be asked for the last time; null when they could. */
  readonly stale: () => string | null;
  close(): Promise<void>;
}

/** Whom it tells what. */
export interface GatewayTells {
  /** What happened to a volume's copies; one sentence each. */
  tell(volume: string, text: string): void;
  /** Other nodes are the config nodes now. */
  configChanged(set: ConfigSet): void;
  /** A volume is opened for its copies only, or let go of. */
  cared(kind: "care-started" | "care-ended", volume: string, text: string): void;
}

/** What it stands on. */
export interface GatewayGround {
  readonly engine: Engine;
  /** Ways to the nodes. */
  readonly dial: DialEnvironment;
  readonly key: ClusterKey;
  /** Null: background copies are not packed. */
  readonly packing: Packing | null;
}

/** Who this gateway is, and what it is to do by itself. */
export interface GatewaySelf {
  /** Random, of this life of the process. */
  readonly peer: PeerId;
  /** What people call it. */
  readonly name: string;
  /** For how long a volume that nobody has open needs care before it gets it; null: never. */
  readonly careAfterMs: number | null;
}

export function openGatewaySide(
  { engine, dial, key, packing }: GatewayGround,
  set: ConfigSet,
  { peer, name, careAfterMs }: GatewaySelf,
  tells: GatewayTells,
): GatewaySide {
  const { pool, clock, checksums, random } = engine;
  const { tell } = tells;
  const voter = (node: NodeId) => {
    links.add(node);
    return links.peer(node);
  };
  const follower: AskedSet = new AskedSet(set, voter, (changed) => tells.configChanged(changed));
  const config = (): readonly NodePlace[] => placesOf(follower.set);
  const directory = new NodeDirectory(dial, key, config);
  const network = new ClusterNetwork(dial, key, (node) => directory.addressOf(node));
  const nodes = set.nodes.map(({ node }) => node);
  const link = linkEnvironment(engine, packing);
  const links = new PeerLinks(link, network, { cluster: key.cluster, peer, sets: follower }, nodes);
  const register = new RecordRegister(
    clock,
    nodes.map((node) => ({ node, peer: links.peer(node) })),
  );
  const catalogue = new Catalogue(dial, key, config);
  const lease = new LeaseKeeper(
    clock,
    nodes.map((node) => links.peer(node)),
    {
      watched: () => registry.watched(),
      promised: (volume, epoch) => registry.promised(volume, epoch),
    },
  );
  follower.tell({ register, lease });
  const owner = {
    pool,
    clock,
    random,
    links: new AllLinks(links),
    register,
    lease,
    self: { peer, node: null, incarnation: 0 },
    extentBlocks: EXTENT_BLOCKS,
    nameOf: (node: NodeId) => {
      const address = directory.addressOf(node);
      return address === null ? shortId(node) : addressText(address);
    },
  };
  const registry: ClusterRegistry = new ClusterRegistry({
    environment: { owner, ticker: engine, checksums },
    catalogue,
    control: new RecordControl(register, peer),
    nodeCount: () => directory.places.length,
    seats: (replicas) => seatsOfNewVolume(dial, key, directory, replicas),
    granted: () => lease.renewNow(),
    tell,
    askFor: (volume) => care.askFor(volume),
  });
  const care: CareRounds = new CareRounds(
    {
      clock,
      random,
      peer,
      name,
      board: new BoardAsker(dial, key, config),
      now: () => clock.now(),
      describe: (place) => describe(dial, key, place),
      volumes: () => [...catalogue.volumes.keys()],
      recordOf(volume) {
        const record = catalogue.volumes.get(volume)?.record;
        return record?.state === "live" ? record : undefined;
      },
      refresh: () => registry.refresh(),
      places: () => directory.places,
      isLinked: (node) => owner.links.session(node) !== null,
      nameOf: owner.nameOf,
      isOpen: (volume) => registry.isOpen(volume),
      keep: (volume) => registry.keep(volume),
      tell: (kind, volume, text) => tells.cared(kind, volume, text),
    },
    careAfterMs,
  );
  links.start();
  lease.start();
  let stale: string | null = null;
  let stopped = false;
  const observations = new Observations({ tell });
  let looks = 0;
  const refresh = (): void => {
    registry.look();
    observations.look(registry.owned, (id) => registry.byId(id)?.name ?? `${id}`, clock.wall(), clock.now());
    const isTime = looks++ % DIRECTORY_LOOKS === 0;
    (isTime ? directory.refresh() : Promise.resolve())
      .then(() => registry.refresh())
      .then(() => care.look())
      .then(
        () => {
          stale = null;
        },
        (error: unknown) => {
          stale = error instanceof Error ? error.message : String(error);
        },
      )
      .finally(() => {
        if (!stopped) timer = clock.setTimer(REFRESH_MS, refresh);
      });
  };
  let timer = clock.setTimer(REFRESH_MS, refresh);
  const say = (): void => {
    void care.say().finally(() => {
      if (!stopped) saying = clock.setTimer(REFRESH_MS, say);
    });
  };
  let saying = clock.setTimer(REFRESH_MS, say);
  const environment = { random, dial, key, directory, register, peer };
  const seats = new SeatControl(environment, registry);
  const configNodes = new ConfigControl(environment, follower);
  return {
    registry,
    directory,
    seats,
    configNodes,
    observations,
    care,
    network,
    isLinked: (node) => owner.links.session(node) !== null,
    stale: () => stale,
    async close() {
      stopped = true;
      timer.cancel();
      saying.cancel();
      care.stop();
      await registry.close();
      lease.stop();
      links.stop();
    },
  };
}
