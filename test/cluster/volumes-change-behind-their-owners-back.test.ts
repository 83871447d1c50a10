import t from "tap";
import { NbdClient } from "../interop/support/nbd-client.js";
import { until } from "../interop/support/until.js";
import { Cluster, type Station } from "./support/cluster.js";

const BLOCK = Buffer.alloc(4096, 7);
/** More than the page of a record has room for. */
const LONG_LIST = Array.from({ length: 64 }, (_, i) => ["--allow", `address:2001:db8:1:${i}::/64`]).flat();

interface Shown {
  readonly size: number;
  readonly description: string;
}

async function shown(gateway: Station, name: string): Promise<Shown> {
  return JSON.parse(await gateway.lamina("volume", "show", name, "--json")) as Shown;
}

async function names(gateway: Station): Promise<readonly string[]> {
  const { volumes } = JSON.parse(await gateway.lamina("volume", "ls", "--json")) as {
    volumes: { name: string }[];
  };
  return volumes.map(({ name }) => name);
}

t.test(
  "volumes are changed through any gateway, but not behind the back of the one that owns them",
  async (t) => {
    const cluster = await Cluster.start(3, 2);
    t.teardown(async () => cluster.dispose());
    const [owner, other] = cluster.gateways as [Station, Station];
    await owner.lamina("volume", "create", "v", "--size", "16M");

    await t.test("while nobody owns it", async (t) => {
      await until("the other gateway lists it", async () => (await names(other)).includes("v"));
      t.match(await other.refused("volume", "create", "v", "--size", "8M"), /LAMINA_VOLUME_EXISTS/);
      await other.lamina("volume", "set", "v", "--description", "disk of a machine");
      await other.lamina("volume", "resize", "v", "--size", "24M");
      t.match(await other.refused("volume", "resize", "v", "--size", "8M"), /LAMINA_VOLUME_SHRINK/);
      await until("the first gateway has heard of it", async () => {
        const { size, description } = await shown(owner, "v");
        return size === 24 << 20 && description === "disk of a machine";
      });
    });

    await t.test("while it is open", async (t) => {
      const client = await NbdClient.connect(owner.host, owner.port, "v");
      await client.write(0, BLOCK);
      t.match(
        await owner.refused("volume", "rename", "v", "w"),
        /open on 1 connection.*LAMINA_VOLUME_IN_USE/,
      );
      t.match(await owner.refused("volume", "rm", "v"), /LAMINA_VOLUME_IN_USE/);
      for (const change of [
        ["set", "v", "--description", "x"],
        ["resize", "v", "--size", "32M"],
        ["rename", "v", "w"],
        ["rm", "v"],
      ])
        t.match(await other.refused("volume", ...change), /LAMINA_VOLUME_ELSEWHERE/, change.join(" "));
      t.match(await owner.refused("volume", "set", "v", ...LONG_LIST), /LAMINA_RECORD_TOO_LARGE/);
      await owner.lamina("volume", "resize", "v", "--size", "32M");
      await client.write((32 << 20) - BLOCK.length, BLOCK);
      t.ok((await client.read((32 << 20) - BLOCK.length, BLOCK.length)).equals(BLOCK), "it has grown");
      await client.close();
    });

    await t.test("when it was let go of", async (t) => {
      await until("the gateway has let go of it", async () => {
        const { volumes } = await cluster.status();
        return volumes.every(({ owned }) => !owned);
      });
      await other.lamina("volume", "rename", "v", "w");
      const client = await NbdClient.connect(other.host, other.port, "w");
      t.ok((await client.read(0, BLOCK.length)).equals(BLOCK), "under the new name, at the other gateway");
      await client.close();
      await until("it is let go of", async () => {
        await other.lamina("volume", "rm", "w").catch(() => undefined);
        return (await names(other)).length === 0;
      });
      await until("every node has given its extents back", async () => {
        const { nodes } = await cluster.status();
        return nodes.every(({ usedBytes }) => usedBytes === 0);
      });
      t.same(await names(owner), []);
    });

    t.same(await cluster.end(), []);
  },
);
