/** The simulated cluster's command, here so that the tests can give it too. */
import { optionsOf, toldOfMisuse, UsageError } from "../usage.js";
import { type ClusterRunOptions, type ClusterRunResult, runCluster } from "./run.js";
import { SCENES, type SceneName } from "./scenes.js";

const COMMAND = "node dist/test/sim/cluster/main.js";

const USAGE = `${COMMAND} [--seed S] [--trace] [--seeds N] [--from S] [--seconds N] [--fault-ms N]
       [--subject probe|volume] [--focus SCENE] [--config-changes]

With --seed: one run of the simulated cluster, twice when not traced, to compare the hashes of its event log. Without:
many seeds, from --from on, until --seeds or --seconds are used up.
--fault-ms is the virtual time with faults; drawn from the seed when it is not given. --subject says who owns the volumes:
the simple owner that tests the protocol (probe), or the real one (volume). --focus plays one scene only:
${SCENES.join(", ")}.
--config-changes has config nodes lost and replaced meanwhile (with the real owner). Exit code 1 when an invariant was violated, 64 for a wrong argument.`;

const OPTIONS = {
  seed: { type: "string" },
  from: { type: "string", default: "1" },
  seeds: { type: "string", default: "100" },
  seconds: { type: "string", default: "600" },
  "fault-ms": { type: "string" },
  subject: { type: "string", default: "probe" },
  focus: { type: "string" },
  "config-changes": { type: "boolean", default: false },
  trace: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const;

type Print = (text: string) => void;
type Common = Omit<ClusterRunOptions, "seed" | "trace">;

export function simulateCluster(args: readonly string[], print: Print): Promise<number> {
  return toldOfMisuse(() => execute(args, print), `${COMMAND} --help`, print);
}

function execute(args: readonly string[], print: Print): number {
  const values = optionsOf(args, OPTIONS);
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
  const from = whole(values.from, "--from");
  const seeds = whole(values.seeds, "--seeds");
  const seconds = whole(values.seconds, "--seconds");
  const holds =
    values.seed === undefined
      ? many(from, seeds, seconds, common, print)
      : one(whole(values.seed, "--seed"), common, values.trace, print);
  return holds ? 0 : 1;
}

function focusOf(name: string): SceneName {
  const scene = SCENES.find((known) => known === name);
  if (scene === undefined) throw new UsageError(`'${name}' is no scene; there are ${SCENES.join(", ")}`);
  return scene;
}

function subjectOf(name: string): "probe" | "volume" {
  if (name === "probe" || name === "volume") return name;
  throw new UsageError(`'${name}' is no subject; there are probe and volume`);
}

function whole(text: string, option: string): number {
  const value = Number(text);
  if (text !== "" && Number.isSafeInteger(value) && value >= 0) return value;
  throw new UsageError(`'${text}' is no number for ${option}`);
}

/** Says what went wrong with a seed, if anything did. */
function report(
  seed: number,
  { subject = "probe", faultMs, focus, configChanges }: Common,
  result: ClusterRunResult,
  print: Print,
): boolean {
  const { violation } = result;
  if (violation === null) return true;
  print(`seed ${seed}: ${violation.message}\n  ${violation.words}`);
  const changes = configChanges === true ? " --config-changes" : "";
  const scenes = `${focus === undefined ? "" : ` --focus ${focus}`}${changes}`;
  const time = faultMs === undefined ? "" : ` --fault-ms ${faultMs}`;
  print(`  again: ${COMMAND} --seed ${seed} --subject ${subject}${time}${scenes} --trace`);
  return false;
}

function one(seed: number, common: Common, isTraced: boolean, print: Print): boolean {
  if (isTraced) return report(seed, common, runCluster({ seed, ...common, trace: print }), print);
  const first = runCluster({ seed, ...common });
  const second = runCluster({ seed, ...common });
  const isSame = first.hash === second.hash;
  print(`${first.events} events, hash ${first.hash}${isSame ? "" : `, the second time ${second.hash}`}`);
  return report(seed, common, first, print) && isSame;
}

function many(from: number, seeds: number, seconds: number, common: Common, print: Print): boolean {
  const until = Date.now() + seconds * 1000;
  let events = 0;
  let quarantines = 0;
  let replaced = 0;
  let changes = 0;
  let decisions = 0;
  let failed = 0;
  let seed = from;
  for (; seed < from + seeds && Date.now() < until; seed++) {
    const result = runCluster({ seed, ...common });
    events += result.events;
    quarantines += result.quarantines;
    replaced += result.replaced;
    changes += result.configChanges;
    decisions += result.decisions;
    if (!report(seed, common, result, print)) failed++;
  }
  print(
    `${seed - from} seeds from ${from}, ${events} events, ${quarantines} old backups quarantined, ${replaced} members replaced, ${changes} config nodes replaced beside ${decisions} decisions, ${failed} violations`,
  );
  return failed === 0;
}
