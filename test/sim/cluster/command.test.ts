/** The simulated cluster's command, and the runs that once failed. */
import t from "tap";
import { takeNativeChecksums } from "../native.js";
import { simulateCluster } from "./command.js";
import { CLUSTER_REGRESSIONS } from "./regressions.js";
import { runCluster } from "./run.js";

await takeNativeChecksums();

async function told(args: readonly string[]): Promise<{ code: number; text: string }> {
  const lines: string[] = [];
  const code = await simulateCluster(args, (text) => lines.push(text));
  return { code, text: lines.join("\n") };
}

void t.test("a wrong argument is told in a sentence, and nothing is run", async (t) => {
  for (const args of [
    ["--sed", "1"],
    ["--subject", "disk"],
    ["--fault-ms", "long"],
    ["--seed", ""],
    ["--seeds=-1"],
    ["x"],
  ]) {
    const { code, text } = await told(args);
    t.equal(code, 64, args.join(" "));
    t.match(text, /^[^\n]+\n {2}next: node dist\/test\/sim\/cluster\/main\.js --help$/);
  }
  const help = await told(["--help"]);
  t.equal(help.code, 0);
  t.match(help.text, /--fault-ms is the virtual time with faults/);
});

void t.test("one seed, and many", async (t) => {
  const one = await told(["--seed", "3", "--fault-ms", "1000"]);
  t.equal(one.code, 0, one.text);
  t.match(one.text, /^\d+ events, hash [0-9a-f]+$/);
  const many = await told(["--from", "3", "--seeds", "2", "--fault-ms", "1000", "--subject", "volume"]);
  t.equal(many.code, 0, many.text);
  t.match(many.text, /^2 seeds from 3, \d+ events, .* 0 violations$/);
});

void t.test("what once failed does not fail again", async (t) => {
  for (const { options, was } of CLUSTER_REGRESSIONS) {
    const { violation, events } = runCluster(options);
    t.equal(violation?.message ?? null, null, `seed ${options.seed}: ${was}`);
    t.ok(events > 1000, `${events} events`);
  }
});
