import t from "tap";
import { NbdClient } from "../interop/support/nbd-client.js";
import { until } from "../interop/support/until.js";
import { Cluster, type Station } from "./support/cluster.js";

const BLOCK_BYTES = 4096;

async function write(gateway: Station, block: number): Promise<void> {
  const client = await NbdClient.connect(gateway.host, gateway.port, "v");
  await client.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, block));
  await client.flush();
  await client.close();
}

async function holds(gateway: Station, blocks: number): Promise<boolean> {
  const client = await NbdClient.connect(gateway.host, gateway.port, "v");
  for (let block = 1; block <= blocks; block++) {
    const bytes = await client.read(block * BLOCK_BYTES, BLOCK_BYTES);
    if (!bytes.equals(Buffer.alloc(BLOCK_BYTES, block))) return false;
  }
  await client.close();
  return true;
}

async function isListed(cluster: Cluster, node: Station, config: boolean): Promise<boolean> {
  const { nodes } = await cluster.status();
  return nodes.some((one) => one.address === node.address && one.up && one.config === config);
}

t.test(
  "a further node votes in its place, another one may be lost then, and the first stays without a vote",
  async (t) => {
    const cluster = await Cluster.start(3, 1);
    t.teardown(async () => cluster.dispose());
    const [gateway] = cluster.gateways as [Station];
    const [n1, n2, n3] = cluster.nodes as [Station, Station, Station];
    await gateway.lamina("volume", "create", "v", "--size", "64M");
    await write(gateway, 1);

    const replace = ["cluster", "config", "replace"];
    await n3.kill();
    const n4 = await cluster.join();
    await until("the new node is listed", () => isListed(cluster, n4, false));
    t.match(await gateway.refused(...replace, n4.address, n3.address), /LAMINA_CONFIG_NODE_NOT/);
    t.match(await gateway.refused(...replace, n3.address, n1.address), /LAMINA_CONFIG_NODE_ALREADY/);
    t.match(await gateway.refused(...replace, n3.address, "127.0.0.1:1"), /LAMINA_NODE_UNKNOWN/);
    const said = await gateway.lamina(...replace, n3.address, n4.address);
    t.match(said, `config nodes, version 2: ${n1.address} ${n2.address} ${n4.address}`);
    await until("the new node has copied", async () => {
      const { notices } = await cluster.status();
      return !notices.some((notice) => notice.includes("copies what was decided"));
    });
    t.match(await gateway.lamina(...replace, n3.address, n4.address), "version 2", "asked again it is done");
    t.match(await gateway.lamina("node", "drain", n3.address), `volume v: ${n4.address} has the seat`);
    await until("it has its copy, too", async () => {
      const { volumes } = await cluster.status();
      return volumes[0]!.members.every(({ state }) => state === "insync");
    });

    await n2.kill();
    await write(gateway, 2);
    t.ok(await holds(gateway, 2), "of the first three one is left, and the cluster goes on");
    await gateway.kill();
    gateway.launch();
    await gateway.ready();
    await write(gateway, 3);
    t.ok(await holds(gateway, 3), "a gateway that is started anew knows the config nodes");

    n3.launch();
    await n3.ready();
    await until("the replaced node is a data node", () => isListed(cluster, n3, false));
    await n4.kill();
    t.match(
      await gateway.refused("volume", "set", "v", "--description", "x"),
      /LAMINA_CLUSTER_UNREACHABLE/,
      "its vote does not make a majority",
    );
    n4.launch();
    await n4.ready();
    await until("a majority is there again", async () => {
      await gateway.lamina("volume", "set", "v", "--description", "x").catch(() => undefined);
      const { notices } = await cluster.status();
      return !notices.some((notice) => notice.includes(n4.address));
    });
    n2.launch();
    await n2.ready();
    t.ok(await holds(gateway, 3));
    await n3.kill();
    n3.launch();
    await n3.ready();
    // With the command line of before.
    await until("it starts as what it is now", () => isListed(cluster, n3, false));
    // The copy of n2 is made whole while somebody has the volume open.
    const client = await NbdClient.connect(gateway.host, gateway.port, "v");
    await until("it has given back what it had of the volume", async () => {
      const { nodes } = await cluster.status();
      return nodes.find(({ address }) => address === n3.address)?.usedBytes === 0;
    });
    await client.close();
    t.ok(await holds(gateway, 3));
    t.same(await cluster.end(), []);
  },
);
