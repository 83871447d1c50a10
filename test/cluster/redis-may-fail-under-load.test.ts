import { readdirSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { dump, OwnRedis, redisCli, redisPidsBelow } from "../interop/support/redis.js";
import { requires } from "../interop/support/requirements.js";
import { removeScratch, scratchDirectory } from "../interop/support/scratch.js";
import { LaminaServer } from "../interop/support/server.js";
import { until } from "../interop/support/until.js";
import { VOLUME } from "../interop/support/volume.js";
import { History } from "./support/history.js";
import { Load, verify } from "./support/load.js";
import { SeededRandom } from "./support/random.js";
import { SECTOR_BYTES } from "./support/sector-codec.js";

const MIB = 1 << 20;
const SIZE_BYTES = 64 * MIB;
/** Requests that must be answered during an outage: the load goes on as if nothing had happened. */
const REQUESTS_IN_OUTAGE = 500;

/** What differs from one life of the mirror to the next: versions, and capacities that change by the minute. */
const OWN_TO_A_LIFE = /:identity |:stamp |:nodes /;

async function catalogue(socket: string): Promise<string[]> {
  return (await dump(socket)).filter((line) => !OWN_TO_A_LIFE.test(line));
}

async function untilMirrored(server: LaminaServer): Promise<void> {
  await until("the mirror is equal to the store", async () => {
    const status = (await server.json("status")) as { readonly mirror: { readonly state: string } };
    return status.mirror.state === "mirrored";
  });
}

function answered(load: Load): number {
  const { reads, writes, flushes, zeroes, trims } = load.counts;
  return reads + writes + flushes + zeroes + trims;
}

async function loadGoesOn(load: Load): Promise<void> {
  const before = answered(load);
  await until(
    "requests are answered during the outage",
    () => load.errors.length > 0 || answered(load) >= before + REQUESTS_IN_OUTAGE,
  );
}

interface Scene {
  readonly server: LaminaServer;
  readonly load: Load;
  readonly history: History;
}

async function underLoad(t: Test, server: LaminaServer): Promise<Scene> {
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "64M");
  const history = new History(SIZE_BYTES / SECTOR_BYTES);
  const load = new Load(history, new SeededRandom(7));
  await load.start(server, VOLUME);
  return { server, load, history };
}

async function endsWell(t: Test, { server, load, history }: Scene): Promise<void> {
  await load.stop();
  await verify(server, VOLUME, history, "all");
  t.same(load.errors, [], "no request failed");
  t.same(history.violations, [], "everything reads back");
}

const needs = requires({ lamina: true, commands: ["redis-cli", "redis-check-rdb"] });

t.test("wiped, killed and restored to an old copy", needs, async (t) => {
  const folder = scratchDirectory();
  t.teardown(() => removeScratch(folder));
  const redis = new OwnRedis(join(folder, "redis"));
  await redis.start();
  t.teardown(async () => redis.kill());
  const scene = await underLoad(t, new LaminaServer({ capacity: "1G", args: ["--redis", redis.url] }));
  const { load } = scene;
  await untilMirrored(scene.server);
  const old = join(folder, "old-copy");
  redis.saveTo(old);

  await scene.server.createVolume("second", "1G");
  await untilMirrored(scene.server);
  await redisCli(redis.socket, "FLUSHALL");
  await loadGoesOn(load);
  await untilMirrored(scene.server);
  t.match((await catalogue(redis.socket)).join("\n"), /second/, "rebuilt after FLUSHALL");

  await redis.kill();
  await loadGoesOn(load);
  await scene.server.createVolume("third", "1G");
  t.match(await scene.server.lamina("volume", "ls"), /third/, "volumes are created while Redis is down");
  await redis.start();
  await until("the mirror catches up", async () => /third/.test((await catalogue(redis.socket)).join("\n")));

  await redis.kill();
  redis.restoreFrom(old);
  await redis.start();
  await loadGoesOn(load);
  await until("the old copy is brought up to date", async () =>
    /third/.test((await catalogue(redis.socket)).join("\n")),
  );
  await endsWell(t, scene);

  // Written anew from the store, it is the same as what was kept up to date.
  await untilMirrored(scene.server);
  const kept = await catalogue(redis.socket);
  t.ok(kept.length > 0);
  await redisCli(redis.socket, "FLUSHALL");
  await until(
    "the mirror is written anew",
    async () => (await catalogue(redis.socket)).length === kept.length,
  );
  await untilMirrored(scene.server);
  t.same(await catalogue(redis.socket), kept);
});

t.test("the private Redis is killed", needs, async (t) => {
  const scene = await underLoad(t, new LaminaServer({ capacity: "1G" }));
  await untilMirrored(scene.server);
  const before = redisPidsBelow(scene.server.data);
  t.equal(before.length, 1, "one Redis runs in the data directory");
  for (const pid of before) process.kill(pid, "SIGKILL");
  await loadGoesOn(scene.load);
  await until("another one is started", () =>
    redisPidsBelow(scene.server.data).some((pid) => !before.includes(pid)),
  );
  await untilMirrored(scene.server);
  await endsWell(t, scene);
  await scene.server.stop();
  t.same(redisPidsBelow(scene.server.data), [], "it ends with the server");
  t.notOk(readdirSync(scene.server.data).includes("redis.sock"), "and leaves no socket");
});

t.test("the private Redis hangs", needs, async (t) => {
  const scene = await underLoad(t, new LaminaServer({ capacity: "1G" }));
  await untilMirrored(scene.server);
  const [pid] = redisPidsBelow(scene.server.data);
  if (pid === undefined) throw new Error("there is no Redis");
  process.kill(pid, "SIGSTOP");
  await loadGoesOn(scene.load);
  await scene.server.createVolume("meanwhile", "1G");
  await loadGoesOn(scene.load);
  process.kill(pid, "SIGCONT");
  await untilMirrored(scene.server);
  await endsWell(t, scene);
});

t.test("the private Redis ends with a killed server", needs, async (t) => {
  const server = new LaminaServer({ capacity: "1G" });
  t.teardown(async () => server.dispose());
  await server.start();
  await until("Redis runs", () => redisPidsBelow(server.data).length === 1);
  await server.kill();
  await until("Redis is gone", () => redisPidsBelow(server.data).length === 0);
});
