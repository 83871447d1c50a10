import { randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import t from "tap";
import { running, scratch } from "./support/server.js";

interface Volume {
  readonly size: number;
  readonly usage: { readonly extents: number };
}

t.test("in and out again", async (t) => {
  const { run } = await running(t);
  const directory = scratch(t);
  const image = join(directory, "image");
  // Data, a long hole, data that ends in the middle of a block.
  const head = randomBytes(3 * 2 ** 20 + 100);
  const tail = randomBytes(5000);
  writeFileSync(image, head);
  truncateSync(image, 40 * 2 ** 20);
  const whole = Buffer.concat([readFileSync(image), tail]);
  writeFileSync(image, whole);

  const imported = await run("volume", "import", "v", image, "--json");
  t.equal(imported.code, 0, imported.stderr);
  t.match(JSON.parse(imported.stdout), { volume: "v", size: whole.length, created: true });
  const shown = JSON.parse((await run("volume", "show", "v", "--json")).stdout) as Volume;
  t.equal(shown.size, Math.ceil(whole.length / 4096) * 4096, "a whole number of blocks");
  t.equal(shown.usage.extents, 2, "the hole took no space");

  const out = join(directory, "out");
  t.equal((await run("volume", "export", "v", out)).code, 0);
  const read = readFileSync(out);
  t.ok(read.subarray(0, whole.length).equals(whole), "the same bytes");
  t.ok(read.subarray(whole.length).every((byte) => byte === 0));
  t.ok(statSync(out).blocks * 512 < 8 * 2 ** 20, "and the same holes");

  const again = await run("volume", "export", "v", out);
  t.equal(again.code, 1);
  t.match(again.stderr, /exists already.*--force/);
  t.equal((await run("volume", "export", "v", out, "--force")).code, 0);
  t.notOk(existsSync(`${out}.partial`));
});

t.test("the holes of an image are not read: 8 TiB with three pieces of data", async (t) => {
  const { run } = await running(t);
  const directory = scratch(t);
  const image = join(directory, "image");
  const size = 8 * 2 ** 40;
  const bytes = randomBytes(3 * 4096 + 1000);
  // Inside a block, over the end of one, and in the last one.
  const places = [10_000, 5 * 2 ** 40 - 100, size - bytes.length];
  writeFileSync(image, "");
  truncateSync(image, size);
  const file = openSync(image, "r+");
  for (const at of places) writeSync(file, bytes, 0, bytes.length, at);
  closeSync(file);

  const imported = await run("volume", "import", "big", image, "--json");
  t.equal(imported.code, 0, imported.stderr);
  const out = join(directory, "out");
  t.equal((await run("volume", "export", "big", out)).code, 0);
  const copy = openSync(out, "r");
  for (const at of places) {
    const read = Buffer.alloc(bytes.length + 8192);
    const from = Math.max(0, Math.min(at - 4096, size - read.length));
    readSync(copy, read, 0, read.length, from);
    const wanted = Buffer.alloc(read.length);
    bytes.copy(wanted, at - from);
    t.ok(read.equals(wanted), `the data at ${at}, and zeros around it`);
  }
  closeSync(copy);
  t.ok(statSync(out).blocks * 512 < 2 ** 20, "and the holes are holes again");
});

t.test("into a volume that has something else", async (t) => {
  const { run } = await running(t);
  const directory = scratch(t);
  const old = join(directory, "old");
  const image = join(directory, "image");
  writeFileSync(old, randomBytes(8 * 2 ** 20));
  writeFileSync(image, Buffer.alloc(8 * 2 ** 20).fill(7, 2 ** 20, 2 ** 21));
  t.equal((await run("volume", "import", "v", old)).code, 0);
  const second = await run("volume", "import", "v", image, "--json");
  t.match(JSON.parse(second.stdout), { created: false });
  const out = join(directory, "out");
  t.equal((await run("volume", "export", "v", out)).code, 0);
  t.ok(readFileSync(out).equals(readFileSync(image)), "zeros of the image replaced what was there");
});

t.test("refusals", async (t) => {
  const { run } = await running(t);
  const directory = scratch(t);
  const image = join(directory, "image");
  writeFileSync(image, randomBytes(8192));
  t.equal((await run("volume", "create", "small", "--size", "4096")).code, 0);
  const cases: [string[], number, RegExp][] = [
    [["volume", "import", "small", image], 1, /8192 bytes but volume 'small' only 4096; grow it/],
    [["volume", "import", "v", join(directory, "missing")], 1, /does not exist/],
    [["volume", "import", "v", directory], 1, /directory/],
    [["volume", "import", "v", "/dev/null"], 1, /empty/],
    [["volume", "export", "nobody", join(directory, "out")], 1, /no volume named 'nobody'/],
    [["volume", "export", "small", join(directory, "no", "such", "dir")], 1, /cannot be used/],
  ];
  for (const [args, code, message] of cases) {
    const outcome = await run(...args);
    t.equal(outcome.code, code, args.join(" "));
    t.match(outcome.stderr, message);
  }
  writeFileSync(image, Buffer.concat([Buffer.from([0x51, 0x46, 0x49, 0xfb]), Buffer.alloc(8188)]));
  const guessed = await run("volume", "import", "v", image);
  t.equal(guessed.code, 64);
  t.match(guessed.stderr, /looks like a qcow2 image; say --format/);
  const { stdout } = await run("volume", "ls", "--json");
  const { volumes } = JSON.parse(stdout) as { volumes: { name: string }[] };
  t.same(
    volumes.map(({ name }) => name),
    ["small"],
    "no volume was left behind",
  );
  t.notOk(existsSync(join(directory, "out")));
});
