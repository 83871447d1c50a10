/** Several gateways of a cluster mirror into one Redis: one writes, the others stand by, and nothing differs. */
import t, { type Test } from "tap";
import { EventLog, Mirror, parseRedisUrl } from "../../../lib/catalog/index.js";
import { dump, TestRedis } from "./support/redis.js";
import { Truth } from "./support/truth.js";

const STANDBY_MS = 500;
const NODES = ["n1", "n2", "n3"];

/** Extents on two of three nodes. */
class ClusterTruth extends Truth {
  /** Node that has left every extent; null: none. */
  left: string | null = null;

  holders(_volume: number, _layer: number, extent: number): string {
    return NODES.filter((name, i) => i !== extent % 3 && name !== this.left).join(",");
  }

  nodes(): Map<string, Record<string, number>> {
    return new Map(NODES.filter((name) => name !== this.left).map((name) => [name, { slots: 7 }]));
  }

  protected override valueOf(volume: number, extent: number): string {
    return this.holders(volume, 0, extent);
  }

  protected override expectedNodes(): Record<string, string> {
    return Object.fromEntries([...this.nodes()].map(([name, facts]) => [name, JSON.stringify(facts)]));
  }
}

interface Gateway {
  readonly mirror: Mirror;
  readonly events: EventLog;
}

async function redisOf(t: Test): Promise<TestRedis> {
  const redis = new TestRedis();
  await redis.start();
  t.teardown(() => redis.destroy());
  return redis;
}

function gateway(t: Test, redis: TestRedis, truth: Truth, name: string): Gateway {
  const events = new EventLog(() => Date.now());
  const target = parseRedisUrl(redis.url);
  const wall = (): number => Date.now();
  const options = { target, source: truth, events, wall, checkMs: 50, standbyMs: STANDBY_MS, gateway: name };
  const mirror = new Mirror(options);
  mirror.start();
  t.teardown(() => mirror.close(0));
  return { mirror, events };
}

const states = (gateways: readonly Gateway[]): string[] =>
  gateways.map(({ mirror }) => mirror.status().state).sort();

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 1200; tries++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`never happened: ${what}`);
}

async function equal(t: Test, redis: TestRedis, truth: Truth, why: string): Promise<void> {
  const expected = JSON.stringify(truth.expected());
  let found: Record<string, unknown> = {};
  await until(why, async () => {
    const client = redis.client();
    found = (await dump(client)) as Record<string, unknown>;
    client.disconnect();
    return JSON.stringify(found) === expected;
  }).catch(() => undefined);
  t.same(found, truth.expected(), why);
}

async function told(redis: TestRedis): Promise<string[]> {
  const client = redis.client();
  const entries = (await client.xrange("lamina:{store}:events", "-", "+")) as [string, string[]][];
  client.disconnect();
  return entries.map(([, fields]) => fields[fields.indexOf("text") + 1]!);
}

t.test("one writes, the other stands by and takes over", async (t) => {
  const redis = await redisOf(t);
  const truth = new ClusterTruth();
  truth.add(11, "alpha", [0, 1, 2, 511, 512, 70_000]);
  truth.add(12, "beta", [3]);
  const all = [gateway(t, redis, truth, "g1"), gateway(t, redis, truth, "g2")];
  await until("one of them mirrors", () => states(all).join() === "mirrored,standby");
  await equal(t, redis, truth, "with the nodes that hold each extent");

  all[0]!.events.record("volume-opened", "alpha", "first here");
  all[1]!.events.record("volume-opened", "alpha", "second here");
  await until("the events of both are in the stream", async () => {
    const texts = await told(redis);
    return texts.includes("first here") && texts.includes("second here");
  });

  truth.volumes.get(11)!.extents.add(9);
  for (const { mirror } of all) mirror.extentChanged(11, 0, 9, true);
  await equal(t, redis, truth, "a change that both have heard of");
  t.same(states(all), ["mirrored", "standby"], "and nobody has taken anything over");

  const writer = all.find(({ mirror }) => mirror.status().state === "mirrored")!;
  const other = all.find((one) => one !== writer)!;
  await writer.mirror.close(0);
  truth.add(13, "gamma", [1]);
  other.mirror.recordsChanged();
  await until("the other one takes over", () => other.mirror.status().state === "mirrored");
  await equal(t, redis, truth, "and knows what has changed");
});

t.test("wiped, with two of them", async (t) => {
  const redis = await redisOf(t);
  const truth = new ClusterTruth();
  truth.add(11, "alpha", [0, 1, 600]);
  const all = [gateway(t, redis, truth, "g1"), gateway(t, redis, truth, "g2")];
  all[0]!.events.record("volume-opened", "alpha", "before the wipe");
  await until("one of them mirrors", () => states(all).join() === "mirrored,standby");
  const client = redis.client();
  await client.flushall();
  client.disconnect();
  truth.left = "n3";
  await equal(t, redis, truth, "everything is written anew, by one of them");
  await until("and one of them only", () => states(all).join() === "mirrored,standby");
  t.ok((await told(redis)).includes("before the wipe"), "events that are still known are told again");
});
