/** At half load servers are asked at rates of their own: what counts is the tail, and no ratio of rates is shown. */
import t from "tap";
import type { Sample } from "../../../scripts/benchmark/measure.js";
import { type BenchReport, markdown } from "../../../scripts/benchmark/report.js";
import { ROWS } from "../../../scripts/benchmark/rows.js";
import { plot } from "../../../scripts/benchmark/svg.js";

function sample(iops: number, p50Us: number, p999Us: number): Sample {
  const figures = { iops, p50Us, p99Us: p50Us, p999Us, userUs: 1, systemUs: 1, residentBytes: 0 };
  return { ...figures, megabytesPerSecond: 0, writtenPerByte: null, threadRequests: [] };
}

const REPORT: BenchReport = {
  when: "2026-01-01",
  command: "scripts/bench",
  commit: "0",
  machine: {},
  versions: {},
  seconds: 1,
  rounds: 3,
  sizeBytes: 1 << 20,
  servers: ["a", "b"],
  rows: [
    { row: "full", medium: "ram", samples: { a: [sample(100, 10, 20)], b: [sample(50, 10, 20)] } },
    {
      row: "rated",
      medium: "ram",
      load: 0.5,
      samples: {
        a: [sample(50, 10, 20), sample(50, 10, 90), sample(50, 10, 30)],
        b: [sample(25, 20, 200)],
      },
    },
  ],
};

t.test("the tail is the median of the rounds, and no ratio of rates is given", async (t) => {
  const lines = markdown(REPORT).split("\n");
  const rated = lines.filter((line) => line.startsWith("| rated "));
  t.equal(rated.length, 1);
  t.match(rated[0], /^\| rated \| 3\.0 · 50 .* \| 10\.0 · 25 .* \|$/);
  t.match(
    lines.find((line) => line.startsWith("| full ")),
    / \| 2\.00 \|$/,
  );
  t.notMatch(plot(REPORT, "ram"), /rated/);
});

t.test("a row at half load names the row whose rate it halves", async (t) => {
  const rated = ROWS.filter(({ load }) => load !== undefined);
  t.ok(rated.length > 0);
  for (const row of rated)
    t.ok(
      ROWS.some(({ name }) => `${name}, half load` === row.name),
      row.name,
    );
});
