/** The command of a person, here so that the tests can give it too. */
import { FEATURES, type Feature, FOCI, type Focus, type FrontKind, type RunOptions } from "./config.js";
import { minimise } from "./minimise.js";
import { replay } from "./replay.js";
import { coverageText, crossText, failureText } from "./report.js";
import { run } from "./run.js";
import { runOnProcesses, type SeedsResult } from "./seeds.js";
import type { Subject } from "./subject.js";
import { MACHINE_ROOMS, Tally, type Told } from "./tally.js";
import { optionsOf, toldOfMisuse, UsageError } from "./usage.js";

/** Lines of a minimised trace that are printed: its end. */
const TRACE_LINES = 80;

const PROGRESS_MS = 10_000;
const TALLY_MS = 60_000;

const clock = { now: () => Date.now() };

const USAGE = `npm run sim -- [--seed S] [--ticks N] [--lives N] [--trace] [--without a,b] [--front store|volume|nbd]
               [--focus NAME] [--plain] [--seeds N] [--from S] [--seconds N] [--processes N] [--minimise]
               [--replay] [--tally FILE]

With --seed: one run, twice when not traced, to compare the hashes of its event log. Without: many seeds, from --from
or from a number that the time gives, until --seeds or --seconds are used up.
--ticks is the number of operations, --lives how often the process is started. --minimise makes a failing run small.
--replay ends a short workload after each of its events in turn, by a kill and by power losses. --tally FILE counts runs over runs.
--without: ${FEATURES.join(", ")}
--focus: ${FOCI.join(", ")}`;

const OPTIONS = {
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
  help: { type: "boolean", short: "h", default: false },
} as const;

const parse = (args: readonly string[]) => optionsOf(args, OPTIONS);
type Values = ReturnType<typeof parse>;

/**
 * Seeds without number run the real program in processes of their own, whatever the subject. The exit code: 1 when an
 * invariant was broken, 64 for a wrong argument.
 */
export async function simulate(
  args: readonly string[],
  subject: Subject,
  print: (text: string) => void,
): Promise<number> {
  return toldOfMisuse(() => execute(parse(args), subject, print), "npm run sim -- --help", print);
}

async function execute(values: Values, subject: Subject, print: (text: string) => void): Promise<number> {
  if (values.help) {
    print(USAGE);
    return 0;
  }
  const command = new Command(values, subject, print);
  if (values.replay) return command.replaySeeds();
  return values.seed === undefined ? command.manySeeds() : command.oneSeed(Number(values.seed));
}

function features(list: string): Feature[] {
  return list
    .split(",")
    .filter((name) => name !== "")
    .map((name) => {
      const feature = FEATURES.find((known) => known === name);
      if (feature === undefined)
        throw new UsageError(`'${name}' is no feature; there are ${FEATURES.join(", ")}`);
      return feature;
    });
}

function front(name: string | undefined): FrontKind | undefined {
  if (name === undefined || name === "store" || name === "volume" || name === "nbd") return name;
  throw new UsageError(`'${name}' is no front; there are store, volume and nbd`);
}

function focus(name: string): Focus {
  const found = FOCI.find((known) => known === name);
  if (found === undefined) throw new UsageError(`'${name}' is no focus; there are ${FOCI.join(", ")}`);
  return found;
}

type Common = Omit<RunOptions, "seed">;

function commonOf(values: Values): Common {
  const chosen = front(values.front);
  return {
    without: features(values.without),
    ...(values.ticks === undefined ? {} : { operations: Number(values.ticks) }),
    ...(values.lives === undefined ? {} : { lives: Number(values.lives) }),
    ...(chosen === undefined ? {} : { front: chosen }),
    ...(values.focus === undefined ? {} : { focus: focus(values.focus) }),
    ...(values.plain ? { plain: true } : {}),
  };
}

function toldOf({ seeds, coverage, failures }: SeedsResult): Told {
  return { seeds, events: coverage.events, violations: failures.length };
}

class Command {
  readonly #values: Values;
  readonly #common: Common;
  readonly #subject: Subject;
  readonly #print: (text: string) => void;

  constructor(values: Values, subject: Subject, print: (text: string) => void) {
    this.#values = values;
    this.#common = commonOf(values);
    this.#subject = subject;
    this.#print = print;
  }

  async oneSeed(seed: number): Promise<number> {
    const options = { ...this.#common, seed };
    const values = this.#values;
    const result = await run(this.#subject, options, values.trace ? this.#print : null);
    this.#print(
      `seed ${options.seed}: ${result.coverage.events} events, ${result.coverage.operations} operations, hash ${result.hash}`,
    );
    this.#print(coverageText(result.coverage));
    if (result.violation === null) {
      if (values.trace) return 0;
      const again = await run(this.#subject, options);
      if (again.hash === result.hash) return 0;
      this.#print(`not deterministic: the second run's hash is ${again.hash}`);
      return 1;
    }
    this.#print(failureText(result.violation.invariant, result.violation.message, options));
    if (!values.trace) this.#print(result.violation.stack ?? "");
    if (values.minimise) await this.#printMinimised(options);
    return 1;
  }

  async #printMinimised(options: RunOptions): Promise<void> {
    const first = await run(this.#subject, options);
    if (first.violation === null) return;
    const small = await minimise(this.#subject, options, first);
    const lines: string[] = [];
    const traced = await run(this.#subject, small.options, (line) => {
      lines.push(line);
      if (lines.length > 4 * TRACE_LINES) lines.splice(0, lines.length - TRACE_LINES);
    });
    this.#print(lines.slice(-TRACE_LINES).join("\n"));
    this.#print(`minimised in ${small.tries} runs to ${traced.coverage.events} events:`);
    const { invariant, message } = traced.violation ?? first.violation;
    this.#print(failureText(invariant, message, small.options));
  }

  async manySeeds(): Promise<number> {
    const values = this.#values;
    const common = this.#common;
    const firstSeed = values.from === undefined ? clock.now() % 2 ** 40 : Number(values.from);
    const started = clock.now();
    this.#print(`seeds from ${firstSeed}`);
    const tally = values.tally === undefined ? null : new Tally(values.tally, MACHINE_ROOMS);
    let told = started;
    const progress = (result: SeedsResult): void => {
      if (clock.now() - told < (tally === null ? PROGRESS_MS : TALLY_MS)) return;
      told = clock.now();
      tally?.tell(toldOf(result), new Date(told));
      const rate = Math.round((result.coverage.events * 1000) / (told - started));
      this.#print(
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
    tally?.tell(toldOf(result), new Date(clock.now()));
    this.#print(coverageText(result.coverage));
    this.#print(crossText(result.coverage));
    this.#print(
      `${result.seeds} seeds from ${firstSeed}, ${result.coverage.events} events, ${result.coverage.operations} operations, ` +
        `${rate} events/s, ${result.failures.length} failures`,
    );
    if (tally !== null) this.#print(tally.text());
    for (const failure of result.failures)
      this.#print(failureText(failure.invariant, failure.message, { ...common, seed: failure.seed }));
    const worst = result.failures[0];
    if (worst !== undefined) await this.#printMinimised({ ...common, seed: worst.seed });
    return result.failures.length === 0 ? 0 : 1;
  }

  /** Crash replay of one workload after the other. */
  async replaySeeds(): Promise<number> {
    const values = this.#values;
    const firstSeed = Number(values.from ?? values.seed ?? clock.now() % 2 ** 40);
    const end = clock.now() + Number(values.seconds) * 1000;
    let images = 0;
    let events = 0;
    let seeds = 0;
    while (seeds < Number(values.seeds) && clock.now() < end) {
      const result = await replay(this.#subject, firstSeed + seeds, this.#common.front ?? "store");
      seeds++;
      images += result.images;
      events += result.events;
      if (result.failure === null) continue;
      this.#print(JSON.stringify(result.failure, null, 2));
      return 1;
    }
    this.#print(
      `${images} crashes of ${seeds} workloads from seed ${firstSeed}, ${events} events, no failure`,
    );
    return 0;
  }
}
