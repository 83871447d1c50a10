/**
 * The simulator's part of the test suite: all regressions, determinism, crash replay, and fresh seeds for a fixed
 * time. The first seed is drawn from the commit, so each commit has fresh ones and a run can be repeated exactly.
 * LAMINA_SIM_SECONDS changes the time, LAMINA_SIM_SEED the first seed.
 */
import { spawnSync } from "node:child_process";
import t from "tap";
import type { FrontKind } from "./config.js";
import { takeNativeChecksums } from "./native.js";
import { storeSubject } from "./real-store.js";
import { REGRESSIONS } from "./regressions.js";
import { replay } from "./replay.js";
import { commandOf, coverageText, failureText } from "./report.js";
import { run } from "./run.js";
import { runSeeds } from "./seeds.js";

const SECONDS = Number(process.env["LAMINA_SIM_SECONDS"] ?? 100);
const FIRST_SEED = Number(process.env["LAMINA_SIM_SEED"] ?? seedOfCommit());
/** Seeds that are run however slow the machine is. */
const SEEDS_MIN = 5;
const clock = { now: () => Date.now() };
const FRONTS: readonly FrontKind[] = ["store", "volume", "nbd"];

/** 40 bits of the commit's name; of the clock where there is no checkout. */
function seedOfCommit(): number {
  const { stdout } = spawnSync("git", ["rev-parse", "HEAD"], { cwd: import.meta.dirname, encoding: "utf8" });
  const bits = Number.parseInt((stdout ?? "").slice(0, 10), 16);
  return Number.isSafeInteger(bits) ? bits : Date.now() % 2 ** 40;
}

t.comment(
  (await takeNativeChecksums())
    ? "checksums by the addon"
    : "checksums in JavaScript: the addon is not built",
);

t.comment(`fresh seeds begin with ${FIRST_SEED}`);

void t.test("bugs of the past do not come back", async (t) => {
  for (const { options, was } of REGRESSIONS) {
    const { violation } = await run(storeSubject, options);
    t.equal(violation, null, `${was} (${commandOf(options)})`);
  }
  t.pass(`${REGRESSIONS.length} regressions`);
});

void t.test("the same seed twice gives the same event log", async (t) => {
  for (const front of FRONTS) {
    const options = { seed: FIRST_SEED, front, operations: 300 };
    const first = await run(storeSubject, options);
    const second = await run(storeSubject, options);
    t.equal(second.hash, first.hash, `${front}: ${first.coverage.events} events`);
    t.ok(first.coverage.events > 0);
  }
});

void t.test("a crash after any event of a workload leaves a legal state", async (t) => {
  const until = clock.now() + (SECONDS * 1000) / 5;
  let images = 0;
  for (let seed = FIRST_SEED; clock.now() < until || images === 0; seed++) {
    const result = await replay(storeSubject, seed, FRONTS[seed % 2]!, 1, () => clock.now() >= until);
    images += result.images;
    if (result.failure === null) continue;
    t.fail(`${JSON.stringify(result.failure)}`);
    break;
  }
  t.ok(images > 0, `${images} images`);
});

for (const front of FRONTS) {
  void t.test(`fresh seeds: clients of the ${front}`, async (t) => {
    const share = front === "nbd" ? 0.2 : 0.3;
    const budgetMs = SECONDS * 1000 * share;
    const count = Number.MAX_SAFE_INTEGER;
    const options = { firstSeed: FIRST_SEED, count, least: SEEDS_MIN, budgetMs, front };
    const { coverage, seeds, failures } = await runSeeds(storeSubject, options, clock);
    t.comment(coverageText(coverage));
    for (const { seed, invariant, message } of failures)
      t.fail(failureText(invariant, message, { seed, front }));
    t.ok(
      seeds >= SEEDS_MIN,
      `${seeds} seeds from ${FIRST_SEED}, ${coverage.events} events, ${coverage.operations} operations`,
    );
  });
}
