/** The house rules that a compiler does not know: who may import whom, and what never stands in a file. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import t from "tap";

const root = join(import.meta.dirname, "../../..");
const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
  cwd: root,
  encoding: "utf8",
})
  .split("\n")
  .filter((file) => file !== "");

/** Rooms that a room may import from, besides itself and core. Data flows one way; nothing points back. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  core: [],
  uring: ["addon"],
  store: [],
  replica: ["store"],
  volume: ["replica", "store"],
  gateway: ["volume", "replica", "uring"],
  cluster: ["volume", "replica", "store", "uring"],
  catalog: ["volume", "replica", "store"],
  admin: ["catalog", "gateway", "volume", "replica", "store", "uring"],
  cli: ["admin", "catalog", "cluster", "gateway", "volume", "replica", "store", "uring"],
};

/** Rooms whose code the simulator runs: no I/O of their own, so no Node modules. Composition files may. */
const PURE = ["core", "store", "volume", "replica"];

function roomOf(path: string): string {
  const parts = path.split("/");
  return parts[0] === "lib" ? parts[1]! : parts[0]!;
}

function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), "utf8");
  return [...text.matchAll(/(?:from|import)\s+"([^"]+)"/g)].map((match) => match[1]!);
}

const sources = files.filter((file) => file.startsWith("lib/") && file.endsWith(".ts"));

t.test("every room imports only what lies behind it", async (t) => {
  t.ok(sources.length > 20, "there are sources to look at");
  for (const file of sources) {
    const room = roomOf(file);
    if (room === "nbd") continue;
    const allowed = MAY_IMPORT[room];
    t.ok(allowed !== undefined, `${file}: its room is known`);
    for (const name of importsOf(file)) {
      if (!name.startsWith(".")) continue;
      const target = roomOf(normalize(join(dirname(file), name)));
      const fine = target === room || target === "core" || (allowed ?? []).includes(target);
      if (!fine) t.fail(`${file} imports ${name}`);
    }
  }
});

t.test("the protocol package stands alone", async (t) => {
  for (const file of sources.filter((name) => roomOf(name) === "nbd")) {
    for (const name of importsOf(file)) {
      if (!name.startsWith("./")) t.fail(`${file} imports ${name}`);
    }
  }
  t.pass("looked at");
});

t.test("rooms that the simulator runs import no Node module and no package", async (t) => {
  for (const file of sources.filter((name) => PURE.includes(roomOf(name)))) {
    for (const name of importsOf(file)) if (!name.startsWith(".")) t.fail(`${file} imports ${name}`);
  }
  t.pass("looked at");
});

t.test("nothing unfinished and no place of one machine stands in a file", async (t) => {
  // Spelled so that this file does not find itself.
  const unfinished = new RegExp(
    ["TO" + "DO", "FIX" + "ME", "XX" + "X:", "HA" + "CK:", "@ts-" + "ignore"].join("|"),
  );
  const machine = new RegExp(`(^|[^a-zA-Z0-9._-])/(wo${"rk"}|fa${"rm"})/`);
  const text = files.filter(
    (file) => /\.(ts|mjs|js|md|c|cc|h|sh|json|yaml|yml)$/.test(file) || file.startsWith("scripts/"),
  );
  for (const file of text) {
    if (file === "package-lock.json") continue;
    let content: string;
    try {
      content = readFileSync(join(root, file), "utf8");
    } catch {
      continue;
    }
    content.split("\n").forEach((line, i) => {
      if (unfinished.test(line) || machine.test(line)) t.fail(`${file}:${i + 1}: ${line.trim()}`);
    });
  }
  t.pass("looked at");
});

t.test("the lock file names no host", async (t) => {
  t.notMatch(readFileSync(join(root, "package-lock.json"), "utf8"), /"resolved": "http/);
});

t.test("files stay small enough to be read at one sitting", async (t) => {
  const LINES_MAX = 700;
  for (const file of sources) {
    const lines = readFileSync(join(root, file), "utf8").split("\n").length;
    if (lines > LINES_MAX) t.fail(`${file} has ${lines} lines, more than ${LINES_MAX}`);
  }
  t.pass("looked at");
});
