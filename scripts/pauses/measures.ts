/** What is measured: each once, on a cluster that is whole and is so again afterwards. Milliseconds and bytes. */
import { get } from "node:http";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import type { Cluster, Station } from "../../test/cluster/support/cluster.js";
import { attach } from "../../test/cluster/support/load.js";
import { type OwnRedis, redisCli } from "../../test/interop/support/redis.js";
import { until } from "../../test/interop/support/until.js";
import { SteadyWriter } from "./writer.js";

const MIB = 1 << 20;
const BLOCK_BYTES = 4096;
const EXTENT_BYTES = 4 * MIB;
/** Pace of the client that feels the pauses. */
const EVERY_MS = 2;
/** Before something happens, and after. */
const QUIET_MS = 2000;
const AFTER_KILL_MS = 5000;
/** A round of writes that are sent together. */
const BATCH = 64;
const RETRY_MS = 20;

export interface Plan {
  readonly cluster: Cluster;
  readonly volume: string;
  readonly sizeBytes: number;
}

/** By name of what was measured. */
export type Measured = Readonly<Record<string, number>>;

/** Asked over the admin socket: a command would be a process that takes the machine's time from what is measured. */
async function untilWhole({ gateways }: Cluster): Promise<void> {
  await until("every copy is in sync", async () => {
    for (const { data } of gateways) {
      const { owned } = await statusOf(data);
      if (owned.some(({ copies }) => copies.length > 0 && copies.every(({ inSync }) => inSync))) return true;
    }
    return false;
  });
}

/** Brought up to date while it is open at `at`. */
async function whole({ cluster, volume }: Plan, at: Station): Promise<void> {
  const holds = await attach(at, volume);
  await untilWhole(cluster);
  await holds.close();
}

interface OwnedCopies {
  readonly owned: readonly { readonly copies: readonly { readonly inSync: boolean }[] }[];
}

function statusOf(data: string): Promise<OwnedCopies> {
  return new Promise((resolve, reject) => {
    const asked = get({ socketPath: join(data, "admin.sock"), path: "/v1/status" }, (answer) => {
      text(answer).then((body) => resolve(JSON.parse(body) as OwnedCopies), reject);
    });
    asked.on("error", reject);
  });
}

/** kill -9 of one node of three under load. */
export async function nodeKilled({ cluster, volume, sizeBytes }: Plan, round: number): Promise<Measured> {
  const node = cluster.nodes[round % cluster.nodes.length]!;
  const writer = await SteadyWriter.start(cluster.gateways[0]!, volume, {
    bytes: sizeBytes,
    everyMs: EVERY_MS,
  });
  await sleep(QUIET_MS);
  const killedAt = performance.now();
  await node.kill();
  await sleep(AFTER_KILL_MS);
  const stall = writer.longest(killedAt - QUIET_MS / 4, killedAt + AFTER_KILL_MS);
  const before = writer.percentile(0.99, killedAt - QUIET_MS, killedAt - QUIET_MS / 4);
  node.launch();
  await node.ready();
  await untilWhole(cluster);
  await writer.stop();
  return { "longest write, ms": stall, "p99 before, ms": before };
}

/** One block in each of `extents` extents, spread over the volume. */
export async function touch(
  where: Station,
  volume: string,
  sizeBytes: number,
  extents: number,
): Promise<void> {
  const client = await attach(where, volume);
  const step = Math.floor(sizeBytes / EXTENT_BYTES / extents) * EXTENT_BYTES;
  for (let first = 0; first < extents; first += BATCH) {
    const batch = Array.from({ length: Math.min(BATCH, extents - first) }, (_, i) =>
      client.write((first + i) * step, Buffer.alloc(BLOCK_BYTES, 1 + (i & 0x7f))),
    );
    await Promise.all(batch);
  }
  await client.close();
}

/** kill -9 of the gateway that owns a volume whose extents were all just written; another one takes over. */
export async function gatewayKilled(plan: Plan, round: number, extents: number): Promise<Measured> {
  const { cluster, volume, sizeBytes } = plan;
  const [owner, other] =
    round % 2 === 0
      ? [cluster.gateways[0]!, cluster.gateways[1]!]
      : [cluster.gateways[1]!, cluster.gateways[0]!];
  const writer = await SteadyWriter.start(owner, volume, { bytes: sizeBytes, everyMs: EVERY_MS });
  await touch(owner, volume, sizeBytes, extents);
  const killedAt = performance.now();
  const killed = owner.kill();
  writer.abandon();
  await killed;
  await persisted(async () => {
    const client = await attach(other, volume);
    await client.write(0, Buffer.alloc(BLOCK_BYTES, 1));
    await client.close();
  });
  const served = performance.now() - killedAt;
  owner.launch();
  await owner.ready();
  await whole(plan, other);
  return { "kill to the first write elsewhere, ms": served };
}

async function persisted(work: () => Promise<void>): Promise<void> {
  let done = false;
  while (!done) {
    await work().then(
      () => {
        done = true;
      },
      () => sleep(RETRY_MS),
    );
  }
}

/** FLUSHALL of the Redis that gateways mirror into, under load. */
export async function redisFlushed({ cluster, volume, sizeBytes }: Plan, redis: OwnRedis): Promise<Measured> {
  const writer = await SteadyWriter.start(cluster.gateways[0]!, volume, {
    bytes: sizeBytes,
    everyMs: EVERY_MS,
  });
  await sleep(QUIET_MS);
  const flushedAt = performance.now();
  await redisCli(redis.socket, "FLUSHALL");
  await sleep(QUIET_MS);
  await writer.stop();
  return {
    "longest write, ms": writer.longest(flushedAt - QUIET_MS / 4, flushedAt + QUIET_MS),
    "longest before, ms": writer.longest(flushedAt - QUIET_MS, flushedAt - QUIET_MS / 4),
  };
}

/** A node is away while `bytes` are written, and comes back: first to an idle volume, then to one in use. */
export async function nodeReturned(plan: Plan, round: number, bytes: number): Promise<Measured> {
  const { cluster } = plan;
  const node = cluster.nodes[round % cluster.nodes.length]!;
  const idle = await returned(plan, node, bytes, async () => undefined);
  let p99 = { before: Number.NaN, during: Number.NaN };
  const used = await returned(plan, node, bytes, async (untilBack) => {
    const writer = await SteadyWriter.start(cluster.gateways[0]!, plan.volume, {
      bytes: plan.sizeBytes,
      everyMs: EVERY_MS,
    });
    await sleep(QUIET_MS);
    const begun = performance.now();
    await untilBack();
    const ended = performance.now();
    await writer.stop();
    p99 = {
      before: writer.percentile(0.99, begun - QUIET_MS, begun),
      during: writer.percentile(0.99, begun, ended),
    };
  });
  return {
    "written while away, MiB": bytes / MIB,
    "sent to it, MiB": idle.bytes / MIB,
    "resync of an idle volume, ms": idle.ms,
    "resync of one in use, ms": used.ms,
    "p99 before, ms": p99.before,
    "p99 during, ms": p99.during,
  };
}

async function returned(
  plan: Plan,
  node: Station,
  bytes: number,
  around: (untilBack: () => Promise<void>) => Promise<void>,
): Promise<{ readonly bytes: number; readonly ms: number }> {
  const { cluster, volume, sizeBytes } = plan;
  const gateway = cluster.gateways[0]!;
  await node.kill();
  await rewrite(gateway, volume, sizeBytes, bytes);
  let result = { bytes: 0, ms: 0 };
  const back = async (): Promise<void> => {
    node.launch();
    await node.ready();
    const received = await cluster.network!.receivedBytes(node.index);
    const begun = performance.now();
    await whole(plan, gateway);
    result = {
      bytes: (await cluster.network!.receivedBytes(node.index)) - received,
      ms: performance.now() - begun,
    };
  };
  await around(back);
  if (result.ms === 0) await back();
  return result;
}

/** Random runs of 64 KiB, `bytes` in all. */
async function rewrite(where: Station, volume: string, sizeBytes: number, bytes: number): Promise<void> {
  const run = 16 * BLOCK_BYTES;
  const client = await attach(where, volume);
  for (let left = bytes; left > 0; ) {
    const batch: Promise<void>[] = [];
    for (let i = 0; i < BATCH && left > 0; i++, left -= run) {
      const offset = Math.floor(Math.random() * (sizeBytes / run)) * run;
      batch.push(client.write(offset, Buffer.alloc(run, 1 + Math.floor(Math.random() * 255))));
    }
    await Promise.all(batch);
  }
  await client.flush();
  await client.close();
}
