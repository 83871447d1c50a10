/** The simulated cluster's command, here so that the tests can give it too. */

import { CLUSTER_ROOMS, Tally } from "../tally.js";
import { optionsOf, toldOfMisuse, UsageError } from "../usage.js";
import { runCluster } from "./run.js";
import { ALL_SCENES, type SceneName } from "./scenes.js";
import { type Common, type Failure, runOnProcesses, type ShareResult } from "./seeds.js";

const COMMAND = "node dist/test/sim/cluster/main.js";
const TALLY_MS = 60_000;

const USAGE = `${COMMAND} [--seed S] [--trace] [--seeds N] [--from S] [--seconds N] [--fault-ms N]
       [--subject probe|volume|nobody] [--focus SCENE] [--config-changes]
       [--processes N] [--tally FILE]

With --seed: one run of the simulated cluster, twice when not traced, to compare the hashes of its event log. Without:
many seeds, from --from or from a number that the time gives, until --seeds or --seconds are used up. --tally FILE counts
runs over runs.
--fault-ms is the virtual time with faults; drawn from the seed when it is not given. --subject says who owns the volumes:
the simple owner that tests the protocol (probe), the real one (volume), or nobody, where only the config nodes
change. --focus plays one scene only:
${ALL_SCENES.join(", ")}.
--config-changes has config nodes lost and replaced meanwhile (with the real owner). Exit code 1 when an invariant was violated, 64 for a wrong argument.`;

const OPTIONS = {
  seed: { type: "string" },
  from: { type: "string" },
  seeds: { type: "string", default: "100" },
  seconds: { type: "string", default: "600" },
  "fault-ms": { type: "string" },
  subject: { type: "string", default: "probe" },
  focus: { type: "string" },
  "config-changes": { type: "boolean", default: false },
  trace: { type: "boolean", default: false },
  processes: { type: "string", default: "1" },
  tally: { type: "string" },
  help: { type: "boolean", short: "h", default: false },
} as const;

type Print = (text: string) => void;
type Values = ReturnType<typeof parse>;
const parse = (args: readonly string[]) => optionsOf(args, OPTIONS);
const clock = { now: () => Date.now() };

export function simulateCluster(args: readonly string[], print: Print): Promise<number> {
  return toldOfMisuse(() => execute(parse(args), print), `${COMMAND} --help`, print);
}

async function execute(values: Values, print: Print): Promise<number> {
  if (values.help) {
    print(USAGE);
    return 0;
  }
  const common: Common = {
    subject: subjectOf(values.subject),
    ...(values["fault-ms"] === undefined ? {} : { faultMs: whole(values["fault-ms"], "--fault-ms") }),
    ...(values.focus === undefined ? {} : { focus: focusOf(values.focus) }),
    configChanges: values["config-changes"],
  };
  const holds =
    values.seed === undefined
      ? await many(values, common, print)
      : one(whole(values.seed, "--seed"), common, values.trace, print);
  return holds ? 0 : 1;
}

function focusOf(name: string): SceneName {
  const scene = ALL_SCENES.find((known) => known === name);
  if (scene === undefined) throw new UsageError(`'${name}' is no scene; there are ${ALL_SCENES.join(", ")}`);
  return scene;
}

function subjectOf(name: string): "probe" | "volume" | "nobody" {
  if (name === "probe" || name === "volume" || name === "nobody") return name;
  throw new UsageError(`'${name}' is no subject; there are probe, volume and nobody`);
}

function whole(text: string, option: string): number {
  const value = Number(text);
  if (text !== "" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new UsageError(`'${text}' is no number for ${option}`);
}

/** What went wrong with a seed, and how it is seen again. */
function report(
  failure: Failure,
  { subject = "probe", faultMs, focus, configChanges }: Common,
  print: Print,
): void {
  print(`seed ${failure.seed}: ${failure.message}\n  ${failure.words}`);
  const changes = configChanges === true ? " --config-changes" : "";
  const scenes = `${focus === undefined ? "" : ` --focus ${focus}`}${changes}`;
  const time = faultMs === undefined ? "" : ` --fault-ms ${faultMs}`;
  print(`  again: ${COMMAND} --seed ${failure.seed} --subject ${subject}${time}${scenes} --trace`);
}

function one(seed: number, common: Common, isTraced: boolean, print: Print): boolean {
  const first = runCluster({ seed, ...common, ...(isTraced ? { trace: print } : {}) });
  const { violation } = first;
  if (violation !== null) report({ seed, message: violation.message, words: violation.words }, common, print);
  if (isTraced) return violation === null;
  const second = runCluster({ seed, ...common });
  const isSame = first.hash === second.hash;
  print(`${first.events} events, hash ${first.hash}${isSame ? "" : `, the second time ${second.hash}`}`);
  return violation === null && isSame;
}

async function many(values: Values, common: Common, print: Print): Promise<boolean> {
  const begun = clock.now();
  const from = values.from === undefined ? begun % 2 ** 40 : whole(values.from, "--from");
  const share = {
    from,
    step: 1,
    count: whole(values.seeds, "--seeds"),
    end: begun + 1000 * whole(values.seconds, "--seconds"),
    common,
  };
  const tally = values.tally === undefined ? null : new Tally(values.tally, CLUSTER_ROOMS);
  const tell = (result: ShareResult): void =>
    tally?.tell({ ...result, violations: result.failures.length }, new Date(clock.now()));
  let told = begun;
  let reported = 0;
  // At once: a long run may be ended by force.
  const reportNew = ({ failures }: ShareResult): void => {
    for (const failure of failures.slice(reported)) report(failure, common, print);
    reported = failures.length;
  };
  const progress = (result: ShareResult): void => {
    reportNew(result);
    if (tally === null || clock.now() - told < TALLY_MS) return;
    told = clock.now();
    tell(result);
    print(`${result.seeds} seeds, ${result.events} events, ${result.failures.length} violations`);
  };
  const result = await runOnProcesses(share, whole(values.processes, "--processes"), clock, progress);
  tell(result);
  reportNew(result);
  print(
    `${result.seeds} seeds from ${from}, ${result.events} events, ${result.quarantines} old backups quarantined, ${result.replaced} members replaced, ${result.grown} seats added, ${result.configChanges} config nodes replaced beside ${result.decisions} decisions, ${result.failures.length} violations`,
  );
  if (tally !== null) print(tally.text());
  return result.failures.length === 0;
}
