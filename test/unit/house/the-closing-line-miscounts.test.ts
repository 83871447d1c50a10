/** The reporter's last line is what people and scripts believe: it counts named tests, and counts them right. */
import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import t from "tap";

const root = join(import.meta.dirname, "../../..");
const reporter = join(root, "scripts", "tap-reporter.mjs");

/** Pipes a raw stream through the reporter, as tap does. */
function report(stream: string, env: Readonly<Record<string, string>> = {}): string[] {
  const script = `
    const { default: Reporter } = await import(${JSON.stringify(reporter)});
    process.stdin.pipe(new Reporter()).pipe(process.stdout);`;
  const result = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    input: stream,
    encoding: "utf8",
    env: { ...process.env, LAMINA_LINT: "", ...env },
  });
  return result.stdout.trimEnd().split("\n");
}

function file(name: string, body: string, ok = true): string {
  const inner = body.replaceAll(/^/gm, "    ");
  return `# Subtest: ${name}\n${inner}\n${ok ? "ok" : "not ok"} 1 - ${name}\n`;
}

function closing(stream: string, env?: Readonly<Record<string, string>>): string | undefined {
  return report(`TAP version 14\n${stream}1..1\n`, env).at(-1);
}

const PASSES = "# Subtest: good\n    ok 1 - fine\n    ok 2 - fine too\n    1..2\nok 1 - good";

t.test("assertions are not tests", async (t) => {
  t.equal(closing(file("a", `${PASSES}\n1..1`)), "1 passed, 0 failed, 0 skipped");
});

t.test("a test inside a test counts, the outer one does not", async (t) => {
  const outer = `# Subtest: outer\n${PASSES.replaceAll(/^/gm, "    ")}\n    1..1\nok 1 - outer\n1..1`;
  t.equal(closing(file("a", outer)), "1 passed, 0 failed, 0 skipped");
});

t.test("a failure is counted once, with its details before the last line", async (t) => {
  const fails =
    "# Subtest: bad\n    not ok 1 - is wrong\n      ---\n      found: 3\n      ...\n    1..1\nnot ok 1 - bad\n1..1";
  const lines = report(`TAP version 14\n${file("a", fails, false)}1..1\n`);
  t.equal(lines.at(-1), "0 passed, 1 failed, 0 skipped");
  t.match(lines.join("\n"), /FAILED a › bad\n {4}is wrong\n {6}found: 3/);
});

t.test("a file that crashes after its tests passed has failed", async (t) => {
  t.equal(closing(file("a", `${PASSES}\n1..1`, false)), "1 passed, 1 failed, 0 skipped");
});

t.test("a file without named tests is one", async (t) => {
  t.equal(closing(file("a", "ok 1 - fine\nok 2 - fine\n1..2")), "1 passed, 0 failed, 0 skipped");
  t.equal(closing(file("a", "not ok 1 - wrong\n1..1", false)), "0 passed, 1 failed, 0 skipped");
});

t.test("a skipped test is skipped, and its reason is printed", async (t) => {
  const lines = report(`TAP version 14\n${file("a", "ok 1 - needs root # SKIP no root here\n1..1")}1..1\n`);
  t.equal(lines.at(-1), "0 passed, 0 failed, 1 skipped");
  t.match(lines.join("\n"), "needs root: no root here");
});

t.test("the linters are a test of their own", async (t) => {
  const stream = file("a", `${PASSES}\n1..1`);
  t.equal(closing(stream, { LAMINA_LINT: "passed" }), "2 passed, 0 failed, 0 skipped");
  t.equal(closing(stream, { LAMINA_LINT: "failed" }), "1 passed, 1 failed, 0 skipped");
});

t.test("every script parses", async (t) => {
  const scripts = execFileSync(
    "git",
    ["ls-files", "--cached", "--others", "--exclude-standard", "scripts", ".ci"],
    {
      cwd: root,
      encoding: "utf8",
    },
  );
  const names = scripts.split("\n").filter((name) => name !== "" && !/\.(ts|mjs|md)$/.test(name));
  t.ok(names.length > 5);
  for (const name of names) {
    const result = spawnSync("bash", ["-n", join(root, name)], { encoding: "utf8" });
    t.equal(result.status, 0, `${name} ${result.stderr}`);
  }
});
