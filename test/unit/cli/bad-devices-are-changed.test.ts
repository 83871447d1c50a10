import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import t from "tap";
import type { ServeArguments } from "../../../lib/cli/serve/options.js";
import { LaminaError } from "../../../lib/core/errors.js";
import { decodeSuperblock, encodeSuperblock } from "../../../lib/store/superblock.js";
import { addon } from "../../../lib/uring/addon.js";
import { NativeChecksums } from "../../../lib/uring/native-checksums.js";
import { TestRedis } from "../catalog/support/redis.js";
import { lamina } from "./support/run.js";
import { scratch, serve, serveExactly } from "./support/server.js";

/** Ports of its own; the device and Redis are what a test is about. */
const NOWHERE_ELSE: ServeArguments = { listen: "127.0.0.1:0", admin: "127.0.0.1:0", pool: "16M" };

/** Names and contents below a directory; the lock, which holds nothing, left out. */
function fingerprint(directory: string): string[] {
  if (!existsSync(directory) || !statSync(directory).isDirectory()) return [];
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((name) => !name.endsWith("lamina.lock"))
    .sort()
    .map((name) => {
      const path = join(directory, name);
      if (!statSync(path).isFile()) return name;
      return `${name} ${createHash("sha256").update(readFileSync(path)).digest("hex")}`;
    });
}

/** Starts a server that must be refused, and compares the directory before and after. */
async function refused(
  test: typeof t | Parameters<NonNullable<Parameters<typeof t.test>[0]>>[0],
  data: string,
  more: ServeArguments,
  code: string,
): Promise<LaminaError | null> {
  const before = fingerprint(data);
  let error: unknown = null;
  try {
    const server = await serve(data, more);
    await server.close();
  } catch (thrown) {
    error = thrown;
  }
  test.ok(error instanceof LaminaError, `refused: ${String(error)}`);
  if (!(error instanceof LaminaError)) return null;
  test.equal(error.code, code, error.message);
  test.notMatch(error.message + error.next, /[{}]/, "no hole in the sentence");
  test.same(fingerprint(data), before, "nothing was changed");
  return error;
}

function put(path: string, offset: number, bytes: Buffer): void {
  const fd = openSync(path, "r+");
  writeSync(fd, bytes, 0, bytes.length, offset);
  closeSync(fd);
}

t.test("a port in use", async (t) => {
  const data = join(scratch(t), "data");
  const holder = createServer();
  await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
  t.teardown(() => new Promise<void>((resolve) => holder.close(() => resolve())));
  const { port } = holder.address() as { port: number };
  const nbd = await refused(t, data, { listen: `127.0.0.1:${port}` }, "LISTEN_REFUSED");
  t.match(nbd?.message, `127.0.0.1:${port}`);
  await refused(t, data, { admin: `127.0.0.1:${port}` }, "LISTEN_REFUSED");
  t.notOk(existsSync(data), "not even the directory");
});

t.test("data directories that are none", async (t) => {
  const directory = scratch(t);
  const file = join(directory, "file");
  writeFileSync(file, "x");
  await refused(t, file, {}, "DATA_DIRECTORY_UNUSABLE");
  await refused(t, join(file, "below"), {}, "DATA_DIRECTORY_UNUSABLE");
});

t.test("a directory that a server holds", async (t) => {
  const data = join(scratch(t), "data");
  const server = await serve(data);
  t.teardown(() => server.close());
  let refusal: unknown = null;
  await serve(data).catch((error: unknown) => {
    refusal = error;
  });
  t.match(refusal, { code: "DATA_DIRECTORY_BUSY" });
  t.match((refusal as unknown as LaminaError).message, `process ${process.pid}`, "names the holder");
  const { code, stderr } = await lamina("fsck", "--data", data);
  t.equal(code, 1);
  t.match(stderr, /in use by process/);
});

t.test("too small", async (t) => {
  const data = join(scratch(t), "data");
  await refused(t, data, { capacity: "1M" }, "DEVICE_TOO_SMALL");
  mkdirSync(data, { recursive: true });
  writeFileSync(join(data, "store.0"), "");
  await refused(t, data, {}, "DEVICE_TOO_SMALL");
});

t.test("somebody else's data", async (t) => {
  const data = join(scratch(t), "data");
  mkdirSync(data);
  const store = join(data, "store.0");
  writeFileSync(store, "");
  truncateSync(store, 160 * 2 ** 20);
  put(store, 1080, Buffer.from([0x53, 0xef]));
  const error = await refused(t, data, {}, "DEVICE_NOT_BLANK");
  t.match(error?.message, /ext4/);
  t.match(error?.next, /format --force/);
});

t.test("damaged", async (t) => {
  const data = join(scratch(t), "data");
  const made = await serve(data);
  await made.close();
  const store = join(data, "store.0");
  const copies = superblocks(store);
  t.equal(copies.length, 2);
  for (const at of copies) put(store, at + 100, Buffer.from("damage"));
  await refused(t, data, {}, "DEVICE_DAMAGED");
  const { code } = await lamina("fsck", "--data", data);
  t.equal(code, 1, "fsck says so, too");
});

t.test("of a newer Lamina", async (t) => {
  const data = join(scratch(t), "data");
  const made = await serve(data);
  await made.close();
  const store = join(data, "store.0");
  const env = { checksums: new NativeChecksums(addon(), -1) };
  for (const at of superblocks(store)) {
    const page = readFileSync(store).subarray(at, at + 4096);
    const decoded = decodeSuperblock(page, env);
    if (decoded.kind !== "valid") throw new Error(`superblock at ${at} is ${decoded.kind}`);
    encodeSuperblock({ ...decoded.superblock, version: 99 }, page, env);
    put(store, at, page);
  }
  const error = await refused(t, data, {}, "DEVICE_NEWER");
  t.match(error?.message, /99/, "the format is named");
  const { code } = await lamina("fsck", "--data", data);
  t.equal(code, 1, "fsck refuses it, too");
});

/** Offsets of the pages that begin as the first one does. */
function superblocks(store: string): number[] {
  const bytes = readFileSync(store);
  const magic = bytes.subarray(0, 8);
  const found: number[] = [];
  for (let at = 0; at < Math.min(bytes.length, 2 ** 24); at += 4096) {
    if (bytes.subarray(at, at + 8).equals(magic)) found.push(at);
  }
  return found;
}

t.test("devices that are none", async (t) => {
  const directory = scratch(t);
  const data = join(directory, "data");
  for (const device of [join(directory, "missing"), directory, "/dev/null"]) {
    let refusal: unknown = null;
    await serveExactly({ ...NOWHERE_ELSE, redis: "none", data, device }).catch((error: unknown) => {
      refusal = error;
    });
    t.match(refusal, { code: "DEVICE_UNOPENABLE" }, device);
  }
});

t.test("no redis-server", async (t) => {
  const data = join(scratch(t), "data");
  const path = process.env["PATH"];
  process.env["PATH"] = "/nonexistent";
  t.teardown(() => {
    process.env["PATH"] = path;
  });
  let refusal: unknown = null;
  await serveExactly({ ...NOWHERE_ELSE, data, capacity: "160M" }).catch((error: unknown) => {
    refusal = error;
  });
  t.match(refusal, { code: "REDIS_SERVER_MISSING", next: /apt-get install redis-server.*--redis none/ });
  t.notOk(existsSync(data), "nothing was made");
});

t.test("a Redis of another store", async (t) => {
  const redis = new TestRedis();
  t.teardown(() => redis.destroy());
  await redis.start();
  const client = redis.client();
  await client.hset("lamina:{store}:identity", "store", "ffff");
  const data = join(scratch(t), "data");
  await lockedRefusal(data, redis.url, "REDIS_FOREIGN");
  t.notOk(existsSync(join(data, "store.0")), "no store was made");
  t.same(await client.keys("*"), ["lamina:{store}:identity"], "and nothing written there");
  await client.config("SET", "maxmemory-policy", "allkeys-lru");
  client.disconnect();
  await lockedRefusal(data, redis.url, "REDIS_EVICTS");

  async function lockedRefusal(where: string, url: string, code: string): Promise<void> {
    await refused(t, where, { redis: url }, code);
  }
});

t.test("a Redis that does not answer is no reason not to serve", async (t) => {
  const data = join(scratch(t), "data");
  const server = await serve(data, { redis: "unix:///nonexistent/redis.sock" });
  t.teardown(() => server.close());
  const { stdout } = await lamina("status", "--json", "--data", data);
  const status = JSON.parse(stdout) as { ready: boolean; mirror: { state: string } };
  t.equal(status.ready, true);
  t.ok(["connecting", "down"].includes(status.mirror.state));
});

t.test("format takes nothing that is not blank", async (t) => {
  const directory = scratch(t);
  const file = join(directory, "disk");
  writeFileSync(file, Buffer.alloc(4096, 1));
  truncateSync(file, 160 * 2 ** 20);
  const before = fingerprint(directory);
  const first = await lamina("format", file);
  t.equal(first.code, 1);
  t.match(first.stderr, /is not blank/);
  t.same(fingerprint(directory), before);
  t.equal((await lamina("format", "--force", file)).code, 0);
  t.match((await lamina("format", file)).stderr, /a Lamina store/, "nor a store of ours");
  t.equal((await lamina("fsck", file)).code, 0);
  t.equal((await lamina("format", join(directory, "new"))).code, 1, "a missing file needs a capacity");
  t.notOk(existsSync(join(directory, "new")));
});
