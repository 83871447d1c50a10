/**
 * A server with connection threads is the same server: one volume on several threads at once, control operations
 * seen by all of them, kills survived. Any other test runs on threads with LAMINA_TEST_THREADS=2.
 */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import t from "tap";
import { killRounds } from "../cluster/support/kill-rounds.js";
import { verifiedLoad } from "./support/fio.js";
import { metrics, metricValue } from "./support/metrics.js";
import { NbdClient } from "./support/nbd-client.js";
import { check, run } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { removeScratch, scratchDirectory } from "./support/scratch.js";
import { LAMINA, LaminaServer } from "./support/server.js";
import { until } from "./support/until.js";

const THREADS = ["--threads", "2"];
const MIB = 1 << 20;
const BLOCK = 4096;

interface Status {
  readonly gateway: {
    readonly connections: number;
    readonly threads: readonly { readonly connections: number; readonly requests: number }[];
  };
}

async function serve(t: Pick<Test, "teardown">, size = "64M"): Promise<LaminaServer> {
  const server = new LaminaServer({ capacity: "1G", args: THREADS });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume("v", size);
  return server;
}

async function statusOf(server: LaminaServer): Promise<Status> {
  return (await server.json("status")) as Status;
}

t.test("four connections are two for each thread, and so are their requests", async (t) => {
  const server = await serve(t);
  const clients = await Promise.all([0, 1, 2, 3].map(() => NbdClient.connect(server.host, server.port, "v")));
  const ROUNDS = 200;
  await Promise.all(
    clients.map(async (client, i) => {
      for (let round = 0; round < ROUNDS; round++) {
        await client.write((i * ROUNDS + round) * BLOCK, Buffer.alloc(BLOCK, `${i} ${round} `));
      }
    }),
  );
  const { gateway } = await statusOf(server);
  t.same(
    gateway.threads.map(({ connections }) => connections),
    [2, 2],
  );
  const all = gateway.threads.reduce((sum, { requests }) => sum + requests, 0);
  t.ok(all >= 4 * ROUNDS, `${all} requests`);
  for (const { requests } of gateway.threads) {
    t.ok(requests >= 0.45 * all && requests <= 0.55 * all, `${requests} of ${all}`);
  }
  t.match(await check(LAMINA, ["status", "--data", server.data]), /thread 1 +2 connection\(s\)/);
  const text = await metrics(server.data);
  t.equal(metricValue(text, "lamina_connections"), 4);
  t.match(text, /^lamina_thread_connections\{thread="1"\} 2$/m);
  t.match(text, /^lamina_thread_requests_total\{thread="0"\} \d+$/m);
  t.equal(metricValue(text, "lamina_gateway_connections_accepted_total"), 4);

  // Each reads, on its own thread, what another one wrote on another thread.
  for (const [i, client] of clients.entries()) {
    const writer = (i + 1) % 4;
    const seen = await client.read((writer * ROUNDS + 7) * BLOCK, BLOCK);
    t.ok(seen.equals(Buffer.alloc(BLOCK, `${writer} 7 `)));
  }
  for (const client of clients) await client.close();
  await until("all connections are over", async () => (await statusOf(server)).gateway.connections === 0);
  await server.stop();
  t.equal((await server.fsck()).code, 0);
});

t.test("control operations are seen by every thread", async (t) => {
  const server = await serve(t, "8M");
  const clients = [0, 1].map(() => NbdClient.connect(server.host, server.port, "v"));
  const [one, two] = (await Promise.all(clients)) as [NbdClient, NbdClient];
  await one.write(0, Buffer.alloc(BLOCK, 1));
  await t.rejects(two.write(8 * MIB, Buffer.alloc(BLOCK, 2)), "beyond the end");
  await server.lamina("volume", "resize", "v", "--size", "16M");
  await two.write(15 * MIB, Buffer.alloc(BLOCK, 2));
  t.ok((await one.read(15 * MIB, BLOCK)).equals(Buffer.alloc(BLOCK, 2)), "grown for all of them at once");

  const removed = await run(LAMINA, ["volume", "rm", "v", "--data", server.data]);
  t.not(removed.code, 0);
  t.match(removed.stderr, /open on 2 connection/);
  await server.lamina("volume", "rename", "v", "w");
  await t.rejects(NbdClient.connect(server.host, server.port, "v"), "the old name is gone");
  const third = await NbdClient.connect(server.host, server.port, "w");
  t.equal(third.sizeBytes, 16 * MIB);
  await server.lamina("volume", "set", "w", "--read-only");
  await t.rejects(third.write(0, Buffer.alloc(BLOCK)), "read-only from now on");
  for (const client of [one, two, third]) await client.close();
  await server.stop();
});

t.test("fio finds every block as it wrote it", requires({ commands: ["fio"] }), async (t) => {
  const folder = scratchDirectory();
  t.teardown(() => removeScratch(folder));
  const server = await serve(t, "128M");
  const jobs = await verifiedLoad(server.uri("v"), folder, { jobs: 4, partMib: 32, writtenMib: 24 });
  for (const job of jobs) t.ok(job.read.total_ios > 0, "read back");
  await server.stop();
});

t.test("rounds of SIGKILL under a verified load", async (t) => {
  const server = await serve(t);
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  const report = await killRounds({ server, volume: "v", sizeBytes: 64 * MIB, rounds: 6, seed });
  t.same(report.problems, []);
  t.ok(report.acknowledgedWrites > 6, `${report.acknowledgedWrites} writes were acknowledged`);
});

/** Loaded into every thread of the server: in connection threads an error that nobody catches, once `file` exists. */
const FAILING_THREAD = (file: string): string => `
  const { existsSync } = require("node:fs");
  const { isMainThread } = require("node:worker_threads");
  if (!isMainThread) setInterval(() => {
    if (existsSync(${JSON.stringify(file)})) throw new Error("as if it had a bug");
  }, 20).unref();
`;

t.test("a thread that fails takes the server with it and nothing that was flushed", async (t) => {
  const folder = t.testdir({});
  const trigger = join(folder, "now");
  const module = join(folder, "fail.cjs");
  writeFileSync(module, FAILING_THREAD(trigger));
  const options = { data: scratchDirectory(), capacity: "1G", args: THREADS };
  const server = new LaminaServer({ ...options, nodeArgs: ["--require", module] });
  t.teardown(async () => {
    await server.dispose();
    await removeScratch(options.data);
  });
  await server.start();
  await server.createVolume("v", "64M");
  const clients = await Promise.all([0, 1].map(() => NbdClient.connect(server.host, server.port, "v")));
  const flushed = Buffer.alloc(MIB, "flushed before the failure ");
  await clients[0]!.write(0, flushed);
  await clients[0]!.flush();
  writeFileSync(trigger, "");
  // Under load to the end: a write that was not answered may be there or not, no client may wait for ever.
  const failures = await Promise.all(
    clients.map(async (client, i) => {
      try {
        for (;;) await client.write((8 + i) * MIB, Buffer.alloc(BLOCK, i));
      } catch (error) {
        return error;
      }
    }),
  );
  t.ok(failures.every((error) => error instanceof Error));
  const { code, stderr } = await server.program.ended;
  t.equal(code, 1);
  t.match(stderr, /connection thread \d failed: as if it had a bug/);
  t.match(stderr, /start the server again, nothing acknowledged is lost/);
  for (const client of clients) client.destroy();

  rmSync(trigger);
  await server.start();
  const after = await NbdClient.connect(server.host, server.port, "v");
  t.ok((await after.read(0, MIB)).equals(flushed));
  await after.close();
  await server.stop();
  t.equal((await server.fsck()).code, 0);
});

t.test("more threads than the pool has memory for are refused", async (t) => {
  const data = scratchDirectory();
  t.teardown(() => removeScratch(data));
  const place = ["--data", data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
  const small = await run(LAMINA, ["serve", ...place, "--threads", "16", "--pool", "16M"]);
  t.equal(small.code, 64);
  t.match(small.stderr, /--pool 16M is too small for 16 connection threads/);
  const many = await run(LAMINA, ["serve", ...place, "--threads", "17"]);
  t.equal(many.code, 64);
  t.match(many.stderr, /--threads 17 is not a number from 0 to 16/);
});

t.test("without io_uring one thread serves, and says so", async (t) => {
  const server = new LaminaServer({ capacity: "256M", args: [...THREADS, "--io-engine", "threads"] });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume("v", "8M");
  const client = await NbdClient.connect(server.host, server.port, "v");
  await client.write(0, Buffer.alloc(BLOCK, 3));
  await client.close();
  t.same((await statusOf(server)).gateway.threads, []);
  t.match(server.program.stderr, /connection threads need io_uring/);
  await server.stop();
});
