#!/usr/bin/env node
// npm run mutants [-- --list store|cluster] [--only NAME,NAME] [--seeds N] [--seconds N] [--jobs N] [--no-control] [--write]
//
// Known-bad one-line changes of production code, each applied to a scratch copy, each hunted by the simulator. A
// mutant that survives is a missing check. One whose `find` is not in the source exactly once is an error: the code
// has moved on, and the list must follow. One that names a unit test (`test`) counts as caught when that test, which
// passes without it, fails. --write puts the list's table into docs/testing.md.
import { spawn } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import ts from "typescript";
import { CLUSTER_MUTANTS } from "../test/sim/cluster/mutants.mjs";
import { MUTANTS } from "../test/sim/mutants.mjs";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SOURCES = ["lib", "test/sim", "test/unit"];
const { values } = parseArgs({
  options: {
    list: { type: "string", default: "store" },
    only: { type: "string" },
    seeds: { type: "string", default: "3000" },
    seconds: { type: "string", default: "120" },
    jobs: { type: "string", default: "2" },
    "no-control": { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  },
});

const LISTS = {
  store: { mutants: MUTANTS, mark: "mutants", controls: [{ fronts: "store,volume,nbd" }] },
  cluster: {
    mutants: CLUSTER_MUTANTS,
    mark: "cluster mutants",
    controls: [{ subject: "volume" }, { subject: "config" }],
  },
};
const list = LISTS[values.list];
if (list === undefined) throw new Error(`--list is ${Object.keys(LISTS).join(" or ")}`);

function transpile(source, fileName) {
  const compilerOptions = { target: "es2023", module: "esnext" };
  return ts.transpileModule(source, { compilerOptions, fileName }).outputText;
}

function* sourcesIn(directory) {
  for (const entry of readdirSync(join(ROOT, directory), { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== "node_modules" && entry.name !== "dist") yield* sourcesIn(path);
    } else if (path.endsWith(".ts") && !path.endsWith(".d.ts")) yield path;
  }
}

/** The whole program, compiled once. */
function compile(into) {
  for (const directory of SOURCES) {
    for (const path of sourcesIn(directory)) {
      const target = join(into, path.replace(/\.ts$/, ".js"));
      mkdirSync(dirname(target), { recursive: true });
      writeFileSync(target, transpile(readFileSync(join(ROOT, path), "utf8"), path));
    }
  }
  writeFileSync(join(into, "package.json"), '{"type":"module"}\n');
  symlinkSync(join(ROOT, "node_modules"), join(into, "node_modules"));
  mkdirSync(join(into, "addon"));
  symlinkSync(join(ROOT, "addon", "build"), join(into, "addon", "build"));
}

function mutate(mutant, into) {
  const source = readFileSync(join(ROOT, mutant.file), "utf8");
  const places = source.split(mutant.find).length - 1;
  if (places !== 1) return `its text is in ${mutant.file} ${places} times instead of once`;
  const changed = source.replace(mutant.find, () => mutant.replace);
  writeFileSync(join(into, mutant.file.replace(/\.ts$/, ".js")), transpile(changed, mutant.file));
  return null;
}

function hunt(directory, mutant) {
  if (mutant.test !== undefined) return runTest(directory, mutant.test);
  const isCluster = mutant.subject !== undefined;
  const hunter = join(directory, isCluster ? "test/sim/cluster/hunt.js" : "test/sim/hunt.js");
  const scenes = isCluster
    ? [mutant.subject, mutant.focus ?? ""]
    : [mutant.fronts ?? "store,volume", mutant.focus ?? ""];
  return run([hunter, values.seeds, values.seconds, ...scenes], ({ output }) => {
    const last = output.trim().split("\n").at(-1);
    try {
      return JSON.parse(last);
    } catch {
      return { seeds: 0, events: 0, found: null, broken: output.slice(-500) };
    }
  });
}

/** A test that could not begin has found nothing. */
function runTest(directory, test) {
  return run([join(directory, test.replace(/\.ts$/, ".js"))], ({ output, code }) => {
    const failed = /^ *not ok \d+ - (.*)$/m.exec(output)?.[1];
    if (code === 0) return { seeds: 0, events: 0, found: null };
    if (failed === undefined) return { seeds: 0, events: 0, found: null, broken: output.slice(-500) };
    return { seeds: 0, events: 0, found: { invariant: "its test", message: failed } };
  });
}

function run(args, resultOf) {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  const heard = (bytes) => {
    output += bytes;
  };
  child.stdout.on("data", heard);
  child.stderr.on("data", heard);
  return new Promise((resolve) => {
    child.on("exit", (code) => resolve(resultOf({ output, code })));
  });
}

async function examine(mutant, compiled, scratch) {
  const directory = mkdtempSync(join(scratch, "mutant-"));
  cpSync(compiled, directory, { recursive: true, verbatimSymlinks: true });
  const problem = mutate(mutant, directory);
  if (problem !== null) return { mutant, problem };
  const result = await hunt(directory, mutant);
  rmSync(directory, { recursive: true });
  if (result.broken !== undefined) return { mutant, problem: result.broken };
  return { mutant, ...result };
}

function outcome({ problem, found, seeds, events }) {
  if (problem !== undefined) return `ERROR: ${problem}`;
  if (found === null) return `SURVIVED ${seeds} seeds, ${events} events`;
  if (seeds === 0) return `${found.invariant}: ${found.message}`;
  return `${found.invariant} after ${seeds} seeds, ${events} events`;
}

/** Where it was hunted. */
function sceneOf({ test, subject, focus = "any" }) {
  if (test !== undefined) return `\`${basename(test, ".test.ts")}\``;
  return subject === "config" ? "config nodes" : focus;
}

/** The cluster's table says in which scene a mutant was hunted. */
function table(results) {
  const isCluster = list.mutants === CLUSTER_MUTANTS;
  const rows = results.map(({ mutant, found, seeds, events }) => {
    const counts = seeds > 0 ? [String(seeds), String(events)] : ["–", "–"];
    const cells = [...counts, found ? found.invariant : "survived"];
    const scene = isCluster ? [sceneOf(mutant)] : [];
    return `| ${[mutant.name, `\`${mutant.file}\``, ...scene, ...cells].join(" | ")} |`;
  });
  return [
    `| mutant | file |${isCluster ? " scene |" : ""} seeds | events | caught by |`,
    `| --- | --- |${isCluster ? " --- |" : ""} ---: | ---: | --- |`,
    ...rows,
  ].join("\n");
}

function writeTable(results) {
  const path = join(ROOT, "docs/testing.md");
  const page = readFileSync(path, "utf8");
  const mark = `<!-- ${list.mark}: begin -->`;
  if (!page.includes(mark)) throw new Error(`docs/testing.md has no place for the list '${values.list}'`);
  const begin = page.indexOf(mark) + mark.length;
  const end = page.indexOf(`<!-- ${list.mark}: end -->`);
  writeFileSync(path, `${page.slice(0, begin)}\n\n${table(results)}\n\n${page.slice(end)}`);
}

const scratch = mkdtempSync(join(tmpdir(), "lamina-mutants-"));
try {
  const compiled = join(scratch, "compiled");
  mkdirSync(compiled);
  compile(compiled);
  const parts = values.only?.split(",") ?? [""];
  const wanted = list.mutants.filter(({ name }) => parts.some((part) => name.includes(part)));
  const tests = [...new Set(wanted.flatMap(({ test }) => test ?? []))];
  const controls = [...(values["no-control"] ? [] : list.controls), ...tests.map((test) => ({ test }))];
  for (const control of controls) {
    const { seeds, events, found, broken } = await hunt(compiled, control);
    console.log(`the unchanged program, ${JSON.stringify(control)}: ${seeds} seeds, ${events} events`);
    if (found === null && broken === undefined) continue;
    console.error(`the unchanged program fails: ${JSON.stringify({ found, broken })}`);
    process.exitCode = 1;
  }
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < wanted.length) {
      const index = next++;
      results[index] = await examine(wanted[index], compiled, scratch);
      console.log(`${wanted[index].name}: ${outcome(results[index])}`);
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker));
  const caught = results.filter(({ found }) => found).length;
  console.log(`${caught} of ${results.length} mutants caught`);
  if (caught < results.length) process.exitCode = 1;
  if (values.write) writeTable(results);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
