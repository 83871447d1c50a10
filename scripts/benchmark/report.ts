/** Medians, ratios and the Markdown table. */

import type { Sample } from "./measure.js";
import type { RunFacts } from "./plan.js";
import type { Medium } from "./rows.js";

export interface RowResult {
  readonly row: string;
  readonly medium: Medium;
  /** Share of what each server can answer that it was asked for; absent: all. */
  readonly load?: number;
  /** Samples by server, in the order of the rounds. */
  readonly samples: Readonly<Record<string, readonly Sample[]>>;
}

export interface BenchReport extends RunFacts {
  readonly servers: readonly string[];
  readonly rows: readonly RowResult[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Half of the distance between the extremes, in percent of the median: what a difference must exceed. */
export function spreadPercent(values: readonly number[]): number {
  return ((Math.max(...values) - Math.min(...values)) / 2 / median(values)) * 100;
}

/** Round by round: first / other. */
export function pairedRatios(first: readonly Sample[], other: readonly Sample[]): number[] {
  return first.map((sample, round) => sample.iops / other[round]!.iops);
}

/** Median over the rounds of first / other, both measured in the same round. */
export function pairedRatio(first: readonly Sample[], other: readonly Sample[]): number {
  return median(pairedRatios(first, other));
}

function cell(samples: readonly Sample[]): string {
  const of = (pick: (sample: Sample) => number): number => median(samples.map(pick));
  const iops = Math.round(of((s) => s.iops)).toLocaleString("en");
  const cpu = of((s) => s.userUs + s.systemUs).toFixed(1);
  const latency = [of((s) => s.p50Us), of((s) => s.p99Us), of((s) => s.p999Us)].map(Math.round).join("/");
  return `${iops} ±${spreadPercent(samples.map((s) => s.iops)).toFixed(0)} % · ${latency} · ${cpu}`;
}

/** Rows in which servers are asked as fast as they answer. */
export function fullRows({ rows }: BenchReport, medium: Medium): RowResult[] {
  return rows.filter((row) => row.medium === medium && row.load === undefined);
}

function serversOf(report: BenchReport, rows: readonly RowResult[]): string[] {
  return report.servers.filter((server) => rows.some((row) => row.samples[server] !== undefined));
}

function table(report: BenchReport, medium: Medium): string[] {
  const rows = fullRows(report, medium);
  const servers = serversOf(report, rows);
  const [subject, ...others] = servers;
  if (subject === undefined) return [];
  const head = ["row", ...servers, ...others.map((other) => `× ${other}`)];
  const lines = [`| ${head.join(" | ")} |`, `|${head.map(() => "---").join("|")}|`];
  for (const { row, samples } of rows) {
    const own = samples[subject];
    if (own === undefined) continue;
    const cells = servers.map((server) => (samples[server] === undefined ? "–" : cell(samples[server])));
    const ratios = others.map((other) =>
      samples[other] === undefined ? "–" : pairedRatio(own, samples[other]).toFixed(2),
    );
    lines.push(`| ${[row, ...cells, ...ratios].join(" | ")} |`);
  }
  return lines;
}

/** How much longer than the median request the thousandth takes: median over the rounds. */
function tail(samples: readonly Sample[]): number {
  return median(samples.map(({ p50Us, p999Us }) => p999Us / p50Us));
}

function tailTable(report: BenchReport, medium: Medium): string[] {
  const rows = report.rows.filter((row) => row.medium === medium && row.load !== undefined);
  const servers = serversOf(report, rows);
  const lines = [
    `| ${["row", ...servers].join(" | ")} |`,
    `|${["", ...servers].map(() => "---").join("|")}|`,
  ];
  for (const { row, samples } of rows) {
    const cells = servers.map((server) => {
      const own = samples[server];
      return own === undefined ? "–" : `${tail(own).toFixed(1)} · ${cell(own)}`;
    });
    lines.push(`| ${[row, ...cells].join(" | ")} |`);
  }
  return lines;
}

/**
 * Memory at the end of a row; on disk also the bytes written for each byte of the client's; with several connection
 * threads also the percentage of the requests that each of them answered.
 */
function costs(samples: readonly Sample[], medium: Medium): string {
  const out = [`${Math.round(median(samples.map((s) => s.residentBytes)) / 2 ** 20)} MiB`];
  const written = samples.map((s) => s.writtenPerByte).filter((value) => value !== null);
  if (medium === "disk" && written.length > 0) out.push(median(written).toFixed(2));
  const shares = threadShares(samples);
  if (shares.length > 1) out.push(`${shares.map((share) => share.toFixed(0)).join(" + ")} %`);
  return out.join(" · ");
}

/** Percent of the requests of all rounds, thread by thread. */
function threadShares(samples: readonly Sample[]): number[] {
  const sums = (samples[0]?.threadRequests ?? []).map((_, i) =>
    samples.reduce((sum, { threadRequests }) => sum + (threadRequests[i] ?? 0), 0),
  );
  const all = sums.reduce((sum, count) => sum + count, 0);
  return sums.map((count) => (100 * count) / all);
}

function costTable(report: BenchReport, medium: Medium): string[] {
  const rows = fullRows(report, medium);
  const servers = serversOf(report, rows);
  const lines = [
    `| ${["row", ...servers].join(" | ")} |`,
    `|${["", ...servers].map(() => "---").join("|")}|`,
  ];
  for (const { row, samples } of rows) {
    const cells = servers.map((server) =>
      samples[server] === undefined ? "–" : costs(samples[server], medium),
    );
    lines.push(`| ${[row, ...cells].join(" | ")} |`);
  }
  return lines;
}

const MEDIA: Readonly<Record<Medium, string>> = { ram: "RAM-backed (tmpfs)", disk: "On disk" };

const TAILS = [
  "At half load: requests come at random moments, half as many as the same server answered in the same round. A cell: p99.9",
  "divided by p50 · what the cells above have:",
];

export function markdown(report: BenchReport): string {
  const machine = Object.entries(report.machine).map(([key, value]) => `${key} ${value}`);
  const versions = Object.entries(report.versions).map(([key, value]) => `${key} ${value}`);
  const out = [
    "# Benchmark",
    "",
    `\`${report.command}\` at ${report.commit}, ${report.when}.`,
    "",
    `${machine.join(", ")}. ${versions.join(", ")}.`,
    "",
    "One client and all servers on one machine, over loopback TCP unless a row says otherwise. The client is fio (nbd",
    "engine), or, in the rows that say so, this repository's own (scripts/benchmark/load), which takes a third of fio's CPU",
    "time and sends all requests that have become free in one batch: it shows what a server does when the client is not",
    `what limits it. ${report.sizeBytes >> 20} MiB, prefilled; ${report.rounds} rounds of ${report.seconds} s a row, the servers by turns. A cell: median IOPS ± half`,
    "the spread · p50/p99/p99.9 µs · server CPU µs per request (user and system, all threads and children). × is the",
    "median over the rounds of the IOPS of the first server divided by the other's in the same round.",
    "",
  ];
  for (const medium of ["ram", "disk"] as const) {
    const lines = table(report, medium);
    if (lines.length <= 2) continue;
    out.push(`## ${MEDIA[medium]}`, "", ...lines, "");
    const tails = tailTable(report, medium);
    if (tails.length > 2) out.push(...TAILS, "", ...tails, "");
    const what =
      medium === "ram" ? "memory" : "memory · bytes sent to the device for each byte that the client wrote";
    const threads = "with several connection threads, the share of the requests that each answered";
    out.push(`Server's ${what}, at the end of each row (${threads}):`, "", ...costTable(report, medium), "");
  }
  return out.join("\n");
}
