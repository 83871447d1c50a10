/** The table of what was measured. */
import { median } from "../benchmark/report.js";
import type { Measured } from "./measures.js";

export interface PauseRow {
  readonly what: string;
  /** What the design wants, in words; null: nothing in particular. */
  readonly goal: string | null;
  readonly rounds: readonly Measured[];
}

export interface PauseReport {
  readonly command: string;
  readonly commit: string;
  readonly when: string;
  readonly machine: Readonly<Record<string, string | number>>;
  readonly rows: readonly PauseRow[];
  /** What was left out, and why. */
  readonly missing: readonly string[];
}

export function pausesMarkdown(report: PauseReport): string {
  const machine = Object.entries(report.machine).map(([key, value]) => `${key} ${value}`);
  return [
    "# Pauses of a cluster",
    "",
    `\`${report.command}\` at ${report.commit}, ${report.when}. ${machine.join(", ")}.`,
    "",
    "Three nodes and two gateways on one machine, each in a network namespace of its own, data on tmpfs. A client writes",
    "4 KiB at random every 2 ms; a write that waits is counted with all of its waiting. Median of the rounds, and the",
    "least and the most of them. Nothing is asserted: the machine is part of every number.",
    "",
    "| what happens | measured | median | least – most | goal |",
    "|---|---|---:|---:|---|",
    ...report.rows.flatMap(linesOf),
    "",
    ...report.missing.map((what) => `Left out: ${what}.\n`),
  ].join("\n");
}

function linesOf({ what, goal, rounds }: PauseRow): string[] {
  return Object.keys(rounds[0] ?? {}).map((name, i) => {
    const values = rounds.map((measured) => measured[name]!);
    const span = `${number(Math.min(...values))} – ${number(Math.max(...values))}`;
    const first = i === 0;
    return `| ${first ? what : ""} | ${name} | ${number(median(values))} | ${span} | ${first ? (goal ?? "") : ""} |`;
  });
}

function number(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toFixed(1);
}
