/** The guard: which rows a change has moved beyond the noise. */
import { pairedRatio, pairedRatios, type RowResult, spreadPercent } from "./report.js";

/** Smaller differences are never called a change, however quiet the run was. */
const NOISE_PERCENT_MIN = 5;
/** Fewer rounds do not show how much they vary, so they show no change either. */
const ROUNDS_MIN = 3;

export interface Verdict {
  readonly row: string;
  readonly medium: string;
  /** Change in IOPS, in percent: median over the rounds of the ratio within a round. */
  readonly percent: number;
  /** What it has to exceed: the largest spread, of either side or of the ratio; infinite after too few rounds. */
  readonly noisePercent: number;
  readonly moved: "faster" | "slower" | "no";
}

export function verdicts(rows: readonly RowResult[], now: string, before: string): Verdict[] {
  return rows.map(({ row, medium, samples }) => {
    const [own, other] = [samples[now]!, samples[before]!];
    const percent = (pairedRatio(own, other) - 1) * 100;
    const figures = [own, other].map((side) => side.map(({ iops }) => iops));
    const spreads = [...figures, pairedRatios(own, other)].map(spreadPercent);
    const enough = own.length >= ROUNDS_MIN;
    const noisePercent = enough ? Math.max(NOISE_PERCENT_MIN, ...spreads) : Number.POSITIVE_INFINITY;
    const moved = Math.abs(percent) <= noisePercent ? "no" : percent > 0 ? "faster" : "slower";
    return { row, medium, percent, noisePercent, moved };
  });
}

export function verdictText(all: readonly Verdict[]): string {
  const lines = all.map(({ row, medium, percent, noisePercent, moved }) => {
    const noise = Number.isFinite(noisePercent) ? `${noisePercent.toFixed(1)} %` : "unknown";
    const change = `${percent >= 0 ? "+" : ""}${percent.toFixed(1)} % (noise ${noise})`;
    return `${moved === "no" ? "  same  " : `* ${moved}`}  ${medium}  ${row}: ${change}`;
  });
  const count = (what: Verdict["moved"]): number => all.filter(({ moved }) => moved === what).length;
  lines.push(`${count("faster")} faster, ${count("slower")} slower, ${count("no")} within the noise`);
  return lines.join("\n");
}
