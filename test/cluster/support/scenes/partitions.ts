/** Networks that come apart, both ways, one way and between some. */
import type { Network } from "../network.js";
import { awaySpan, LOAD_MS, type Scene, type Span, type Stage } from "./scene.js";

function networkOf({ cluster }: Stage): Network {
  if (cluster.network === null) throw new Error("the cluster has no network of its own");
  return cluster.network;
}

function hostsOf({ cluster }: Stage, but: readonly number[] = []): number[] {
  return [...cluster.nodes, ...cluster.gateways]
    .map(({ index }) => index)
    .filter((index) => !but.includes(index));
}

/** Longer than leases last, and an activation after them takes. */
const TAKE_OVER_MS: Span = { least: 8000, most: 9000 };

type Direction = "both ways" | "from it" | "to it";

async function cut(
  network: Network,
  direction: Direction,
  some: readonly number[],
  others: readonly number[],
): Promise<void> {
  if (direction !== "to it") await network.cut(some, others);
  if (direction !== "from it") await network.cut(others, some);
}

/** Of a node from everybody, while the load goes on. */
function nodeCutOff(direction: Direction): Scene["play"] {
  return async (stage) => {
    const network = networkOf(stage);
    const node = stage.random.pick(stage.cluster.nodes);
    await cut(network, direction, [node.index], hostsOf(stage, [node.index]));
    await stage.during(awaySpan(stage));
    await network.heal();
    await stage.stopLoad();
  };
}

/** Two do not hear one another; everybody else hears both. */
function pairParted(others: "gateway and node" | "nodes"): Scene["play"] {
  return async (stage) => {
    const network = networkOf(stage);
    const { nodes } = stage.cluster;
    const node = stage.random.pick(nodes);
    const other = others === "nodes" ? stage.random.pick(nodes.filter((one) => one !== node)) : stage.at;
    const direction = stage.random.pick<Direction>(["both ways", "from it", "to it"]);
    await cut(network, direction, [node.index], [other.index]);
    await stage.during(awaySpan(stage));
    await network.heal();
    await stage.stopLoad();
  };
}

/** Every path by itself is there or not, and others after a while. */
async function patchwork(stage: Stage): Promise<void> {
  const network = networkOf(stage);
  const hosts = hostsOf(stage);
  for (let phase = 0; phase < 3; phase++) {
    for (const from of hosts) {
      for (const to of hosts) if (from !== to && stage.random.chance(0.25)) await network.cut([from], [to]);
    }
    await stage.during({ least: 300, most: Math.max(400, stage.awayMsMax / 2) });
    await network.heal();
  }
  await stage.stopLoad();
}

/**
 * The gateway that serves is cut off from the nodes, and another one takes over while the clients of the first still
 * wait there. What these are told afterwards must be true.
 */
function gatewayCutOff(withNode: boolean): Scene["play"] {
  return async (stage) => {
    const network = networkOf(stage);
    const { at: first, load: waiting } = stage;
    const minority = [first.index];
    if (withNode) minority.push(stage.random.pick(stage.cluster.nodes).index);
    const direction = stage.random.pick<Direction>(["both ways", "both ways", "from it", "to it"]);
    await cut(network, direction, minority, hostsOf(stage, minority));
    stage.moveOn(1);
    const second = stage.secondLoad();
    const started = stage.startLoadOf(second, stage.at);
    // What it needs may be on the other side: then it serves when there are no sides any more.
    await Promise.race([started, stage.during(TAKE_OVER_MS)]);
    await stage.during(LOAD_MS);
    await network.heal();
    await started;
    // The first hears that it does not own the volume any more, and lets go of its clients.
    await waiting.cutOff();
    await stage.during(LOAD_MS);
    await second.stop();
  };
}

export const PARTITION_SCENES: readonly Scene[] = [
  { name: "cut a node off", needs: "network", play: nodeCutOff("both ways") },
  { name: "a node is not heard", needs: "network", play: nodeCutOff("from it") },
  { name: "a node hears nothing", needs: "network", play: nodeCutOff("to it") },
  { name: "part gateway and node", needs: "network", play: pairParted("gateway and node") },
  { name: "part two nodes", needs: "network", play: pairParted("nodes") },
  { name: "patchwork", needs: "network", play: patchwork },
  { name: "cut the gateway off", needs: "network", play: gatewayCutOff(false) },
  { name: "split the cluster", needs: "network", play: gatewayCutOff(true) },
];
