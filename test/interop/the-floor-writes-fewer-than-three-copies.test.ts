/** The C program that the cluster benchmark compares with: it builds without a warning, and does the work it counts. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { check, run } from "./support/process.js";
import { removeScratch, scratchDirectory } from "./support/scratch.js";

const SOURCE = new URL("../../scripts/benchmark/cluster/floor.c", import.meta.url).pathname;
const BLOCK_BYTES = 4096;
const BLOCKS = 64;

interface FloorResult {
  readonly requests: number;
  readonly seconds: number;
  readonly p50Us: number;
}

const FLUSH = 1;
const NO_FLUSH = 0;

function shape(kind: string, order: string, depth: number, flush: number): string[] {
  return [kind, order, BLOCK_BYTES, depth, 0.2, BLOCKS * BLOCK_BYTES, flush].map(String);
}

const folder = scratchDirectory();
t.teardown(() => removeScratch(folder));
const program = join(folder, "floor");
const files = ["a", "b", "c"].map((name) => join(folder, name));
await check("cc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE]);
for (const file of files) writeFileSync(file, new Uint8Array(BLOCKS * BLOCK_BYTES));
// One at a time, so that no two writes of a block overtake each other.
const written = await run(program, [...shape("write", "sequential", 1, FLUSH), ...files]);
const isRefused = /io_uring_setup|floor: \/.*Invalid argument/.test(written.stderr);
const options = isRefused ? { skip: `io_uring or O_DIRECT is refused here: ${written.stderr.trim()}` } : {};

t.test("what it counts is in three files", options, async (t) => {
  t.equal(written.code, 0, written.stderr);
  const result = JSON.parse(written.stdout) as FloorResult;
  t.ok(result.requests > 0 && result.seconds > 0 && result.p50Us > 0, written.stdout);
  const [first, ...others] = files.map((file) => readFileSync(file));
  for (const other of others) t.ok(other.equals(first!), "the copies are equal");
  for (let block = 0; block < Math.min(BLOCKS, result.requests); block++) {
    const bytes = first!.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    if (bytes.every((byte) => byte === 0)) t.fail(`block ${block} was counted and not written`);
  }
});

t.test("it reads, and asks for three files", options, async (t) => {
  const text = await check(program, [...shape("read", "random", 4, NO_FLUSH), ...files]);
  t.ok((JSON.parse(text) as FloorResult).requests > 0, text);
  t.equal((await run(program, shape("read", "random", 4, NO_FLUSH))).code, 64, "three files are needed");
});
