/** What a process without a device needs to own volumes of a cluster: links, register, lease, catalogue, registry. */
import { EXTENT_BLOCKS } from "../core/limits.js";
import type { NodeId, PeerId } from "../replica/api.js";
import { LeaseKeeper } from "../replica/lease.js";
import { PeerLinks } from "../replica/owner/peer-links.js";
import { RecordRegister } from "../replica/register.js";
import { addressText } from "../uring/address.js";
import type { Engine } from "../uring/api.js";
import { Catalogue } from "./catalogue.js";
import { RecordControl } from "./control.js";
import { ClusterNetwork, type NodePlace } from "./dial.js";
import type { ClusterKey } from "./key.js";
import { ClusterRegistry } from "./registry.js";

/** How often the records are asked for. */
const REFRESH_MS = 1000;

export interface GatewaySide {
  readonly registry: ClusterRegistry;
  readonly network: ClusterNetwork;
  /** Whether there is a session to the node. */
  isLinked(node: NodeId): boolean;
  /** Why the records could not be asked for the last time; null when they could. */
  readonly stale: () => string | null;
  close(): Promise<void>;
}

/** `peer`: random, of this life of the process. */
export function openGatewaySide(
  engine: Engine,
  key: ClusterKey,
  config: readonly NodePlace[],
  peer: PeerId,
  tell: (volume: string, text: string) => void,
): GatewaySide {
  const { pool, clock, checksums, random } = engine;
  const network = new ClusterNetwork(engine, key, config);
  const nodes = config.map(({ node }) => node);
  const names = new Map(config.map(({ node, address }) => [node, addressText(address)]));
  const link = { pool, clock, ticker: engine, checksums };
  const links = new PeerLinks(link, network, { cluster: key.cluster, peer }, nodes);
  const register = new RecordRegister(
    clock,
    nodes.map((node) => ({ node, peer: links.peer(node) })),
  );
  const catalogue = new Catalogue(engine, key, config);
  const lease = new LeaseKeeper(
    clock,
    nodes.map((node) => links.peer(node)),
    {
      watched: () => registry.watched(),
      promised: (volume, epoch) => registry.promised(volume, epoch),
    },
  );
  const owner = {
    pool,
    clock,
    random,
    links,
    register,
    lease,
    self: { peer, node: null, incarnation: 0 },
    extentBlocks: EXTENT_BLOCKS,
    nameOf: (node: NodeId) => names.get(node) ?? node,
  };
  const registry: ClusterRegistry = new ClusterRegistry({
    environment: { owner, ticker: engine, checksums },
    catalogue,
    control: new RecordControl(register, peer),
    nodes,
    granted: () => lease.renewNow(),
    tell,
  });
  links.start();
  lease.start();
  let stale: string | null = null;
  let stopped = false;
  const refresh = (): void => {
    registry
      .refresh()
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
  return {
    registry,
    network,
    isLinked: (node) => links.session(node) !== null,
    stale: () => stale,
    async close() {
      stopped = true;
      timer.cancel();
      await registry.close();
      lease.stop();
      links.stop();
    },
  };
}
