import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { LOOP_NEEDS, LoopDevice } from "./support/loop-device.js";
import { check } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { allocatedBytes, pause, type TestServer } from "./support/server.js";
import { serveVolume, VOLUME } from "./support/volume.js";

interface FileSystem {
  readonly name: string;
  readonly make: readonly [string, ...string[]];
  readonly verify: readonly [string, ...string[]];
}

const FILE_SYSTEMS: readonly FileSystem[] = [
  { name: "ext4", make: ["mkfs.ext4", "-q", "-F"], verify: ["e2fsck", "-fn"] },
  { name: "xfs", make: ["mkfs.xfs", "-q", "-f"], verify: ["xfs_repair", "-n"] },
];

const MIB = 1 << 20;
/** Written, then deleted. */
const BIG_FILE_BYTES = 96 * MIB;
const SMALL_FILES = 200;

/** Fills a folder with files of many sizes; returns their digests by path. */
function writeTree(folder: string): Map<string, string> {
  const digests = new Map<string, string>();
  mkdirSync(folder);
  for (let i = 0; i < SMALL_FILES; i++) {
    const bytes = randomBytes(1 + i * 397);
    const path = join(folder, `file-${i}`);
    writeFileSync(path, bytes);
    digests.set(path, createHash("sha256").update(bytes).digest("hex"));
  }
  return digests;
}

function changedFiles(digests: ReadonlyMap<string, string>): string[] {
  const differs = ([path, digest]: [string, string]): boolean =>
    createHash("sha256").update(readFileSync(path)).digest("hex") !== digest;
  return [...digests].filter(differs).map(([path]) => path);
}

/** Space comes back in the background; the file system has the last word on how many bytes that are. */
async function shrinksTo(server: TestServer, limit: number): Promise<number> {
  let bytes = allocatedBytes(server.backingFile(VOLUME));
  for (let i = 0; i < 300 && bytes > limit; i++) {
    await pause(100);
    bytes = allocatedBytes(server.backingFile(VOLUME));
  }
  return bytes;
}

for (const { name, make, verify } of FILE_SYSTEMS) {
  const needs = requires({ ...LOOP_NEEDS, commands: [...LOOP_NEEDS.commands, make[0], verify[0], "fstrim"] });
  t.test(`${name}: files survive, deleted space comes back, fsck is clean`, needs, async (t) => {
    const { server, uri } = await serveVolume(t, "1G");
    const disk = await LoopDevice.attach(uri);
    t.teardown(async () => disk.detach());

    await check(make[0], [...make.slice(1), disk.device]);
    await disk.mount(name);
    const digests = writeTree(join(disk.mountPoint, "tree"));
    await check("sync", ["-f", disk.mountPoint]);
    const before = allocatedBytes(server.backingFile(VOLUME));
    const big = join(disk.mountPoint, "big");
    writeFileSync(big, randomBytes(BIG_FILE_BYTES));
    await check("sync", ["-f", disk.mountPoint]);
    const full = allocatedBytes(server.backingFile(VOLUME));
    t.ok(full - before >= BIG_FILE_BYTES, `the big file takes ${full - before} bytes of the store`);

    rmSync(big);
    // Freed blocks may be trimmed once the deletion is committed.
    await check("sync", ["-f", disk.mountPoint]);
    await check("fstrim", [disk.mountPoint]);
    // All but what its borders share with other files.
    const limit = full - BIG_FILE_BYTES + 16 * MIB;
    const left = await shrinksTo(server, limit);
    t.ok(left <= limit, `after fstrim the store takes ${left} bytes, ${full} before`);

    await disk.unmount();
    await check(verify[0], [...verify.slice(1), disk.device]);
    await disk.mount(name);
    t.same(changedFiles(digests), [], "all files are as they were written");
    await disk.unmount();
  });
}
