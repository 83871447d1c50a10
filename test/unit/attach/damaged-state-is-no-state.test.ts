/** Files in the state directory that someone has damaged: as good as none, never a crash. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { type RunResult, run } from "../../interop/support/process.js";
import { attachProgram } from "../../vm/support/attach.js";
import { MISSING } from "./support.js";

const GOOD = {
  version: 1,
  index: 0,
  id: 1795364595000000000n,
  uri: "nbd://10.0.0.1/disk1",
  backend: "lamina:nbd://10.0.0.1/disk1",
  export: "disk1",
  addresses: ["10.0.0.1:10809", "[fd00::1]:10809"],
  current: 1,
  connections: 2,
  links: [4711, 4712],
  size: 2n ** 63n - 1n,
  blockSize: 4096,
  flags: 365,
  timeout: 10,
  deadTimeout: 86400,
  attachedAt: 1795364595,
  waitsSince: 0,
  waitsFor: 'with "quotes" and \\',
};

function text(value: object): string {
  const plain = JSON.stringify(value, (_key, item: unknown) =>
    typeof item === "bigint" ? `#${item}#` : item,
  );
  return plain.replace(/"#(\d+)#"/g, "$1");
}

const folder = mkdtempSync(join(tmpdir(), "lamina-state-"));
t.teardown(() => rmSync(folder, { recursive: true, force: true }));
mkdirSync(folder, { recursive: true });
chmodSync(folder, 0o755);

async function nameFrom(content: string): Promise<RunResult> {
  writeFileSync(join(folder, "nbd0.json"), content);
  return run(attachProgram("sanitize"), ["name", "nbd0"], { env: { LAMINA_ATTACH_STATE: folder } });
}

t.test("a good file", MISSING, async (t) => {
  const plain = await nameFrom(text(GOOD));
  t.equal(plain.stdout, "disk1\n");
  const odd = await nameFrom(text({ ...GOOD, export: "../a b;$c" }));
  t.equal(odd.stdout, "_._a_b__c\n", "nothing that a link's name could misuse");
  const nameless = await nameFrom(text({ ...GOOD, export: "" }));
  t.equal(nameless.stdout, "default\n");
});

const DAMAGED: readonly string[] = [
  "",
  "{",
  "[]",
  "null",
  "{}",
  text({ ...GOOD, uri: "" }),
  text({ ...GOOD, addresses: [] }),
  text({ ...GOOD, current: 2 }),
  text({ ...GOOD, connections: 0 }),
  text({ ...GOOD, connections: 1000 }),
  text({ ...GOOD, size: 0 }),
  text({ ...GOOD, size: 2n ** 64n }),
  text({ ...GOOD, size: -1 }),
  text({ ...GOOD, blockSize: 0 }),
  text({ ...GOOD, uri: "x".repeat(5000) }),
  text({ ...GOOD, links: { a: 1 } }),
  text({ ...GOOD, waitsFor: null }),
  text(GOOD).replace("disk1", "\\u0000"),
  text(GOOD).replace("disk1", "\\uzzzz"),
  text(GOOD).replace("disk1", "\\"),
  `${text(GOOD)}x`,
  `${text(GOOD)}${text(GOOD)}`,
  "{".repeat(20000),
  '{"a":['.repeat(3000),
];

t.test("a damaged file", MISSING, async (t) => {
  for (const content of DAMAGED) {
    const result = await nameFrom(content);
    t.equal(result.code, 1, content.slice(0, 80));
    t.match(result.stderr, /was not attached by lamina-attach/);
    t.notMatch(result.stderr, /Sanitizer|runtime error/);
  }
});

t.test("more than there is room for is left out", MISSING, async (t) => {
  const many = Array.from({ length: 100 }, (_unused, i) => i);
  const result = await nameFrom(text({ ...GOOD, links: many, addresses: many.map((i) => `10.0.0.${i}:1`) }));
  t.equal(result.stdout, "disk1\n");
  t.notMatch(result.stderr, /Sanitizer|runtime error/);
});

t.test("a file that was cut off", MISSING, async (t) => {
  const whole = text(GOOD);
  for (let length = 0; length < whole.length; length += 11) {
    const result = await nameFrom(whole.slice(0, length));
    t.equal(result.code, 1, `after ${length} characters`);
    t.notMatch(result.stderr, /Sanitizer|runtime error/);
  }
});
