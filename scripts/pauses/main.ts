/** How long clients of a cluster wait when something happens to it: started by scripts/cluster-pauses, which says how. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { Cluster } from "../../test/cluster/support/cluster.js";
import { networkMissing } from "../../test/cluster/support/network.js";
import { check } from "../../test/interop/support/process.js";
import { OwnRedis } from "../../test/interop/support/redis.js";
import { removeScratch, scratchDirectory } from "../../test/interop/support/scratch.js";
import { LAMINA } from "../../test/interop/support/server.js";
import { commit, machine } from "../benchmark/provenance.js";
import {
  gatewayKilled,
  type Measured,
  nodeKilled,
  nodeReturned,
  type Plan,
  redisFlushed,
  touch,
} from "./measures.js";
import { type PauseReport, type PauseRow, pausesMarkdown } from "./report.js";

const MIB = 1 << 20;
const GIB = 1 << 30;
const VOLUME = "v";

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    rows: { type: "string", default: "node,gateway,redis,resync" },
    "mapped-gib": { type: "string", default: "64" },
    "away-mib": { type: "string", default: "256" },
    dir: { type: "string", default: "/dev/shm" },
    out: { type: "string" },
  },
});
const rounds = Number(options.rounds);
const wanted = new Set(options.rows.split(","));

interface Shape {
  readonly size: string;
  readonly sizeBytes: number;
  readonly capacity: string;
  readonly gatewayArgs?: readonly string[];
}

/** On a cluster of its own, of which `prepare` makes what it needs. */
async function row(
  what: string,
  goal: string | null,
  shape: Shape,
  prepare: (plan: Plan) => Promise<void>,
  measure: (plan: Plan, round: number) => Promise<Measured>,
): Promise<PauseRow> {
  const { size, sizeBytes, capacity, gatewayArgs } = shape;
  const cluster = await Cluster.start(3, 2, {
    isolated: true,
    capacity,
    directory: scratchDirectory(options.dir),
    ...(gatewayArgs === undefined ? {} : { gatewayArgs }),
  });
  try {
    await cluster.gateways[0]!.lamina("volume", "create", VOLUME, "--size", size);
    const plan: Plan = { cluster, volume: VOLUME, sizeBytes };
    await prepare(plan);
    const measured: Measured[] = [];
    for (let round = 0; round < rounds; round++) {
      measured.push(await measure(plan, round));
      console.error(`${what}: ${JSON.stringify(measured.at(-1))}`);
    }
    return { what, goal, rounds: measured };
  } finally {
    await cluster.dispose();
  }
}

const nothing = (): Promise<void> => Promise.resolve();
const SMALL: Shape = { size: "1G", sizeBytes: GIB, capacity: "4G" };

async function main(): Promise<number> {
  const without = await networkMissing();
  if (without !== null) {
    console.error(`pauses are measured between network namespaces, which cannot be had: ${without}`);
    return 1;
  }
  const rows: PauseRow[] = [];
  const missing: string[] = [];
  if (wanted.has("node"))
    rows.push(
      await row("kill -9 of a node of three", "writes resume within 2 s", SMALL, nothing, nodeKilled),
    );
  if (wanted.has("gateway")) rows.push(await gatewayRow());
  if (wanted.has("redis")) {
    if ((await check(LAMINA, ["gateway", "--help"])).includes("--redis")) rows.push(await redisRow());
    else missing.push("Redis FLUSHALL, because gateways have no Redis yet");
  }
  if (wanted.has("resync")) rows.push(await resyncRow());
  const report: PauseReport = {
    command: `scripts/cluster-pauses ${process.argv.slice(2).join(" ")}`.trim(),
    commit: commit(),
    when: new Date().toISOString().slice(0, 10),
    machine: machine(),
    rows,
    missing,
  };
  const text = pausesMarkdown(report);
  console.log(text);
  if (options.out !== undefined) {
    mkdirSync(dirname(options.out), { recursive: true });
    writeFileSync(`${options.out}.json`, `${JSON.stringify(report, null, 2)}\n`);
    writeFileSync(`${options.out}.md`, text);
  }
  return 0;
}

function gatewayRow(): Promise<PauseRow> {
  const mappedGib = Number(options["mapped-gib"]);
  const extents = (mappedGib * GIB) / (4 * MIB);
  const shape = { size: "1T", sizeBytes: 1024 * GIB, capacity: `${mappedGib + 16}G` };
  const what = `kill -9 of the gateway of a 1 TiB volume, ${mappedGib} GiB of it mapped, all just written`;
  return row(
    what,
    "another serves within 5 s",
    shape,
    ({ cluster }) => touch(cluster.gateways[0]!, VOLUME, shape.sizeBytes, extents),
    (plan, round) => gatewayKilled(plan, round, extents),
  );
}

async function redisRow(): Promise<PauseRow> {
  const folder = scratchDirectory(options.dir);
  const redis = new OwnRedis(join(folder, "redis"));
  await redis.start();
  try {
    return await row(
      "FLUSHALL of Redis",
      "no stall above 100 ms",
      { ...SMALL, gatewayArgs: ["--redis", redis.url] },
      nothing,
      (plan) => redisFlushed(plan, redis),
    );
  } finally {
    await redis.kill();
    await removeScratch(folder);
  }
}

function resyncRow(): Promise<PauseRow> {
  const bytes = Number(options["away-mib"]) * MIB;
  return row(
    "a node is away, and comes back to a 100 GiB volume",
    "a delta is copied; p99 at most doubles",
    { size: "100G", sizeBytes: 100 * GIB, capacity: "32G" },
    nothing,
    (plan, round) => nodeReturned({ ...plan, sizeBytes: 16 * GIB }, round, bytes),
  );
}

process.exitCode = await main();
