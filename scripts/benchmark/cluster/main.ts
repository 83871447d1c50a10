/**
 * The cluster benchmark: three copies on one machine, Lamina beside the physical floor and, when asked for, other systems
 * that keep three copies. Started by `scripts/bench --cluster`, which says how.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { removeScratch, scratchDirectory } from "../../../test/interop/support/scratch.js";
import { endedCpuTime } from "../cpu-time.js";
import { mediaOf, type RunPlan } from "../plan.js";
import { commit, machine, root, versionOf } from "../provenance.js";
import { type Medium, ROWS, type Row } from "../rows.js";
import { Ceph } from "./ceph.js";
import type { Contestant } from "./contestant.js";
import { Floor } from "./floor.js";
import { Gluster } from "./gluster.js";
import { LaminaCluster } from "./lamina.js";
import {
  type ClusterReport,
  type ClusterRow,
  type ClusterSample,
  clusterMarkdown,
  SUBJECT,
} from "./report.js";

const MIB = 1 << 20;
/** Each row is run so long before any is counted: a just-in-time compiler has seen it then. */
const WARM_UP_SECONDS = 2;

/** Of scripts/benchmark/rows.ts. */
const CLUSTER_ROWS = [
  "4K write, depth 1",
  "4K write, depth 32",
  "4K read, depth 1",
  "4K read, depth 32",
  "4K write, depth 32, own client",
  "4K read, depth 32, own client",
  "128K write, depth 16",
  "128K read, depth 16",
  "4K write + flush, depth 1",
];

interface Plan extends RunPlan {
  readonly contestants: () => Contestant[];
}

function plan(): Plan {
  const { values } = parseArgs({
    options: {
      cluster: { type: "boolean", default: true },
      peers: { type: "string", default: "" },
      against: { type: "string" },
      media: { type: "string", default: "ram,disk" },
      rows: { type: "string" },
      rounds: { type: "string", default: "3" },
      seconds: { type: "string", default: "3" },
      "size-mib": { type: "string", default: "512" },
      "ram-dir": { type: "string", default: "/dev/shm" },
      "disk-dir": { type: "string", default: "/var/tmp" },
      "lamina-arg": { type: "string", multiple: true, default: [] },
      floor: { type: "string" },
      out: { type: "string" },
    },
  });
  const { floor, against } = values;
  const args = values["lamina-arg"];
  const peers = values.peers.split(",").filter(Boolean);
  const pattern = values.rows === undefined ? null : new RegExp(values.rows);
  const folders: Record<string, string> = { ram: values["ram-dir"], disk: values["disk-dir"] };
  return {
    contestants: () => [
      new LaminaCluster(SUBJECT, root(), args),
      ...(against === undefined ? [] : [new LaminaCluster("lamina before", against, args)]),
      ...(floor === undefined ? [] : [new Floor(floor)]),
      ...peers.map(peer),
    ],
    rows: CLUSTER_ROWS.map((name) => ROWS.find((row) => row.name === name)!).filter(
      ({ name }) => pattern?.test(name) ?? true,
    ),
    media: mediaOf(values.media, folders),
    rounds: Number(values.rounds),
    seconds: Number(values.seconds),
    sizeBytes: Number(values["size-mib"]) * MIB,
    out: values.out ?? null,
  };
}

function peer(name: string): Contestant {
  switch (name) {
    case "gluster":
      return new Gluster();
    case "ceph":
      return new Ceph();
    default:
      throw new Error(`'${name}' is not a peer: gluster, ceph`);
  }
}

async function sampleOf(contestant: Contestant, row: Row, seconds: number): Promise<ClusterSample> {
  const before = contestant.cpu();
  const clientsBefore = endedCpuTime();
  const outcome = await contestant.run(row, seconds);
  const after = contestant.cpu();
  const { requests, iops, p50Us, p99Us, p999Us } = outcome;
  const serverUs: Record<string, number> = {};
  for (const [group, used] of Object.entries(after)) serverUs[group] = (used - before[group]!) / requests;
  return {
    iops,
    megabytesPerSecond: outcome.bytesPerSecond / 1e6,
    p50Us,
    p99Us,
    p999Us,
    // Little's law: all requests of a closed loop are always under way.
    meanUs: (row.depth * 1e6) / iops,
    serverUs,
    clientUs: (endedCpuTime() - clientsBefore) / requests,
  };
}

function say(medium: Medium, row: Row, name: string, sample: ClusterSample): void {
  const { iops, megabytesPerSecond, p50Us, p99Us, serverUs, clientUs } = sample;
  const cpu = [...Object.entries(serverUs), ["client", clientUs] as const];
  const text = cpu.map(([group, us]) => `${group} ${us.toFixed(1)}`).join(", ");
  console.error(
    `${medium}  ${row.name}  ${name}: ${Math.round(iops)} IOPS  ${Math.round(megabytesPerSecond)} MB/s  ` +
      `p50 ${Math.round(p50Us)} µs  p99 ${Math.round(p99Us)} µs  CPU µs: ${text}`,
  );
}

/** All are up, and only one is asked at a time; nobody is always first. */
async function runMedium(chosen: Plan, medium: Medium, parent: string): Promise<ClusterRow[]> {
  const folder = scratchDirectory(parent);
  const contestants = chosen.contestants();
  const results: ClusterRow[] = [];
  try {
    for (const [i, contestant] of contestants.entries()) {
      console.error(`${medium}  starting ${contestant.name}`);
      await contestant.start(join(folder, `c${i}`), chosen.sizeBytes);
    }
    for (const row of chosen.rows) {
      for (const one of contestants) if (one.takes(row)) await one.run(row, WARM_UP_SECONDS);
    }
    for (const row of chosen.rows) {
      const takers = contestants.filter((one) => one.takes(row));
      const samples: Record<string, ClusterSample[]> = Object.fromEntries(
        takers.map(({ name }) => [name, []]),
      );
      for (let round = 0; round < chosen.rounds; round++) {
        for (let turn = 0; turn < takers.length; turn++) {
          const contestant = takers[(turn + round) % takers.length]!;
          const sample = await sampleOf(contestant, row, chosen.seconds);
          samples[contestant.name]!.push(sample);
          say(medium, row, contestant.name, sample);
        }
      }
      results.push({ row: row.name, medium, samples });
    }
    return results;
  } finally {
    for (const contestant of contestants) await contestant.stop();
    await removeScratch(folder);
  }
}

async function main(): Promise<void> {
  const chosen = plan();
  const rows: ClusterRow[] = [];
  for (const { medium, folder } of chosen.media) rows.push(...(await runMedium(chosen, medium, folder)));
  const report: ClusterReport = {
    when: new Date().toISOString().slice(0, 10),
    command: `scripts/bench ${commandOf(process.argv.slice(2))}`,
    commit: commit(),
    machine: machine(),
    versions: { Node: process.versions.node, fio: versionOf("fio", ["--version"]) },
    seconds: chosen.seconds,
    rounds: chosen.rounds,
    sizeBytes: chosen.sizeBytes,
    contestants: chosen.contestants().map(({ name, about }) => ({ name, about })),
    rows,
  };
  const text = clusterMarkdown(report);
  console.log(text);
  if (chosen.out === null) return;
  mkdirSync(dirname(chosen.out), { recursive: true });
  writeFileSync(`${chosen.out}.json`, `${JSON.stringify(report, null, 1)}\n`);
  writeFileSync(`${chosen.out}.md`, text);
  console.error(`wrote ${chosen.out}.json and .md`);
}

/** Without what only says where files are. */
const PLACES = ["--floor", "--out", "--against"];

function commandOf(args: readonly string[]): string {
  return args.filter((arg, i) => !PLACES.includes(arg) && !PLACES.includes(args[i - 1] ?? "")).join(" ");
}

await main();
