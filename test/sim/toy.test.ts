import t from "tap";
import { configOf, FEATURES, type Feature } from "./config.js";
import { run } from "./run.js";
import { MISTAKES, toySubject } from "./support/toy-store.js";

/** What the toy cannot do, and faults that only checksums can catch. */
const WITHOUT: Feature[] = [
  "drop",
  "records",
  "grow",
  "scrub",
  "full",
  "rot",
  "rot-zeros",
  "misdirected-read",
  "misdirected-write",
  "write-eio",
];
const SEEDS_RIGHT = 150;
/** It stops at the first that catches the mistake. */
const SEEDS_WRONG = 2000;

async function firstViolation(mistake: (typeof MISTAKES)[number], seeds: number): Promise<string | null> {
  for (let seed = 1; seed <= seeds; seed++) {
    const options = { seed, operations: 400, without: WITHOUT, front: "store" as const };
    const { extentsPerVolume, zeroGrainBytes, extentBlocks } = configOf(options);
    if (zeroGrainBytes !== 4096 || extentBlocks !== 16) continue;
    const { violation } = await run(toySubject(mistake, extentsPerVolume), options);
    if (violation !== null) return `seed ${seed}: ${violation.message}`;
  }
  return null;
}

void t.test("a right store passes", async (t) => {
  t.ok(FEATURES.length > WITHOUT.length);
  t.equal(await firstViolation("none", SEEDS_RIGHT), null);
});

for (const mistake of MISTAKES.slice(1)) {
  void t.test(`caught: ${mistake}`, async (t) => {
    const caught = await firstViolation(mistake, SEEDS_WRONG);
    t.ok(caught, caught ?? "not caught");
  });
}

void t.test("the same seed twice gives the same event log", async (t) => {
  for (const seed of [3, 4, 5, 6]) {
    const options = { seed, operations: 400, without: WITHOUT, front: "store" as const };
    const subject = toySubject("none", configOf(options).extentsPerVolume);
    const first = await run(subject, options);
    const second = await run(subject, options);
    t.equal(second.hash, first.hash, `seed ${seed}: ${first.coverage.events} events, hash ${first.hash}`);
    t.equal(second.coverage.events, first.coverage.events);
  }
});
