/**
 * npm run sim -- [--seed S] [--ticks N] [--lives N] [--trace] [--without a,b] [--front store|volume|nbd] [--focus NAME]
 *                [--seeds N] [--from S] [--seconds N] [--processes N] [--minimise]
 *                [--replay] [--tally FILE]
 *
 * With --seed: one run, twice when not traced, to compare the hashes of its event log. Else many seeds.
 */
import { parseArgs } from "node:util";
import { FEATURES, type Feature, FOCI, type Focus, type FrontKind, type RunOptions } from "./config.js";
import { minimise } from "./minimise.js";
import { takeNativeChecksums } from "./native.js";
import { storeSubject } from "./real-store.js";
import { replay } from "./replay.js";
import { commandOf, coverageText, crossText, failureText } from "./report.js";
import { run } from "./run.js";
import { runOnProcesses, type SeedsResult } from "./seeds.js";
import { Tally } from "./tally.js";

/** Lines of a minimised trace that are printed: its end. */
const TRACE_LINES = 80;

const PROGRESS_MS = 10_000;
const TALLY_MS = 60_000;

const clock = { now: () => Date.now() };

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    ticks: { type: "string" },
    lives: { type: "string" },
    trace: { type: "boolean", default: false },
    without: { type: "string", default: "" },
    front: { type: "string" },
    focus: { type: "string" },
    plain: { type: "boolean", default: false },
    seeds: { type: "string", default: "1000" },
    from: { type: "string" },
    seconds: { type: "string", default: "120" },
    processes: { type: "string", default: "1" },
    minimise: { type: "boolean", default: false },
    replay: { type: "boolean", default: false },
    tally: { type: "string" },
  },
});

function features(list: string): Feature[] {
  return list
    .split(",")
    .filter((name) => name !== "")
    .map((name) => {
      const feature = FEATURES.find((known) => known === name);
      if (feature === undefined) throw new Error(`'${name}' is no feature; there are ${FEATURES.join(", ")}`);
      return feature;
    });
}

function front(name: string | undefined): FrontKind | undefined {
  if (name === undefined || name === "store" || name === "volume" || name === "nbd") return name;
  throw new Error(`'${name}' is no front; there are store, volume and nbd`);
}

function focus(name: string): Focus {
  const found = FOCI.find((known) => known === name);
  if (found === undefined) throw new Error(`'${name}' is no focus; there are ${FOCI.join(", ")}`);
  return found;
}

const chosenFront = front(values.front);
const common = {
  without: features(values.without),
  ...(values.ticks === undefined ? {} : { operations: Number(values.ticks) }),
  ...(values.lives === undefined ? {} : { lives: Number(values.lives) }),
  ...(chosenFront === undefined ? {} : { front: chosenFront }),
  ...(values.focus === undefined ? {} : { focus: focus(values.focus) }),
  ...(values.plain ? { plain: true } : {}),
};

async function oneSeed(options: RunOptions): Promise<number> {
  const result = await run(storeSubject, options, values.trace ? (line) => console.log(line) : null);
  console.log(
    `seed ${options.seed}: ${result.coverage.events} events, ${result.coverage.operations} operations, hash ${result.hash}`,
  );
  console.log(coverageText(result.coverage));
  if (result.violation === null) {
    if (values.trace) return 0;
    const again = await run(storeSubject, options);
    if (again.hash === result.hash) return 0;
    console.log(`not deterministic: the second run's hash is ${again.hash}`);
    return 1;
  }
  console.log(failureText(result.violation.invariant, result.violation.message, options));
  if (!values.trace) console.log(result.violation.stack);
  if (values.minimise) await printMinimised(options);
  return 1;
}

async function printMinimised(options: RunOptions): Promise<void> {
  const first = await run(storeSubject, options);
  if (first.violation === null) return;
  const small = await minimise(storeSubject, options, first);
  const lines: string[] = [];
  const traced = await run(storeSubject, small.options, (line) => {
    lines.push(line);
    if (lines.length > 4 * TRACE_LINES) lines.splice(0, lines.length - TRACE_LINES);
  });
  console.log(lines.slice(-TRACE_LINES).join("\n"));
  console.log(`minimised in ${small.tries} runs to ${traced.coverage.events} events:`);
  console.log(`  ${commandOf(small.options)}`);
  console.log(`  ${traced.violation?.message ?? "(gone)"}`);
}

async function manySeeds(): Promise<number> {
  const firstSeed = values.from === undefined ? clock.now() % 2 ** 40 : Number(values.from);
  const started = clock.now();
  console.log(`seeds from ${firstSeed}`);
  const tally = values.tally === undefined ? null : new Tally(values.tally);
  let told = started;
  const progress = (result: SeedsResult): void => {
    if (clock.now() - told < (tally === null ? PROGRESS_MS : TALLY_MS)) return;
    told = clock.now();
    tally?.tell(result, new Date(told));
    const rate = Math.round((result.coverage.events * 1000) / (told - started));
    console.log(
      `${result.seeds} seeds, ${result.coverage.events} events, ${rate} events/s, ${result.failures.length} failures`,
    );
  };
  const options = {
    ...common,
    firstSeed,
    count: Number(values.seeds),
    budgetMs: Number(values.seconds) * 1000,
  };
  const result = await runOnProcesses(options, Number(values.processes), clock, progress);
  const seconds = (clock.now() - started) / 1000;
  const rate = Math.round(result.coverage.events / seconds);
  tally?.tell(result, new Date(clock.now()));
  console.log(coverageText(result.coverage));
  console.log(crossText(result.coverage));
  console.log(
    `${result.seeds} seeds from ${firstSeed}, ${result.coverage.events} events, ${result.coverage.operations} operations, ` +
      `${rate} events/s, ${result.failures.length} failures`,
  );
  if (tally !== null) console.log(tally.text());
  for (const failure of result.failures)
    console.log(failureText(failure.invariant, failure.message, { ...common, seed: failure.seed }));
  const worst = result.failures[0];
  if (worst !== undefined) await printMinimised({ ...common, seed: worst.seed });
  return result.failures.length === 0 ? 0 : 1;
}

/** Crash replay of one workload after the other. */
async function replaySeeds(): Promise<number> {
  const firstSeed = Number(values.from ?? values.seed ?? clock.now() % 2 ** 40);
  const end = clock.now() + Number(values.seconds) * 1000;
  let images = 0;
  let events = 0;
  let seeds = 0;
  while (seeds < Number(values.seeds) && clock.now() < end) {
    const result = await replay(storeSubject, firstSeed + seeds, chosenFront ?? "store");
    seeds++;
    images += result.images;
    events += result.events;
    if (result.failure === null) continue;
    console.log(JSON.stringify(result.failure, null, 2));
    return 1;
  }
  console.log(`${images} crashes of ${seeds} workloads from seed ${firstSeed}, ${events} events, no failure`);
  return 0;
}

await takeNativeChecksums();
if (values.replay) process.exitCode = await replaySeeds();
else
  process.exitCode =
    values.seed === undefined ? await manySeeds() : await oneSeed({ ...common, seed: Number(values.seed) });
