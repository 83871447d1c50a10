/** The cluster benchmark's verdicts: each in the direction of its unit, as measured and scaled by the floor. */
import t from "tap";
import {
  type ClusterReport,
  type ClusterSample,
  clusterMarkdown,
  FLOOR,
  SUBJECT,
} from "../../../scripts/benchmark/cluster/report.js";

function sample(iops: number, meanUs = 0): ClusterSample {
  const latencies = { p50Us: meanUs, p99Us: meanUs, p999Us: meanUs, meanUs };
  return { iops, megabytesPerSecond: iops * 0.131072, ...latencies, serverUs: { nodes: 1 }, clientUs: 1 };
}

function report(samples: Readonly<Record<string, Readonly<Record<string, ClusterSample>>>>): ClusterReport {
  const names = new Set(Object.values(samples).flatMap((row) => Object.keys(row)));
  return {
    when: "2026-01-01",
    command: "scripts/bench --cluster",
    commit: "0",
    machine: {},
    versions: {},
    seconds: 1,
    rounds: 1,
    sizeBytes: 1 << 20,
    contestants: [...names].map((name) => ({ name, about: name })),
    rows: Object.entries(samples).map(([row, of]) => ({
      row,
      medium: "ram",
      samples: Object.fromEntries(Object.entries(of).map(([name, one]) => [name, [one]])),
    })),
  };
}

function lineOf(text: string, what: string): string {
  return text.split("\n").find((line) => line.startsWith(`| ${what} | `) && /yes|no/.test(line)) ?? "";
}

t.test("more requests win, and fewer do not", (t) => {
  // The floor is half of what it was then: 9,000 are enough when scaled.
  const at = (iops: number) =>
    clusterMarkdown(report({ "4K write, depth 32": { [SUBJECT]: sample(iops), [FLOOR]: sample(102_500) } }));
  t.match(lineOf(at(18_001), "4K write, depth 32"), /yes \| yes/);
  t.match(lineOf(at(9001), "4K write, depth 32"), /no \| yes/);
  t.match(lineOf(at(8999), "4K write, depth 32"), /no \| no/);
  t.end();
});

t.test("a lower latency wins, and a slower machine may take longer", (t) => {
  const at = (meanUs: number) =>
    clusterMarkdown(
      report({ "4K write, depth 1": { [SUBJECT]: sample(1e6 / meanUs, meanUs), [FLOOR]: sample(10_150) } }),
    );
  const what = "4K write, depth 1, mean latency";
  t.match(lineOf(at(166), what), /yes \| yes/);
  t.match(lineOf(at(331), what), /no \| yes/);
  t.match(lineOf(at(333), what), /no \| no/);
  t.end();
});

t.test("without the floor nothing is called scaled", (t) => {
  const text = clusterMarkdown(report({ "128K write, depth 16": { [SUBJECT]: sample(5000) } }));
  t.match(lineOf(text, "128K write, depth 16"), /yes \| – \|$/);
  t.end();
});

t.test("rows in which a peer is too near are named", (t) => {
  const peer = "another";
  const text = clusterMarkdown(
    report({
      "4K write, depth 1": { [SUBJECT]: sample(5000), [peer]: sample(1000) },
      "4K write, depth 32": { [SUBJECT]: sample(4900), [peer]: sample(1000) },
      "4K read, depth 32": { [SUBJECT]: sample(1), [peer]: sample(1000) },
    }),
  );
  t.match(text, "in 1 of 2 rows; not in: 4K write, depth 32 (ram) 4.9 times");
  t.end();
});
