import t from "tap";
import { Latencies } from "../../../scripts/benchmark/load/latencies.js";
import type { Sample } from "../../../scripts/benchmark/measure.js";
import { lineThrough } from "../../../scripts/benchmark/scale-report.js";
import { verdicts, verdictText } from "../../../scripts/benchmark/verdict.js";

function rounds(...iops: readonly number[]): Sample[] {
  return iops.map((value) => ({ iops: value }) as Sample);
}

function moved(now: readonly Sample[], before: readonly Sample[]): string {
  const [verdict] = verdicts([{ row: "r", medium: "ram", samples: { now, before } }], "now", "before");
  return verdict!.moved;
}

t.test("a row has moved only beyond the noise", async (t) => {
  t.equal(moved(rounds(120, 121, 119), rounds(100, 101, 99)), "faster");
  t.equal(moved(rounds(80, 81, 79), rounds(100, 101, 99)), "slower");
  t.equal(moved(rounds(103, 103, 103), rounds(100, 100, 100)), "no", "less than is ever called a change");
  t.equal(moved(rounds(80, 150, 120), rounds(100, 101, 99)), "no", "one side varies");
  t.equal(moved(rounds(150), rounds(100)), "no", "one round says nothing");
  t.match(
    verdictText(verdicts([{ row: "r", medium: "ram", samples: { a: rounds(2), b: rounds(1) } }], "a", "b")),
    /noise unknown/,
  );
});

t.test("percentiles are exact to one 64th, and rise", async (t) => {
  const latencies = new Latencies();
  t.equal(latencies.percentileUs(0.5), 0, "of nothing");
  for (let us = 1; us <= 10_000; us++) latencies.add(us / 1000);
  latencies.add(100_000);
  for (const [share, us] of [
    [0.5, 5000],
    [0.99, 9900],
    [0.999, 9990],
  ] as const) {
    const found = latencies.percentileUs(share);
    t.ok(Math.abs(found / us - 1) < 1 / 50, `${share}: ${found} µs for ${us}`);
  }
  t.ok(latencies.percentileUs(1) > 4e6, "what is longer than a bucket can say is in the last");
});

t.test("a line through points that lie on one is that line", async (t) => {
  const { constant, slope } = lineThrough([
    [1, 5],
    [10, 23],
    [100, 203],
  ]);
  t.ok(Math.abs(constant - 3) < 1e-9 && Math.abs(slope - 2) < 1e-12);
  t.same(lineThrough([[7, 4]]), { constant: 4, slope: 0 });
});
