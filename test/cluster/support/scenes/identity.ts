/** Data directories that are wiped, swapped, old and doubled: none of them may answer for the device that was there. */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { check } from "../../../interop/support/process.js";
import type { Station } from "../cluster.js";
import { KILLED_MS, LOAD_MS, type Scene, type Stage } from "./scene.js";

const STRANGE = /LAMINA_CLUSTER_NODE_STRANGE/;

async function back(stage: Stage, ...nodes: readonly Station[]): Promise<void> {
  for (const node of nodes) node.launch();
  await Promise.all(nodes.map((node) => node.ready()));
  await stage.stopLoad();
}

async function mustBeStrange(stage: Stage, node: Station, what: string): Promise<void> {
  const said = await node.refusedToStart();
  if (!STRANGE.test(said)) stage.problem(`${what} is not refused as strange:\n${said}`);
}

async function wiped(stage: Stage): Promise<void> {
  const node = stage.random.pick(stage.cluster.nodes);
  const { data } = node;
  await node.kill();
  node.data = await emptyDirectory(stage);
  await mustBeStrange(stage, node, "a wiped config node");
  rmSync(node.data, { recursive: true });
  node.data = data;
  await stage.during(LOAD_MS);
  await back(stage, node);
}

async function swapped(stage: Stage): Promise<void> {
  const { nodes } = stage.cluster;
  const first = stage.random.pick(nodes);
  const second = stage.random.pick(nodes.filter((node) => node !== first));
  const swap = (): void => {
    [first.data, second.data] = [second.data, first.data];
  };
  await Promise.all([first.kill(), second.kill()]);
  swap();
  await mustBeStrange(stage, first, "a config node on another one's device");
  await mustBeStrange(stage, second, "a config node on another one's device");
  swap();
  await back(stage, first, second);
}

/** The copy is of a time before the node went on: what was acknowledged since is not in it. */
async function oldBackup(stage: Stage): Promise<void> {
  const node = stage.random.pick(stage.cluster.nodes);
  const { data } = node;
  await node.kill();
  const copy = await copyOf(stage, data);
  node.launch();
  await node.ready();
  await mustBeRegistered(stage, node);
  await stage.during(KILLED_MS);
  await node.kill();
  node.data = copy;
  node.launch();
  await node.ready();
  await mustBeQuarantined(stage, copy);
  await stage.during(LOAD_MS);
  await node.kill();
  rmSync(copy, { recursive: true });
  node.data = data;
  await back(stage, node);
}

/** Original and clone run at the same time, the clone at an address of its own. */
async function cloned(stage: Stage): Promise<void> {
  const node = stage.random.pick(stage.cluster.nodes);
  await node.kill();
  const copy = await copyOf(stage, node.data);
  node.launch();
  await node.ready();
  await mustBeRegistered(stage, node);
  const address = `${node.host}:${await stage.cluster.freePortOf(node)}`;
  const clone = node.startBeside([...stage.cluster.nodeArgs(address), "--data", copy]);
  await clone.printed(/^lamina ready /m);
  await mustBeQuarantined(stage, copy);
  await stage.during(KILLED_MS);
  await clone.end("SIGKILL");
  rmSync(copy, { recursive: true });
  await stage.stopLoad();
}

/** Before that it has served nothing, and a copy is as good as it is. */
async function mustBeRegistered({ await: awaited, cluster }: Stage, { data }: Station): Promise<void> {
  await awaited("the device is registered", async () => {
    const said = await cluster.statusOf(data);
    return /state +ready/.test(said) && !/not registered|quarantined/.test(said);
  });
}

async function mustBeQuarantined({ await: awaited, cluster }: Stage, data: string): Promise<void> {
  let said = "";
  await awaited("a copy of a device is quarantined", async () => {
    said = await cluster.statusOf(data);
    return /quarantined/.test(said);
  });
}

async function emptyDirectory({ cluster, random }: Stage): Promise<string> {
  const path = join(cluster.directory, `other-${random.between(0, 2 ** 31)}`);
  mkdirSync(path);
  return Promise.resolve(path);
}

async function copyOf(stage: Stage, data: string): Promise<string> {
  const path = await emptyDirectory(stage);
  await check("cp", ["--archive", "--sparse=always", `${data}/.`, path]);
  return path;
}

export const IDENTITY_SCENES: readonly Scene[] = [
  { name: "wipe a node", play: wiped },
  { name: "swap two nodes", play: swapped },
  { name: "an old backup comes back", play: oldBackup },
  { name: "a clone runs beside", play: cloned },
];
