/** Two gateways mirror a cluster into one Redis, which is wiped, killed and rolled back; then the one that writes dies. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { NbdClient } from "../interop/support/nbd-client.js";
import { dump, OwnRedis, redisCli } from "../interop/support/redis.js";
import { requires } from "../interop/support/requirements.js";
import { scratchDirectory } from "../interop/support/scratch.js";
import { until } from "../interop/support/until.js";
import { Cluster } from "./support/cluster.js";
import type { Station } from "./support/station.js";

const BLOCK = Buffer.alloc(4096, 7);
const EXTENT_BYTES = 4 * 2 ** 20;
/** What differs from one life of the mirror to the next. */
const OWN_TO_A_LIFE = /:identity |:stamp |:nodes |:cursors /;

async function stateOf(gateway: Station): Promise<string> {
  const { mirror } = JSON.parse(await gateway.lamina("status", "--json")) as { mirror: { state: string } };
  return mirror.state;
}

t.test(
  "Redis under a cluster",
  requires({ lamina: true, commands: ["redis-cli", "redis-check-rdb"] }),
  async (t) => {
    const directory = scratchDirectory();
    const redis = new OwnRedis(join(directory, "redis"));
    mkdirSync(redis.folder, { recursive: true });
    await redis.start();
    t.teardown(() => redis.kill());
    const cluster = await Cluster.start(3, 2, { directory, gatewayArgs: ["--redis", redis.url] });
    t.teardown(async () => cluster.dispose());
    const [first, second] = cluster.gateways as [Station, Station];
    const catalogue = async () => (await dump(redis.socket)).filter((line) => !OWN_TO_A_LIFE.test(line));
    const says = (pattern: RegExp) => async () => pattern.test((await catalogue()).join("\n"));

    await first.lamina("volume", "create", "v", "--size", "64M");
    const client = await NbdClient.connect(first.host, first.port, "v");
    await client.write(0, BLOCK);
    await client.write(2 * EXTENT_BYTES, BLOCK);
    await until(
      "the index says which nodes hold the extents",
      says(/:x:0:0 hash 0=\w{8},\w{8},\w{8} 2=\w{8},\w{8},\w{8}$/m),
    );
    const roles = async () => (await Promise.all([first, second].map(stateOf))).sort().join();
    await until(
      "one gateway mirrors, the other stands by",
      async () => (await roles()) === "mirrored,standby",
    );
    const old = join(directory, "old-copy");
    redis.saveTo(old);
    const kept = await catalogue();

    await redisCli(redis.socket, "FLUSHALL");
    await client.write(EXTENT_BYTES / 2, BLOCK);
    await client.flush();
    await until("what was wiped is written anew", async () => (await catalogue()).length === kept.length);
    t.same(await catalogue(), kept, "equal to what was kept up to date");

    await redis.kill();
    await client.write(5 * EXTENT_BYTES, BLOCK);
    await client.flush();
    await second.lamina("volume", "create", "w", "--size", "16M");
    // A gateway asks for the catalogue every second.
    await until("I/O and control go on without it", async () =>
      /\bw\b/.test(await first.lamina("volume", "ls")),
    );
    redis.restoreFrom(old);
    await redis.start();
    await until("an old copy is brought up to date", says(/name=w\b/));
    await until("with what was written meanwhile", says(/ 5=\w{8},\w{8},\w{8}$/m));
    await client.close();

    await until("one of them mirrors again", async () => (await roles()) === "mirrored,standby");
    const writer = (await stateOf(first)) === "mirrored" ? first : second;
    const other = writer === first ? second : first;
    await writer.kill();
    await until("the other one takes over", async () => (await stateOf(other)) === "mirrored");
    await other.lamina("volume", "rm", "w");
    await until("and follows what happens", async () => !(await says(/name=w\b/)()));
    writer.launch();
    await writer.ready();
    t.same(await cluster.end(), []);
  },
);
