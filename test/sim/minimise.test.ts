/**
 * What a person gets who asks for a failing seed to be made smaller, on a store with a mistake in it: the command as it
 * is given, and then the command that it prints.
 */
import t from "tap";
import { simulate } from "./command.js";
import { configOf } from "./config.js";
import { run } from "./run.js";
import type { Subject } from "./subject.js";
import { type Mistake, toySubject } from "./support/toy-store.js";
import { INVARIANTS } from "./violation.js";

/** What the toy cannot do. */
const WITHOUT = ["drop", "records", "grow", "scrub", "full", "rot", "rot-zeros", "write-eio"] as const;
const STRAYS = ["misdirected-read", "misdirected-write", "misdirected-part"] as const;
const without = [...WITHOUT, ...STRAYS];
const OPERATIONS = 400;
const SEEDS_MAX = 500;
/** Of a trace, its end is compared. */
const TRACE_LINES = 10;
const MISTAKE: Mistake = "lost write";

interface Failing {
  readonly seed: number;
  readonly subject: Subject;
  readonly events: number;
}

async function failing(mistake: Mistake): Promise<Failing> {
  for (let seed = 1; seed <= SEEDS_MAX; seed++) {
    const options = { seed, operations: OPERATIONS, without, front: "store" as const };
    const { extentsPerVolume, zeroGrainBytes, extentBlocks } = configOf(options);
    if (zeroGrainBytes !== 4096 || extentBlocks !== 16) continue;
    const subject = toySubject(mistake, extentsPerVolume);
    const { violation, coverage } = await run(subject, options);
    if (violation !== null) return { seed, subject, events: coverage.events };
  }
  throw new Error(`${SEEDS_MAX} seeds do not find: ${mistake}`);
}

/** What the command printed, and its exit code. */
async function told(args: readonly string[], subject: Subject): Promise<{ code: number; text: string }> {
  const lines: string[] = [];
  const code = await simulate(args, subject, (line) => lines.push(line));
  return { code, text: lines.join("\n") };
}

function argumentsOf(seed: number): string[] {
  return ["--seed", `${seed}`, "--ticks", `${OPERATIONS}`, "--front", "store", "--without", without.join()];
}

/** The arguments of the last command that the text tells to give. */
function lastCommand(text: string): string[] {
  const commands = [...text.matchAll(/again: npm run sim -- (.*)$/gm)];
  return commands.at(-1)![1]!.split(" ");
}

/** The invariant that a text says is broken, last. */
function broken(text: string): string {
  return [...text.matchAll(/^seed \d+ breaks (\w+): (.*)$/gm)].at(-1)?.[1] ?? "none";
}

void t.test("a failing seed becomes a smaller run that fails in the same way", async (t) => {
  const { seed, subject, events } = await failing(MISTAKE);
  const asked = argumentsOf(seed);
  const first = await told([...asked, "--minimise"], subject);
  t.equal(first.code, 1);
  const invariant = broken(first.text) as keyof typeof INVARIANTS;
  t.ok(INVARIANTS[invariant], `it breaks ${invariant}`);
  t.ok(
    first.text.includes(`breaks ${invariant}: ${INVARIANTS[invariant]}`),
    "the invariant is there in words",
  );

  const [, tries, left] = /minimised in (\d+) runs to (\d+) events/.exec(first.text) ?? [];
  t.ok(Number(tries) > 0, `${tries} runs`);
  t.ok(Number(left) < events, `${left} events instead of ${events}`);
  const trace = first.text
    .slice(0, first.text.indexOf("minimised in"))
    .trimEnd()
    .split("\n")
    .slice(-TRACE_LINES);
  t.match(trace.at(-1), `VIOLATION ${invariant}`, "the trace ends with what broke");

  const command = lastCommand(first.text);
  t.ok(command.includes("--trace"), "the command shows every event");
  const featuresOf = (args: readonly string[]): number =>
    args[args.indexOf("--without") + 1]!.split(",").length;
  t.ok(featuresOf(command) > without.length, `without ${featuresOf(command)} features`);
  const again = await told(command, subject);
  t.equal(again.code, 1, command.join(" "));
  t.equal(broken(again.text), invariant);
  t.match(again.text, `${left} events`);
  t.ok(again.text.includes(trace.join("\n")), "and gives the same trace");
});

void t.test("a store without the mistake passes the same command", async (t) => {
  const { seed } = await failing(MISTAKE);
  const asked = argumentsOf(seed);
  const options = { seed, operations: OPERATIONS, without, front: "store" as const };
  const right = await told([...asked, "--minimise"], toySubject("none", configOf(options).extentsPerVolume));
  t.equal(right.code, 0, right.text);
  t.equal(broken(right.text), "none");
});

void t.test("a wrong argument is told in a sentence, and nothing is run", async (t) => {
  const subject = toySubject("none", 4);
  for (const args of [
    ["--sed", "1"],
    ["--front", "disk"],
    ["--without", "fauts"],
    ["--focus", "nothing"],
    ["x"],
  ]) {
    const { code, text } = await told([...args, "--seeds", "1"], subject);
    t.equal(code, 64, args.join(" "));
    t.match(text, /^[^\n]+\n {2}next: npm run sim -- --help$/);
  }
  const help = await told(["--help"], subject);
  t.equal(help.code, 0);
  t.match(help.text, /--minimise makes a failing run small/);
});
