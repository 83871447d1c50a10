import t from "tap";
import { EventLog, Mirror, parseRedisUrl } from "../../../lib/catalog/index.js";
import { dump, TestRedis } from "./support/redis.js";
import { Truth } from "./support/truth.js";

async function refusal(redis: TestRedis, truth: Truth): Promise<string | null> {
  const events = new EventLog(() => Date.now());
  const target = parseRedisUrl(redis.url);
  const mirror = new Mirror({ target, source: truth, events, wall: () => Date.now() });
  mirror.start();
  for (let tries = 0; tries < 200 && mirror.status().state === "connecting"; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  const { state, reason } = mirror.status();
  await mirror.close();
  return state === "refused" ? reason : null;
}

t.test("the mirror of another store stays as it is", async (t) => {
  const redis = new TestRedis();
  t.teardown(() => redis.destroy());
  await redis.start();
  const client = redis.client();
  t.teardown(() => client.disconnect());
  await client.hset("lamina:{store}:identity", "store", "ffff");
  await client.hset("lamina:{store}:volumes", "11", "theirs");
  const before = await dump(client);
  const truth = new Truth("a1b2");
  truth.add(11, "ours", [1]);
  t.match(await refusal(redis, truth), /belongs to another Lamina store \(ffff, this one is a1b2\)/);
  t.same(await dump(client), before);
});

t.test("one that may drop keys", async (t) => {
  const redis = new TestRedis(["--maxmemory-policy", "allkeys-lru"]);
  t.teardown(() => redis.destroy());
  await redis.start();
  t.match(await refusal(redis, new Truth()), /maxmemory-policy is allkeys-lru/);
  const client = redis.client();
  t.teardown(() => client.disconnect());
  t.same(await client.keys("*"), []);
});
