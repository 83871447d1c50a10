/** The Redis into which gateways mirror: whatever becomes of it, no client may notice. */
import { join } from "node:path";
import { type OwnRedis, redisCli } from "../../../interop/support/redis.js";
import { awaySpan, KILLED_MS, LOAD_MS, type Scene, type Stage } from "./scene.js";

function redisOf({ cluster }: Stage): OwnRedis {
  if (cluster.redis === null) throw new Error("the cluster has no Redis");
  return cluster.redis;
}

async function killed(stage: Stage): Promise<void> {
  const redis = redisOf(stage);
  await redis.kill();
  await stage.during(KILLED_MS);
  await redis.start();
  await stage.during(LOAD_MS);
  await stage.stopLoad();
}

async function stopped(stage: Stage): Promise<void> {
  const redis = redisOf(stage);
  redis.pause();
  await stage.during(awaySpan(stage));
  redis.goOn();
  await stage.during(LOAD_MS);
  await stage.stopLoad();
}

async function wiped(stage: Stage): Promise<void> {
  await redisCli(redisOf(stage).socket, "FLUSHALL");
  await stage.during(LOAD_MS);
  await stage.stopLoad();
}

/** What it knew some time ago, and another owner since. */
async function rolledBack(stage: Stage): Promise<void> {
  const redis = redisOf(stage);
  const old = join(stage.cluster.directory, "redis-before");
  redis.saveTo(old);
  await stage.stopLoad();
  stage.moveOn(1);
  await stage.startLoad();
  await stage.during(KILLED_MS);
  await redis.kill();
  redis.restoreFrom(old);
  await redis.start();
  await stage.during(LOAD_MS);
  await stage.stopLoad();
}

export const REDIS_SCENES: readonly Scene[] = [
  { name: "kill Redis", needs: "redis", play: killed },
  { name: "stop Redis", needs: "redis", play: stopped },
  { name: "wipe Redis", needs: "redis", play: wiped },
  { name: "roll Redis back", needs: "redis", play: rolledBack },
];
