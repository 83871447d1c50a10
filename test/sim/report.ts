/** What a person reads: failures with the one command that reproduces them, and what has happened at all. */
import type { RunOptions } from "./config.js";
import type { Coverage } from "./coverage.js";
import { INVARIANTS } from "./violation.js";

export function commandOf(options: RunOptions, trace = true): string {
  const parts = ["npm run sim -- --seed", String(options.seed)];
  if (options.operations !== undefined) parts.push("--ticks", String(options.operations));
  if (options.lives !== undefined) parts.push("--lives", String(options.lives));
  if (options.without !== undefined && options.without.length > 0)
    parts.push("--without", options.without.join(","));
  if (options.front !== undefined) parts.push("--front", options.front);
  if (options.focus !== undefined) parts.push("--focus", options.focus);
  if (options.plain === true) parts.push("--plain");
  if (trace) parts.push("--trace");
  return parts.join(" ");
}

export function failureText(invariant: string, message: string, options: RunOptions): string {
  const words = INVARIANTS[invariant as keyof typeof INVARIANTS] ?? "";
  return [
    `seed ${options.seed} breaks ${invariant}: ${words}`,
    `  seen: ${message}`,
    `  again: ${commandOf(options)}`,
  ].join("\n");
}

/** Operations and faults with their counts, so that what never happens is visible. */
export function coverageText(coverage: Coverage): string {
  const groups = new Map<string, [string, number][]>();
  for (const [name, count] of [...coverage.counts].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const colon = name.indexOf(":");
    const group = colon < 0 ? "other" : name.slice(0, colon);
    groups.set(group, [...(groups.get(group) ?? []), [name.slice(colon + 1), count]]);
  }
  return [...groups]
    .map(([group, rows]) => `${group}: ${rows.map(([name, count]) => `${name} ${count}`).join(", ")}`)
    .join("\n");
}

/** A table: in lives in which the fault of the row fired, how many operations of each kind were asked. */
export function crossText(coverage: Coverage): string {
  const cells = new Map<string, Map<string, number>>();
  const kinds = new Set<string>();
  for (const [key, count] of coverage.crosses) {
    const [fault = "", kind = ""] = key.split("|");
    kinds.add(kind);
    cells.set(fault, (cells.get(fault) ?? new Map<string, number>()).set(kind, count));
  }
  const columns = [...kinds].sort();
  const rows = [...cells].sort(([a], [b]) => (a < b ? -1 : 1));
  const first = Math.max(...rows.map(([fault]) => fault.length), 0);
  const width = Math.max(...columns.map((kind) => kind.length), 6) + 1;
  const line = (name: string, values: readonly string[]): string =>
    name.padEnd(first) + values.map((value) => value.padStart(width)).join("");
  return [
    line("", columns),
    ...rows.map(([fault, row]) =>
      line(
        fault,
        columns.map((kind) => short(row.get(kind) ?? 0)),
      ),
    ),
  ].join("\n");
}

function short(count: number): string {
  if (count === 0) return "-";
  if (count < 10_000) return String(count);
  return count < 10_000_000 ? `${Math.round(count / 1000)}k` : `${Math.round(count / 1_000_000)}M`;
}
