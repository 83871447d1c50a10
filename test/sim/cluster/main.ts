/**
 * node dist/test/sim/cluster/main.js [--seed S] [--from S] [--seeds N] [--seconds N] [--fault-ms N] [--subject probe|volume] [--trace]
 *
 * With --seed: one run of the simulated cluster, twice when not traced, to compare the hashes of its event log. Else
 * many seeds. Exit code 1 when an invariant was violated.
 */
import { parseArgs } from "node:util";
import { takeNativeChecksums } from "../native.js";
import { type ClusterRunResult, runCluster } from "./run.js";

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    from: { type: "string", default: "1" },
    seeds: { type: "string", default: "100" },
    seconds: { type: "string", default: "600" },
    "fault-ms": { type: "string", default: "40000" },
    subject: { type: "string", default: "probe" },
    trace: { type: "boolean", default: false },
  },
});

await takeNativeChecksums();
const faultMs = Number(values["fault-ms"]);
const subject = values.subject === "volume" ? "volume" : "probe";

/** Says what went wrong with a seed, or nothing. */
function report(seed: number, { violation }: ClusterRunResult): boolean {
  if (violation === null) return true;
  console.log(`seed ${seed}: ${violation.message}\n  ${violation.words}`);
  console.log(
    `  again: node dist/test/sim/cluster/main.js --seed ${seed} --subject ${subject} --fault-ms ${faultMs} --trace`,
  );
  return false;
}

function one(seed: number): boolean {
  if (values.trace)
    return report(seed, runCluster({ seed, subject, faultMs, trace: (line) => console.log(line) }));
  const first = runCluster({ seed, subject, faultMs });
  const second = runCluster({ seed, subject, faultMs });
  const same = first.hash === second.hash;
  console.log(`${first.events} events, hash ${first.hash}${same ? "" : `, the second time ${second.hash}`}`);
  return report(seed, first) && same;
}

function many(): boolean {
  const until = Date.now() + Number(values.seconds) * 1000;
  const first = Number(values.from);
  let events = 0;
  let quarantines = 0;
  let replaced = 0;
  let failed = 0;
  let seed = first;
  for (; seed < first + Number(values.seeds) && Date.now() < until; seed++) {
    const result = runCluster({ seed, subject, faultMs });
    events += result.events;
    quarantines += result.quarantines;
    replaced += result.replaced;
    if (!report(seed, result)) failed++;
  }
  console.log(
    `${seed - first} seeds from ${first}, ${events} events, ${quarantines} old backups quarantined, ${replaced} members replaced, ${failed} violations`,
  );
  return failed === 0;
}

process.exitCode = (values.seed === undefined ? many() : one(Number(values.seed))) ? 0 : 1;
