/**
 * How long until the simulated cluster notices: runs seeds from 1 on until one fails, or the seconds of processor time
 * are used up. For `npm run mutants`.
 *
 *     hunt.js SEEDS SECONDS probe|volume|config [SCENE]
 */
import { takeNativeChecksums } from "../native.js";
import { runCluster } from "./run.js";
import { ALL_SCENES } from "./scenes.js";

const [, , seedsMax, secondsMax, subject, scene] = process.argv;
const focus = ALL_SCENES.find((name) => name === scene);
let events = 0;
let found: { readonly seed: number; readonly invariant: string; readonly message: string } | null = null;
let seed = 0;

await takeNativeChecksums();
while (found === null && seed < Number(seedsMax) && process.cpuUsage().user < Number(secondsMax) * 1e6) {
  seed++;
  const result = runCluster({
    seed,
    subject: subject === "config" ? "nobody" : subject === "probe" ? "probe" : "volume",
    ...(focus === undefined ? {} : { focus }),
  });
  events += result.events;
  const { violation } = result;
  if (violation !== null) found = { seed, invariant: violation.invariant, message: violation.message };
}
console.log(JSON.stringify({ seeds: seed, events, found }));
