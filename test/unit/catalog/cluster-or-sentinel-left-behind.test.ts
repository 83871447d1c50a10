import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t, { type Test } from "tap";
import { EventLog, findRedisServer, Mirror, parseRedisUrl } from "../../../lib/catalog/index.js";
import { dump, TestRedis } from "./support/redis.js";
import { Truth } from "./support/truth.js";

const SLOTS = 16_384;

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports: number[] = [];
  for (const server of servers) {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    ports.push((server.address() as { port: number }).port);
  }
  for (const server of servers) server.close();
  return ports;
}

async function until(condition: () => Promise<boolean> | boolean): Promise<boolean> {
  for (let tries = 0; tries < 600; tries++) {
    if (await condition()) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}

/** As that of one machine, and as one of several gateways. */
type Kind = { readonly gateway?: string };
const KINDS: readonly (readonly [string, Kind])[] = [
  ["one machine", {}],
  ["a gateway", { gateway: "g1" }],
];

function startMirror(test: Test, url: string, truth: Truth, kind: Kind): Mirror {
  const events = new EventLog(() => Date.now());
  const target = parseRedisUrl(url);
  const mirror = new Mirror({ target, source: truth, events, wall: () => Date.now(), checkMs: 100, ...kind });
  test.teardown(() => mirror.close());
  mirror.start();
  return mirror;
}

function populated(): Truth {
  const truth = new Truth();
  for (let id = 1; id <= 12; id++) truth.add(id, `v${id}`, [id, 600 + id, 100_000]);
  return truth;
}

async function threeMasters(t: Test, kind: Kind): Promise<void> {
  // The bus port of a node is its port + 10000.
  const ports = (await freePorts(9)).filter((port) => port < 55_000).slice(0, 3);
  if (ports.length < 3) {
    t.pass("skipped: no three ports below 55000 were free", { skip: true });
    return;
  }
  const nodes = ports.map((port) => new TestRedis(["--cluster-enabled", "yes"], port));
  t.teardown(() => Promise.all(nodes.map((node) => node.destroy())));
  for (const node of nodes) await node.start();
  const cli = (node: TestRedis, ...args: string[]): string =>
    spawnSync("redis-cli", ["-s", node.socket, ...args], { encoding: "utf8" }).stdout;
  nodes.forEach((node, i) => {
    const first = Math.ceil((SLOTS * i) / nodes.length);
    const last = Math.ceil((SLOTS * (i + 1)) / nodes.length) - 1;
    cli(node, "cluster", "addslotsrange", String(first), String(last));
    for (const other of ports) cli(node, "cluster", "meet", "127.0.0.1", String(other));
  });
  t.ok(
    await until(() => nodes.every((node) => cli(node, "cluster", "info").includes("cluster_state:ok"))),
    "formed",
  );

  const truth = populated();
  const mirror = startMirror(
    t,
    `redis-cluster://${ports.map((port) => `127.0.0.1:${port}`).join(",")}`,
    truth,
    kind,
  );
  const content = async (): Promise<Record<string, unknown>> => {
    const parts = await Promise.all(
      nodes.map(async (node) => {
        const client = node.client();
        const part = await dump(client);
        client.disconnect();
        return part;
      }),
    );
    return Object.fromEntries(
      parts.flatMap((part) => Object.entries(part)).sort(([a], [b]) => (a < b ? -1 : 1)),
    );
  };
  const equal = async (): Promise<boolean> =>
    mirror.status().state === "mirrored" &&
    JSON.stringify(await content()) === JSON.stringify(truth.expected());
  t.ok(await until(equal), "mirrored over all slots");
  t.ok(
    nodes.every((node) => Number(cli(node, "dbsize")) > 0),
    "every master has some of it",
  );

  truth.volumes.get(3)!.extents.add(7);
  mirror.extentChanged(3, 0, 7, true);
  truth.volumes.delete(4);
  mirror.recordsChanged();
  t.ok(await until(equal), "changes follow");

  // One master loses everything: the others know nothing of it.
  cli(nodes[1]!, "flushall");
  t.ok(await until(equal), "one wiped master is found out");
  t.equal(mirror.status().failures, 0);
}

async function failover(t: Test, kind: Kind): Promise<void> {
  const [masterPort, replicaPort, sentinelPort] = (await freePorts(3)) as [number, number, number];
  const master = new TestRedis([], masterPort);
  const replica = new TestRedis(["--replicaof", `127.0.0.1 ${masterPort}`], replicaPort);
  t.teardown(() => Promise.all([master.destroy(), replica.destroy()]));
  await master.start();
  await replica.start();
  const directory = mkdtempSync(join(tmpdir(), "lamina-sentinel-"));
  const config = join(directory, "sentinel.conf");
  writeFileSync(
    config,
    [
      `port ${sentinelPort}`,
      "bind 127.0.0.1",
      `sentinel monitor main 127.0.0.1 ${masterPort} 1`,
      "sentinel down-after-milliseconds main 500",
      "sentinel failover-timeout main 3000",
      "",
    ].join("\n"),
  );
  const { path } = findRedisServer();
  const options = { argv0: "redis-sentinel", stdio: "ignore", cwd: directory } as const;
  const sentinel = spawn(path, [config, "--sentinel"], options);
  t.teardown(() => {
    sentinel.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  });
  const ask = (...args: string[]): string =>
    spawnSync("redis-cli", ["-p", String(sentinelPort), ...args], { encoding: "utf8" }).stdout;
  t.ok(
    await until(() => ask("sentinel", "replicas", "main").includes(String(replicaPort))),
    "sentinel sees both",
  );

  const truth = populated();
  const mirror = startMirror(t, `redis-sentinel://127.0.0.1:${sentinelPort}/main`, truth, kind);
  t.ok(await until(() => mirror.status().state === "mirrored"), "mirrored into the master");
  await master.kill();
  truth.volumes.get(1)!.extents.add(9);
  mirror.extentChanged(1, 0, 9, true);
  const equal = async (): Promise<boolean> => {
    if (mirror.status().state !== "mirrored") return false;
    const client = replica.client();
    const found = await dump(client);
    client.disconnect();
    return JSON.stringify(found) === JSON.stringify(truth.expected());
  };
  t.ok(await until(equal), "after the failover the new master has everything");
}

for (const [name, kind] of KINDS) {
  t.test(`a Cluster of three masters: ${name}`, (t) => threeMasters(t, kind));
  t.test(`Sentinel: the mirror of ${name} follows the master`, (t) => failover(t, kind));
}
