/** Processes that die and stand still. */
import { awaySpan, KILLED_MS, LOAD_MS, type Scene, type Stage } from "./scene.js";

async function killNode(stage: Stage): Promise<void> {
  const node = stage.random.pick(stage.cluster.nodes);
  await node.kill();
  await stage.during(KILLED_MS);
  node.launch();
  await node.ready();
  await stage.stopLoad();
}

async function stopNode(stage: Stage): Promise<void> {
  const node = stage.random.pick(stage.cluster.nodes);
  node.pause();
  await stage.during(awaySpan(stage));
  node.goOn();
  await stage.stopLoad();
}

async function killAllNodes(stage: Stage): Promise<void> {
  const { nodes } = stage.cluster;
  await Promise.all(nodes.map((node) => node.kill()));
  await stage.during(KILLED_MS);
  for (const node of nodes) node.launch();
  await Promise.all(nodes.map((node) => node.ready()));
  await stage.stopLoad();
}

/** One after another, as for an upgrade: each when the one before serves, in sync or not. */
async function restartNodes(stage: Stage): Promise<void> {
  for (const node of stage.cluster.nodes) {
    const { code, stderr } = await node.end();
    if (code !== 0) stage.problem(`a node that was asked to end ended with ${code}:\n${stderr}`);
    node.launch();
    await node.ready();
    await stage.during(LOAD_MS);
  }
  await stage.stopLoad();
}

async function killGateway(stage: Stage): Promise<void> {
  await stage.at.kill();
  await stage.load.cutOff();
  stage.at.launch();
  await stage.at.ready();
  stage.moveOn(0.5);
}

async function killEverything(stage: Stage): Promise<void> {
  const { nodes, gateways } = stage.cluster;
  const all = [...nodes, ...gateways];
  await Promise.all(all.map((station) => station.kill()));
  await stage.load.cutOff();
  for (const station of all) station.launch();
  await Promise.all(all.map((station) => station.ready()));
}

/** The stopped one goes on while the other serves: what it still had to say must be said to nobody. */
async function stopGateway(stage: Stage): Promise<void> {
  const stopped = stage.at;
  stopped.pause();
  await stage.load.abandon();
  stage.history.settleUnfinished();
  stage.moveOn(1);
  await stage.startLoad();
  stopped.goOn();
  await stage.during(LOAD_MS);
  await stage.stopLoad();
}

async function handOver(stage: Stage): Promise<void> {
  await stage.stopLoad();
  stage.moveOn(1);
}

export const PROCESS_SCENES: readonly Scene[] = [
  { name: "kill a node", play: killNode },
  { name: "stop a node", play: stopNode },
  { name: "kill a gateway", play: killGateway },
  // Before the one that has a gateway refuse the volume for a while.
  { name: "hand over", play: handOver },
  { name: "stop a gateway", play: stopGateway },
  { name: "kill all nodes", play: killAllNodes },
  { name: "restart nodes in turn", play: restartNodes },
  { name: "kill everything", play: killEverything },
];
