/**
 * The benchmark: the same fio rows against Lamina and C servers, by turns, several rounds, medians and ratios.
 * Started by scripts/bench, which says how.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import { scratchDirectory } from "../../test/interop/support/scratch.js";
import { measure, prefillBy, type Sample } from "./measure.js";
import { mediaOf, type RunPlan } from "./plan.js";
import { commit, machine, root, versionOf } from "./provenance.js";
import { type BenchReport, markdown, type RowResult } from "./report.js";
import { type Medium, ROWS, type Row, RowSet, TRANSPORTS, type Transport } from "./rows.js";
import { Backing, Lamina, type Measured, Nbdkit, NbdServer, QemuNbd } from "./servers.js";
import { plot } from "./svg.js";
import { verdicts, verdictText } from "./verdict.js";

const MIB = 1 << 20;
const NOW = "lamina";
const BEFORE = "lamina before";
/** A change has made a row slower, beyond the noise. */
const EXIT_SLOWER = 3;

interface Plan extends RunPlan {
  readonly servers: readonly Measured[];
}

function plan(): Plan {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      full: { type: "boolean", default: false },
      servers: { type: "string", default: "lamina,nbdkit,qemu-nbd,nbd-server" },
      against: { type: "string" },
      media: { type: "string", default: "ram,disk" },
      rows: { type: "string" },
      rounds: { type: "string" },
      seconds: { type: "string" },
      "size-mib": { type: "string" },
      "ram-dir": { type: "string", default: "/dev/shm" },
      "disk-dir": { type: "string", default: "/var/tmp" },
      "lamina-arg": { type: "string", multiple: true, default: [] },
      out: { type: "string" },
    },
  });
  const pattern = values.rows === undefined ? null : new RegExp(values.rows);
  const longest = values.quick ? RowSet.Quick : values.full ? RowSet.Full : RowSet.Usual;
  const rows = ROWS.filter((row) => (pattern === null ? row.set <= longest : pattern.test(row.name)));
  const folders: Record<string, string> = { ram: values["ram-dir"], disk: values["disk-dir"] };
  const media = mediaOf(values.media, folders);
  return {
    servers: chosenServers(values.servers.split(","), values.against, values["lamina-arg"]),
    rows,
    media,
    rounds: Number(values.rounds ?? (values.quick ? 3 : 5)),
    seconds: Number(values.seconds ?? (values.quick ? 2 : 4)),
    sizeBytes: Number(values["size-mib"] ?? (values.quick ? 256 : 1024)) * MIB,
    out: values.out ?? null,
  };
}

function chosenServers(
  names: readonly string[],
  against: string | undefined,
  args: readonly string[],
): Measured[] {
  const servers: Measured[] = names.map((name) => {
    switch (name) {
      case "lamina":
        return new Lamina(NOW, root(), args);
      case "lamina-1t":
      case "lamina-2t":
        return new Lamina(name, root(), [...args, "--threads", name.slice("lamina-".length, -1)]);
      case "nbdkit":
        return new Nbdkit("file");
      case "nbdkit-memory":
        return new Nbdkit("memory");
      case "qemu-nbd":
        return new QemuNbd();
      case "nbd-server":
        return new NbdServer(process.env["NBD_SERVER"] ?? "nbd-server");
      case "backing":
        return new Backing();
      default:
        throw new Error(
          `'${name}' is none of lamina, lamina-1t, lamina-2t, nbdkit, nbdkit-memory, qemu-nbd, nbd-server, backing`,
        );
    }
  });
  if (against !== undefined) servers.splice(1, 0, new Lamina(BEFORE, against, args));
  return servers;
}

/** A medium's rows: all servers are up, and only one is asked at a time. */
async function runMedium(
  plan: Plan,
  medium: Medium,
  parent: string,
  transport: Transport,
): Promise<RowResult[]> {
  const rows = plan.rows.filter((row) => row.transport === transport);
  if (rows.length === 0) return [];
  const folder = scratchDirectory(parent);
  const servers = plan.servers.filter((server) => rows.some((row) => server.takes(row, medium)));
  try {
    for (const server of servers) {
      await server.start(folder, plan.sizeBytes, transport);
      await prefillBy(server.engine, plan.sizeBytes);
    }
    const results: RowResult[] = [];
    for (const row of rows) {
      const asked = servers.filter((server) => server.takes(row, medium));
      results.push(await runRow(plan, medium, row, asked));
    }
    return results;
  } finally {
    for (const server of servers) await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function runRow(
  plan: Plan,
  medium: Medium,
  row: Row,
  servers: readonly Measured[],
): Promise<RowResult> {
  const samples: Record<string, Sample[]> = Object.fromEntries(servers.map(({ name }) => [name, []]));
  for (let round = 0; round < plan.rounds; round++) {
    for (let turn = 0; turn < servers.length; turn++) {
      // Nobody is always first.
      const server = servers[(turn + round) % servers.length]!;
      const sample = await sampleOf(plan, row, server);
      samples[server.name]!.push(sample);
      const cpu = (sample.userUs + sample.systemUs).toFixed(1);
      const iops = Math.round(sample.iops);
      const latency = `p50 ${Math.round(sample.p50Us)} µs  p99 ${Math.round(sample.p99Us)} µs`;
      console.error(`${medium}  ${row.name}  ${server.name}: ${iops} IOPS  ${latency}  ${cpu} µs CPU`);
    }
  }
  return { row: row.name, medium, samples, ...(row.load === undefined ? {} : { load: row.load }) };
}

async function sampleOf({ seconds, sizeBytes }: Plan, row: Row, server: Measured): Promise<Sample> {
  if (row.load === undefined) return measure(server, row, seconds, sizeBytes);
  const { iops } = await measure(server, row, seconds, sizeBytes);
  return measure(server, row, seconds, sizeBytes, row.load * iops);
}

async function main(): Promise<void> {
  const chosen = plan();
  const rows: RowResult[] = [];
  for (const { medium, folder } of chosen.media) {
    for (const transport of TRANSPORTS) {
      rows.push(...(await runMedium(chosen, medium, folder, transport)));
    }
  }
  const report: BenchReport = {
    when: new Date().toISOString().slice(0, 10),
    command: `scripts/bench ${process.argv.slice(2).join(" ")}`.trim(),
    commit: commit(),
    machine: machine(),
    versions: {
      Node: process.versions.node,
      fio: versionOf("fio", ["--version"]),
      nbdkit: versionOf("nbdkit", ["--version"]),
      "qemu-nbd": versionOf("qemu-nbd", ["--version"]),
    },
    seconds: chosen.seconds,
    rounds: chosen.rounds,
    sizeBytes: chosen.sizeBytes,
    servers: chosen.servers.map(({ name }) => name),
    rows,
  };
  const text = markdown(report);
  console.log(text);
  if (report.servers.includes(NOW) && report.servers.includes(BEFORE)) judge(rows);
  if (chosen.out === null) return;
  mkdirSync(dirname(chosen.out), { recursive: true });
  writeFileSync(`${chosen.out}.json`, `${JSON.stringify(report, null, 1)}\n`);
  writeFileSync(`${chosen.out}.md`, text);
  for (const { medium } of chosen.media) {
    const picture = plot(report, medium);
    if (picture !== null) writeFileSync(`${chosen.out}-${medium}.svg`, picture);
  }
  console.error(`wrote ${chosen.out}.json, .md and a plot of each medium`);
}

function judge(rows: readonly RowResult[]): void {
  const all = verdicts(
    rows.filter(({ load }) => load === undefined),
    NOW,
    BEFORE,
  );
  console.log(verdictText(all));
  if (all.some(({ moved }) => moved === "slower")) process.exitCode = EXIT_SLOWER;
}

await main();
