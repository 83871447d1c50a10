/** A gateway's mirror in Redis: the records of the cluster, and which nodes hold which extents. */
import { hostname } from "node:os";
import { type EventLog, Mirror, type MirrorSource, type RedisTarget } from "../../catalog/index.js";
import { shortId } from "../../cluster/description.js";
import type { DialEnvironment } from "../../cluster/dial.js";
import type { GatewaySide } from "../../cluster/gateway-side.js";
import { HeldExtents } from "../../cluster/held-extents.js";
import type { ClusterKey } from "../../cluster/key.js";
import type { ClusterRecord } from "../../replica/owner/record.js";
import { clusterIdText } from "./role.js";

/** How often the nodes are asked what they hold, by the gateway that writes. */
const LOOK_MS = 3000;

export interface ClusterMirror {
  readonly mirror: Mirror;
  close(): Promise<void>;
}

export interface MirrorGround {
  readonly target: RedisTarget;
  readonly side: GatewaySide;
  readonly events: EventLog;
  readonly dial: DialEnvironment;
  readonly key: ClusterKey;
  /** Data directory of the gateway, by which its events are told from those of others on this machine. */
  readonly data: string;
}

export function startClusterMirror(ground: MirrorGround): ClusterMirror {
  const { target, side, events, dial, key, data } = ground;
  const held = new HeldExtents(dial, key, side.directory);
  const look = (): Promise<void> =>
    held.refresh((volume, layer, extent, exists) => mirror.extentChanged(volume, layer, extent, exists));
  const mirror: Mirror = new Mirror({
    target,
    source: sourceOf(side, held, key),
    events,
    wall: () => Date.now(),
    gateway: `${hostname()}:${data}`,
    prepare: look,
  });
  mirror.start();
  let closed = false;
  const lookLater = (): NodeJS.Timeout =>
    setTimeout(() => {
      const { state } = mirror.status();
      const isWriting = state === "mirrored" || state === "behind";
      // Nodes that do not answer now are asked again the next time.
      (isWriting ? look() : Promise.resolve())
        .catch(() => undefined)
        .finally(() => {
          if (!closed) timer = lookLater();
        });
    }, LOOK_MS);
  let timer = lookLater();
  return {
    mirror,
    async close() {
      closed = true;
      clearTimeout(timer);
      await mirror.close();
    },
  };
}

function sourceOf({ registry }: GatewaySide, held: HeldExtents, key: ClusterKey): MirrorSource {
  return {
    storeId: clusterIdText(key),
    nodeId: "",
    records: () => registry.list(),
    inventory: (volume, visit) => held.inventory(volume, visit),
    holders: (volume, layer, extent) => held.holders(volume, layer, extent),
    node: () => ({}),
    nodes: () => held.nodes(),
    fields(record) {
      const known = registry.byId(record.id);
      return known === undefined ? [] : clusterFields(known);
    },
  };
}

/** Who has it open, or had it last; and its seats. */
function clusterFields({ owner, members }: ClusterRecord): readonly string[] {
  const { peer, released } = owner;
  const seats = members.map(({ node, state, since }) => ({ node: shortId(node), state, since }));
  return ["owner", JSON.stringify({ peer, released }), "members", JSON.stringify(seats)];
}
