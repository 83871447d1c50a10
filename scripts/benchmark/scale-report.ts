/** Curves as tables, each with its line. */

export interface Point {
  readonly x: number;
  /** By figure, with its unit in the name. */
  readonly values: Readonly<Record<string, number>>;
}

export interface Curve {
  readonly name: string;
  /** Of x. */
  readonly unit: string;
  readonly points: readonly Point[];
}

export interface Line {
  readonly constant: number;
  /** Per unit of x. */
  readonly slope: number;
}

/** The least-squares line through (x, y) pairs; flat through a single point. */
export function lineThrough(pairs: readonly (readonly [number, number])[]): Line {
  const n = pairs.length;
  const meanX = pairs.reduce((sum, [x]) => sum + x, 0) / n;
  const meanY = pairs.reduce((sum, [, y]) => sum + y, 0) / n;
  const spread = pairs.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  const together = pairs.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  const slope = spread === 0 ? 0 : together / spread;
  return { constant: meanY - slope * meanX, slope };
}

/** Figures that are quotients already. */
const EACH = "each";

/** Three digits are all that such a run can say. */
function rounded(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
}

function tableOf({ name, unit, points }: Curve): string[] {
  const figures = Object.keys(points[0]?.values ?? {});
  if (figures.length === 0) return [];
  const lines = [`## Against ${name}`, "", `| ${[unit, ...figures].join(" | ")} |`];
  lines.push(`|${["", ...figures].map(() => "---").join("|")}|`);
  for (const { x, values } of points) {
    lines.push(
      `| ${[x.toLocaleString("en"), ...figures.map((figure) => rounded(values[figure]!))].join(" | ")} |`,
    );
  }
  lines.push("");
  for (const figure of figures.filter((figure) => !figure.endsWith(EACH))) {
    const { constant, slope } = lineThrough(points.map(({ x, values }) => [x, values[figure]!]));
    lines.push(`- ${figure}: ${rounded(constant)} + ${rounded(1000 * slope)} for each 1,000 ${unit}`);
  }
  return [...lines, ""];
}

export function scaleMarkdown(curves: readonly Curve[], command: string): string {
  const head = [
    "# Scale",
    "",
    `\`${command}\``,
    "",
    "In memory; each point is a server of its own. Start-up is the time from the start of the process to its readiness,",
    "attaching includes the handshake and a first read: medians of three starts. Below each table the least-squares",
    'lines: a constant, and what the size adds. "each": divided by the number of volumes or connections.',
    "",
  ];
  return [...head, ...curves.flatMap(tableOf)].join("\n");
}
