import t from "tap";
import { Disconnected, NbdClient } from "../interop/support/nbd-client.js";
import { until } from "../interop/support/until.js";
import { Cluster } from "./support/cluster.js";

const BLOCK = Buffer.alloc(4096, 7);

t.test(
  "a gateway whose volume waits for a majority ends at one signal, and answers nothing wrong",
  async (t) => {
    const cluster = await Cluster.start(3, 1);
    t.teardown(async () => cluster.dispose());
    const [gateway] = cluster.gateways;
    await gateway!.lamina("volume", "create", "v", "--size", "16M");
    const client = await NbdClient.connect(gateway!.host, gateway!.port, "v");
    await client.write(0, BLOCK);
    await Promise.all(cluster.nodes.slice(1).map((node) => node.kill()));
    const waits = client.write(4096, BLOCK);
    let outcome = "none";
    waits.then(
      () => (outcome = "acknowledged"),
      (error: unknown) => (outcome = error instanceof Disconnected ? "cut off" : String(error)),
    );
    await until("the gateway says what the volume waits for", async () =>
      /volume v waits: .*down since/.test(await gateway!.lamina("status")),
    );
    const { code, stderr } = await gateway!.end();
    t.equal(code, 0);
    t.match(stderr, /stops without an answer to what waits/);
    await until("the client hears of it", () => outcome !== "none");
    t.equal(outcome, "cut off", "neither acknowledged nor failed");
    client.destroy();

    for (const node of cluster.nodes.slice(1)) node.launch();
    await Promise.all(cluster.nodes.map((node) => node.ready()));
    gateway!.launch();
    await gateway!.ready();
    const again = await NbdClient.connect(gateway!.host, gateway!.port, "v");
    t.ok((await again.read(0, BLOCK.length)).equals(BLOCK), "what was acknowledged is there");
    await again.write(4096, BLOCK);
    await again.close();
    t.same(await cluster.end(), []);
  },
);
