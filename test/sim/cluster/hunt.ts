/**
 * How long until the simulated cluster notices: runs seeds from 1 on until one fails. For `npm run mutants`.
 *
 *     hunt.js SEEDS SECONDS probe|volume
 */
import { takeNativeChecksums } from "../native.js";
import { runCluster } from "./run.js";

/** Virtual time with faults. */

const [, , seedsMax, secondsMax, subject] = process.argv;
const end = Date.now() + Number(secondsMax) * 1000;
let events = 0;
let found: { readonly seed: number; readonly invariant: string; readonly message: string } | null = null;
let seed = 0;

await takeNativeChecksums();
while (found === null && seed < Number(seedsMax) && Date.now() < end) {
  seed++;
  const result = runCluster({
    seed,
    subject: subject === "probe" ? "probe" : "volume",
    configChanges: subject === "config",
  });
  events += result.events;
  const { violation } = result;
  if (violation !== null) found = { seed, invariant: violation.invariant, message: violation.message };
}
console.log(JSON.stringify({ seeds: seed, events, found }));
