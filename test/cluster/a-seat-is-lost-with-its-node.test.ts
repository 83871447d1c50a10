import t from "tap";
import { NbdClient } from "../interop/support/nbd-client.js";
import { until } from "../interop/support/until.js";
import { faultsOf } from "../unit/admin/support/openapi.js";
import { Cluster, type Station } from "./support/cluster.js";

const BLOCK_BYTES = 4096;
/** Extents of 4 MiB that are written, one block in each. */
const EXTENTS = 6;

function block(i: number): Buffer {
  return Buffer.alloc(BLOCK_BYTES, 1 + i);
}

async function writeAll(gateway: Station): Promise<void> {
  const client = await NbdClient.connect(gateway.host, gateway.port, "v");
  for (let i = 0; i < EXTENTS; i++) await client.write(i * (4 << 20), block(i));
  await client.flush();
  await client.close();
}

async function holdsAll(gateway: Station): Promise<boolean> {
  const client = await NbdClient.connect(gateway.host, gateway.port, "v");
  for (let i = 0; i < EXTENTS; i++) {
    if (!(await client.read(i * (4 << 20), BLOCK_BYTES)).equals(block(i))) return false;
  }
  await client.close();
  return true;
}

/** Whether all copies are in sync, and exactly these nodes have them. */
async function isOn(cluster: Cluster, nodes: readonly Station[]): Promise<boolean> {
  const { volumes } = await cluster.status();
  const members = volumes[0]?.members ?? [];
  const wanted = nodes.map(({ address }) => address).sort();
  const addresses = members.map(({ address }) => address).sort();
  return members.every(({ state }) => state === "insync") && wanted.join() === addresses.join();
}

async function isListed(cluster: Cluster, node: Station): Promise<boolean> {
  const { nodes } = await cluster.status();
  return nodes.some(({ address, up, config }) => address === node.address && up && !config);
}

t.test("a node takes a lost one's seat, gives it back and leaves; the next has its share", async (t) => {
  const cluster = await Cluster.start(3, 1, { gatewayArgs: ["--care-after", "1"] });
  t.teardown(async () => cluster.dispose());
  const [gateway] = cluster.gateways as [Station];
  const [n1, n2, n3] = cluster.nodes as [Station, Station, Station];
  await gateway.lamina("volume", "create", "v", "--size", "64M");
  await writeAll(gateway);

  t.match(await gateway.refused("node", "drain", "127.0.0.1:1"), /LAMINA_NODE_UNKNOWN/);
  t.match(await gateway.refused("node", "drain", n3.address), /LAMINA_NODE_SPARE_MISSING/);
  t.match(await gateway.refused("node", "drain", n3.address, "--volume", "w"), /LAMINA_VOLUME_UNKNOWN/);
  t.match(await gateway.refused("node", "rm", n3.address), /LAMINA_NODE_IS_CONFIG/);
  t.match(
    await gateway.lamina("cluster", "rebalance"),
    "v: nothing to do: every node that can be used has a seat",
  );

  await n3.kill();
  const n4 = await cluster.join();
  await until("the new node is listed", () => isListed(cluster, n4));
  t.match(
    await gateway.lamina("node", "drain", n3.address),
    `volume v: ${n4.address} has the seat, and gets its copy now`,
  );
  await until("the new node has its copy", () => isOn(cluster, [n1, n2, n4]));
  t.same(faultsOf("Cluster", await cluster.status()), [], "the answer is as openapi.yaml describes it");
  t.match(await gateway.refused("node", "rm", n4.address), /a seat in v.*LAMINA_NODE_HOLDS_VOLUMES/);

  n3.launch();
  await n3.ready();
  await n2.kill();
  await writeAll(gateway);
  t.ok(await holdsAll(gateway), "one old copy and the new one serve the volume");
  t.notOk(await isOn(cluster, [n1, n2, n4]), "the other one has missed it");
  n2.launch();
  await n2.ready();
  await until("it catches up while nobody has the volume open", () => isOn(cluster, [n1, n2, n4]));
  t.match(await gateway.lamina("events"), /care-started .*volume v is opened for its copies: the copy on/);
  await until("and the volume is let go of", async () => {
    const { volumes } = await cluster.status();
    return volumes.every(({ owned }) => !owned);
  });

  await until("the seat goes back to the node that was away", async () => {
    await gateway.lamina("node", "drain", n4.address, "--to", n3.address).catch(() => undefined);
    return isOn(cluster, [n1, n2, n3]);
  });
  await gateway.lamina("node", "rm", n4.address);
  await until("the node knows that it was taken out", async () =>
    /quarantined/.test(await n4.lamina("status")),
  );
  const { nodes } = await cluster.status();
  t.notOk(
    nodes.some(({ address }) => address === n4.address),
    "it is not listed any more",
  );

  const n5 = await cluster.join();
  await until("the next new node is listed", () => isListed(cluster, n5));
  const dry = await gateway.lamina("cluster", "rebalance", "--dry-run");
  t.match(dry, `volume v: ${n5.address} would get a further seat`);
  t.ok(await isOn(cluster, [n1, n2, n3]), "nothing was done");
  t.match(await gateway.lamina("cluster", "rebalance", "--volume", "v"), `${n5.address} gets a further seat`);
  t.match(
    await gateway.lamina("cluster", "rebalance", "--volume", "v"),
    /gets a further seat|has a seat/,
    "asked again while the seat joins, it is what was asked for",
  );
  await until("its seat counts", () => isOn(cluster, [n1, n2, n3, n5]));
  t.ok(await holdsAll(gateway));
  t.same(await cluster.end(), []);
});
