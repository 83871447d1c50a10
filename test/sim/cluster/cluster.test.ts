/**
 * The simulated cluster's part of the suite: determinism, and fresh seeds for a fixed time. The first seed is drawn
 * from the commit. LAMINA_SIM_SECONDS_CLUSTER changes the time, LAMINA_SIM_SEED the first seed.
 */
import { spawnSync } from "node:child_process";
import t from "tap";
import { takeNativeChecksums } from "../native.js";
import { runCluster } from "./run.js";

const SECONDS = Number(process.env["LAMINA_SIM_SECONDS_CLUSTER"] ?? 8);
const FIRST_SEED = Number(process.env["LAMINA_SIM_SEED"] ?? seedOfCommit());
/** Seeds that are run however slow the machine is. */
const SEEDS_MIN = 4;

function seedOfCommit(): number {
  const { stdout } = spawnSync("git", ["rev-parse", "HEAD"], { cwd: import.meta.dirname, encoding: "utf8" });
  const bits = Number.parseInt((stdout ?? "").slice(0, 10), 16);
  return Number.isSafeInteger(bits) ? bits : Date.now() % 2 ** 40;
}

await takeNativeChecksums();
t.comment(`fresh seeds begin with ${FIRST_SEED}`);

void t.test("the same seed twice gives the same event log", async (t) => {
  const options = { seed: FIRST_SEED };
  const first = runCluster(options);
  const second = runCluster(options);
  t.equal(second.hash, first.hash, `${first.events} events`);
  t.ok(first.events > 1000);
});

void t.test(
  "fences, leases and records hold under faults, and the cluster serves again after them",
  async (t) => {
    const until = Date.now() + SECONDS * 1000;
    let seeds = 0;
    let writes = 0;
    let activations = 0;
    while (seeds < SEEDS_MIN || Date.now() < until) {
      const seed = FIRST_SEED + seeds;
      const result = runCluster({ seed });
      seeds++;
      writes += result.writes;
      activations += result.activations;
      if (result.violation !== null) {
        t.fail(`seed ${seed}: ${result.violation.message}`);
        break;
      }
    }
    t.ok(writes > 0 && activations > 0, `${seeds} seeds, ${writes} writes, ${activations} activations`);
  },
);

void t.test("the real owner of a volume loses nothing, and its copies are equal at rest", async (t) => {
  const options = { seed: FIRST_SEED, subject: "volume" } as const;
  t.equal(runCluster(options).hash, runCluster(options).hash, "deterministic");
  const until = Date.now() + SECONDS * 1000;
  let seeds = 0;
  const sums = { reads: 0, writes: 0, shrinks: 0, rebuilds: 0 };
  while (seeds < SEEDS_MIN || Date.now() < until) {
    const seed = FIRST_SEED + seeds;
    const result = runCluster({ seed, subject: "volume" });
    seeds++;
    sums.reads += result.reads;
    sums.writes += result.writes;
    sums.shrinks += result.shrinks;
    sums.rebuilds += result.rebuilds;
    if (result.violation !== null) {
      t.fail(`seed ${seed}: ${result.violation.message}`);
      break;
    }
  }
  t.ok(sums.writes > 0 && sums.reads > 0, `${seeds} seeds, ${JSON.stringify(sums)}`);
});
