/** The cluster benchmark's tables. */

import type { RunFacts } from "../plan.js";
import { median, spreadPercent } from "../report.js";
import type { Medium } from "../rows.js";
import { GOALS, type Goal, PEER_FACTOR, VITASTOR } from "./goals.js";

export interface ClusterSample {
  readonly iops: number;
  readonly megabytesPerSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly meanUs: number;
  /** CPU per request of each group of daemons, and of the client. */
  readonly serverUs: Readonly<Record<string, number>>;
  readonly clientUs: number;
}

export interface ClusterRow {
  readonly row: string;
  readonly medium: Medium;
  /** Samples by contestant, in the order of the rounds. */
  readonly samples: Readonly<Record<string, readonly ClusterSample[]>>;
}

export interface ClusterReport extends RunFacts {
  readonly contestants: readonly { readonly name: string; readonly about: string }[];
  readonly rows: readonly ClusterRow[];
}

export const SUBJECT = "lamina";
export const FLOOR = "three-file floor";

type Pick = (sample: ClusterSample) => number;

function of(samples: readonly ClusterSample[], pick: Pick): number {
  return median(samples.map(pick));
}

function cell(row: string, samples: readonly ClusterSample[] | undefined): string {
  if (samples === undefined || samples.length === 0) return "–";
  const spread = spreadPercent(samples.map(({ iops }) => iops)).toFixed(0);
  const speed = isLong(row)
    ? `${Math.round(of(samples, (s) => s.megabytesPerSecond)).toLocaleString("en")} MB/s`
    : Math.round(of(samples, (s) => s.iops)).toLocaleString("en");
  const latency = [of(samples, (s) => s.p50Us), of(samples, (s) => s.p99Us)].map(Math.round).join("/");
  const groups = Object.keys(samples[0]!.serverUs);
  const cpu = [
    ...groups.map((group) => of(samples, (s) => s.serverUs[group]!)),
    of(samples, (s) => s.clientUs),
  ];
  return `${speed} ±${spread} % · ${latency} · ${cpu.map((us) => us.toFixed(us < 10 ? 1 : 0)).join(" \\| ")}`;
}

function isLong(row: string): boolean {
  return row.startsWith("128K");
}

function table(report: ClusterReport, medium: Medium): string[] {
  const rows = report.rows.filter((row) => row.medium === medium);
  const names = report.contestants.map(({ name }) => name);
  const others = names.filter((name) => name !== SUBJECT);
  const head = ["row", ...names, ...others.map((other) => `× ${other}`)];
  const lines = [`| ${head.join(" | ")} |`, `|${head.map(() => "---").join("|")}|`];
  for (const { row, samples } of rows) {
    const own = samples[SUBJECT] ?? [];
    const ratios = others.map((other) => {
      const theirs = samples[other] ?? [];
      if (theirs.length === 0 || theirs.length !== own.length) return "–";
      return median(own.map(({ iops }, round) => iops / theirs[round]!.iops)).toFixed(2);
    });
    lines.push(`| ${[row, ...names.map((name) => cell(row, samples[name])), ...ratios].join(" | ")} |`);
  }
  return lines;
}

/** Median of a figure of a contestant in a row, or null. */
function figure(report: ClusterReport, medium: Medium, row: string, name: string, pick: Pick): number | null {
  const found = report.rows.find((one) => one.row === row && one.medium === medium)?.samples[name] ?? [];
  return found.length === 0 ? null : of(found, pick);
}

const PICKS: Readonly<Record<Goal["unit"], Pick>> = {
  "requests/s": (sample) => sample.iops,
  "MB/s": (sample) => sample.megabytesPerSecond,
  µs: (sample) => sample.meanUs,
};

/** Against Vitastor's figures, as they were and scaled by what the floor is now beside what it was then. */
function goals(report: ClusterReport): string[] {
  const lines = [
    "| row | Vitastor 3.0.8 then | scaled | Lamina now | won | won, scaled |",
    "|---|---|---|---|---|---|",
  ];
  for (const goal of GOALS) {
    const now = figure(report, "ram", goal.row, SUBJECT, PICKS[goal.unit]);
    if (now === null) continue;
    const scale = scaleOf(report, goal);
    const better = goal.unit === "µs";
    const scaled = scale === null ? null : better ? goal.figure / scale : goal.figure * scale;
    const wins = (than: number): boolean => (better ? now <= than : now > than);
    const won = (than: number): string => (wins(than) ? "yes" : "no");
    const text = (value: number): string => `${Math.round(value).toLocaleString("en")} ${goal.unit}`;
    lines.push(
      `| ${goal.what} | ${text(goal.figure)} | ${scaled === null ? "–" : text(scaled)} | ${text(now)} | ${won(goal.figure)} | ${scaled === null ? "–" : won(scaled)} |`,
    );
  }
  return lines;
}

function scaleOf(report: ClusterReport, goal: Goal): number | null {
  const floor = goal.depth === 1 ? VITASTOR.floorDepth1 : VITASTOR.floorDepth32;
  const now = figure(report, "ram", `4K write, depth ${goal.depth === 1 ? 1 : 32}`, FLOOR, (s) => s.iops);
  return now === null ? null : now / floor;
}

function vitastor(report: ClusterReport): string[] {
  const { floorDepth1, floorDepth32 } = VITASTOR;
  return [
    "## Goals",
    "",
    "Vitastor, the fastest open-source peer, cannot be packaged here; its figures are of the same kind of machine, with its native",
    "client. Scaled: multiplied by the floor of this run and divided by the floor of that",
    `one (4K writes: ${floorDepth1.toLocaleString("en")} at depth 1, ${floorDepth32.toLocaleString("en")} at depth 32).`,
    "",
    ...goals(report),
    "",
  ];
}

/** Writes against the peers that ran. */
function peers(report: ClusterReport): string[] {
  const lines: string[] = [];
  const names = report.contestants
    .map(({ name }) => name)
    .filter((name) => name !== SUBJECT && name !== FLOOR);
  for (const name of names) {
    const ratios = report.rows.flatMap(({ row, medium, samples }) => {
      const [own, theirs] = [samples[SUBJECT] ?? [], samples[name] ?? []];
      if (!row.includes("write") || own.length === 0 || theirs.length === 0) return [];
      return [{ row: `${row} (${medium})`, ratio: of(own, (s) => s.iops) / of(theirs, (s) => s.iops) }];
    });
    const below = ratios.filter(({ ratio }) => ratio < PEER_FACTOR);
    const said = below.map(({ row, ratio }) => `${row} ${ratio.toFixed(1)} times`).join(", ");
    const rest = below.length === 0 ? "" : `; not in: ${said}`;
    lines.push(
      `- At least ${PEER_FACTOR} times ${name} in writes: in ${ratios.length - below.length} of ${ratios.length} rows${rest}.`,
    );
  }
  return lines;
}

const MEDIA: Readonly<Record<Medium, string>> = { ram: "RAM-backed (tmpfs)", disk: "On disk" };

export function clusterMarkdown(report: ClusterReport): string {
  const listed = (pairs: object): string =>
    Object.entries(pairs)
      .map(([key, value]) => `${key} ${value}`)
      .join(", ");
  const out = [
    "# Benchmark of a cluster",
    "",
    `\`${report.command}\` at ${report.commit}, ${report.when}.`,
    "",
    `${listed(report.machine)}. ${listed(report.versions)}.`,
    "",
    "Three copies on one machine: all daemons and the client share its CPUs, over loopback. The client is fio with the engine",
    "of each system, or, where a row says so, this repository's own (scripts/benchmark/load).",
    `${report.sizeBytes >> 20} MiB, prefilled, and each row run once uncounted; ${report.rounds} rounds of ${report.seconds} s a row, by turns. A cell: median of requests/s (or MB/s) ± half the`,
    "spread · p50/p99 µs · CPU µs per request, of each group of daemons and last of the client, its start included. × is the median over the rounds of",
    "Lamina's requests/s divided by the other's in the same round.",
    "",
    ...report.contestants.map(({ name, about }) => `- **${name}**: ${about}.`),
    "",
  ];
  for (const medium of ["ram", "disk"] as const) {
    if (!report.rows.some((row) => row.medium === medium)) continue;
    out.push(`## ${MEDIA[medium]}`, "", ...table(report, medium), "");
  }
  if (report.rows.some(({ medium }) => medium === "ram")) out.push(...vitastor(report));
  const others = peers(report);
  if (others.length > 0) out.push("## Peers", "", ...others, "");
  return out.join("\n");
}
