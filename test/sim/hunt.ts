/**
 * How long until the simulator notices: runs seeds from 1 on until one fails. For `npm run mutants`.
 *
 *     hunt.js SEEDS SECONDS FRONT,FRONT… [FOCUS]
 */
import type { Focus, FrontKind } from "./config.js";
import { takeNativeChecksums } from "./native.js";
import { storeSubject } from "./real-store.js";
import { replay } from "./replay.js";
import { run } from "./run.js";

/** Short lives find mistakes in the order of things soonest: most of those show right after a crash. */
const SHORT = { operations: 240, lives: 8 };
/** Every so many seeds a crash replay, at every so many events. */
const REPLAY_EVERY = 8;
const REPLAY_STEP = 2;

const [, , seedsMax, secondsMax, fronts, focus] = process.argv;
const kinds = fronts!.split(",") as FrontKind[];
const end = Date.now() + Number(secondsMax) * 1000;
const focused = focus === undefined || focus === "" ? {} : { focus: focus as Focus };
let events = 0;
let found: { readonly seed: number; readonly invariant: string; readonly message: string } | null = null;
let seed = 0;

await takeNativeChecksums();
while (found === null && seed < Number(seedsMax) && Date.now() < end) {
  seed++;
  const front = kinds[seed % kinds.length]!;
  if (seed % REPLAY_EVERY === 0 && focused.focus === undefined) {
    // A connection's life has too many events to end it after each.
    const result = await replay(storeSubject, seed, front === "nbd" ? "volume" : front, REPLAY_STEP);
    events += result.events;
    if (result.failure !== null) found = result.failure;
    continue;
  }
  const { violation, coverage } = await run(storeSubject, { seed, front, ...SHORT, ...focused });
  events += coverage.events;
  if (violation !== null) found = { seed, invariant: violation.invariant, message: violation.message };
}
console.log(JSON.stringify({ seeds: seed, events, found }));
process.exit(0);
