import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { EventLog, Mirror, parseRedisUrl } from "../../../lib/catalog/index.js";
import { dump, TestRedis } from "./support/redis.js";
import { record, Truth } from "./support/truth.js";

interface Rig {
  readonly redis: TestRedis;
  readonly truth: Truth;
  readonly mirror: Mirror;
  readonly events: EventLog;
  change(volume: number, extent: number, exists: boolean): void;
}

async function rig(test: Test, options: { pendingMax?: number } = {}): Promise<Rig> {
  const redis = new TestRedis();
  await redis.start();
  const truth = new Truth();
  const events = new EventLog(() => Date.now());
  const target = parseRedisUrl(redis.url);
  const wall = (): number => Date.now();
  const mirror = new Mirror({ target, source: truth, events, wall, checkMs: 50, ...options });
  test.teardown(async () => {
    redis.signal("SIGCONT");
    await mirror.close();
    await redis.destroy();
  });
  return {
    redis,
    truth,
    mirror,
    events,
    change(volume, extent, exists) {
      const { extents } = truth.volumes.get(volume)!;
      if (exists) extents.add(extent);
      else extents.delete(extent);
      mirror.extentChanged(volume, 0, extent, exists);
    },
  };
}

/** Waits until the mirror holds the truth. Its own word is not enough: the keys are compared. */
async function mirrored(test: Test, { redis, truth, mirror }: Rig, why: string): Promise<void> {
  let found: unknown;
  for (let tries = 0; tries < 400; tries++) {
    if (mirror.status().state === "mirrored") {
      const client = redis.client();
      found = await dump(client);
      client.disconnect();
      if (JSON.stringify(found) === JSON.stringify(truth.expected())) break;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  test.same(found, truth.expected(), why);
  test.equal(mirror.status().state, "mirrored", `${why}: says so`);
}

function populate({ truth }: Rig): void {
  truth.add(11, "alpha", [0, 1, 2, 511, 512, 513, 70_000]);
  truth.add(12, "beta");
  truth.add(2 ** 48 - 1, "gamma", [4_294_967_295]);
}

t.test("what is there at the start", async (t) => {
  const r = await rig(t);
  populate(r);
  r.mirror.start();
  await mirrored(t, r, "first fill");
});

t.test("extents, records and volumes that come, change and go", async (t) => {
  const r = await rig(t);
  populate(r);
  r.mirror.start();
  await mirrored(t, r, "before");
  r.change(11, 3, true);
  r.change(11, 0, false);
  r.change(11, 70_000, false);
  r.change(12, 9, true);
  r.change(12, 9, false);
  r.truth.add(13, "delta", [5]);
  r.truth.volumes.get(12)!.record = record(12, "beta-renamed", 2);
  r.truth.volumes.delete(2 ** 48 - 1);
  r.mirror.recordsChanged();
  await mirrored(t, r, "after");
});

t.test("random changes, while it writes", async (t) => {
  const r = await rig(t, { pendingMax: 40 });
  r.truth.add(1, "a");
  r.truth.add(2, "b");
  r.mirror.start();
  await mirrored(t, r, "before");
  let seed = 12345;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  for (let round = 0; round < 60; round++) {
    for (let i = random(60); i > 0; i--) r.change(1 + random(2), random(3000), random(3) > 0);
    await new Promise((resolve) => setTimeout(resolve, random(15)));
    t.ok(r.mirror.status().pending <= 40, "the bound holds", { diagnostic: false });
  }
  await mirrored(t, r, "after");
});

t.test("FLUSHALL", async (t) => {
  const r = await rig(t);
  populate(r);
  r.mirror.start();
  r.events.record("volume-created", "alpha", "volume alpha was created");
  await mirrored(t, r, "before");
  const client = r.redis.client();
  await client.flushall();
  r.change(11, 99, true);
  await mirrored(t, r, "after");
  await client.flushall();
  await mirrored(t, r, "after one without any change to notice it by");
  const kinds = (await client.xrange("lamina:{store}:events", "-", "+")).map(([, fields]) => fields[1]);
  client.disconnect();
  t.ok(kinds.includes("volume-created"), "events are there again");
  t.ok(kinds.includes("mirror-rebuilt"), "and it was an event itself");
});

t.test("killed and started again, with changes meanwhile", async (t) => {
  const r = await rig(t);
  populate(r);
  r.mirror.start();
  await mirrored(t, r, "before");
  await r.redis.kill();
  r.change(11, 100, true);
  for (let tries = 0; r.mirror.status().state !== "down" && tries < 200; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  t.equal(r.mirror.status().state, "down");
  t.type(r.mirror.status().reason, "string");
  r.change(11, 101, true);
  r.truth.volumes.delete(12);
  r.mirror.recordsChanged();
  await r.redis.start();
  await mirrored(t, r, "after");
});

t.test("an old copy restored", async (t) => {
  const r = await rig(t);
  populate(r);
  r.mirror.start();
  await mirrored(t, r, "before");
  await r.redis.kill();
  const data = join(r.redis.directory, "appendonlydir");
  cpSync(data, `${data}.old`, { recursive: true });
  await r.redis.start();
  r.change(11, 200, true);
  r.change(11, 0, false);
  r.truth.volumes.delete(12);
  r.truth.add(14, "epsilon", [1]);
  r.mirror.recordsChanged();
  await mirrored(t, r, "moved on");
  await r.redis.kill();
  rmSync(data, { recursive: true });
  cpSync(`${data}.old`, data, { recursive: true });
  await r.redis.start();
  await mirrored(t, r, "after the old copy");
});

t.test("hung: nothing waits for it, and it catches up", async (t) => {
  const r = await rig(t);
  populate(r);
  r.mirror.start();
  await mirrored(t, r, "before");
  r.redis.signal("SIGSTOP");
  r.change(11, 300, true);
  for (let tries = 0; r.mirror.status().state !== "down" && tries < 400; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 25));
    r.change(11, 300 + tries, true);
  }
  t.equal(r.mirror.status().state, "down");
  r.redis.signal("SIGCONT");
  await mirrored(t, r, "after");
});

t.test("one key of many deleted or added by hand, found by the next process", async (t) => {
  const r = await rig(t);
  populate(r);
  r.mirror.start();
  await mirrored(t, r, "before");
  await r.mirror.close();
  const client = r.redis.client();
  await client.hdel("lamina:{v11}:x:0:0", "1");
  await client.hset("lamina:{v11}:x:0:0", "7", "n1");
  await client.hset("lamina:{v12}:x:0:3", "1537", "n1");
  await client.sadd("lamina:{v12}:buckets", "0:3");
  await client.hset("lamina:{store}:volumes", "77", "ghost");
  await client.hset("lamina:{v77}:record", "name", "ghost");
  client.disconnect();
  const { truth, events } = r;
  const wall = (): number => Date.now();
  const next = new Mirror({ target: parseRedisUrl(r.redis.url), source: truth, events, wall, checkMs: 50 });
  t.teardown(() => next.close());
  next.start();
  await mirrored(t, { ...r, mirror: next }, "after");
});
