import { statSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import type { Disk } from "../../../lib/core/disk.js";
import { KIB, MIB } from "../../../lib/core/limits.js";
import type { Engine } from "../../../lib/uring/api.js";
import { lacks, loopDevice, mounted, scratchDirectory, slowDevice, sparseFile } from "./support/devices.js";
import { diskRead, diskSync, diskWrite, diskZero, onEachEngine } from "./support/engines.js";

/** Fills, zeroes the middle, and says whether exactly the middle is zeros. */
async function zeroesExactly(engine: Engine, disk: Disk, at: number, length: number): Promise<boolean> {
  const memory = engine.pool.allocate(MIB);
  const around = 64 * KIB;
  engine.pool.bytes.fill(0xff, memory, memory + MIB);
  for (let offset = at - around; offset < at + length + around; offset += 64 * KIB) {
    await diskWrite(disk, offset, memory, 64 * KIB);
  }
  if ((await diskZero(disk, at, length)) !== length) return false;
  let right = true;
  for (let offset = at - around; offset < at + length + around; offset += 64 * KIB) {
    await diskRead(disk, offset, memory, 64 * KIB);
    const want = offset < at || offset >= at + length ? 0xff : 0;
    if (!engine.pool.bytes.subarray(memory, memory + 64 * KIB).every((byte) => byte === want)) right = false;
  }
  engine.pool.free(memory);
  return right;
}

onEachEngine(
  t,
  "a block device that can unmap gives the space back",
  async (t, engine) => {
    const image = sparseFile(join(scratchDirectory(t), "image"), 16 * MIB);
    const device = loopDevice(t, image);
    const opened = await engine.openDisk({ path: device });
    t.equal(opened.kind, "block");
    t.equal(opened.direct, true);
    t.equal(opened.disk.sizeBytes, 16 * MIB);
    t.match(opened.instanceTag, /^disk-\d+$/);
    await t.rejects(opened.reserve(0, MIB), { code: "DEVICE_UNOPENABLE" });
    t.equal(await zeroesExactly(engine, opened.disk, MIB, 8 * MIB), true);
    t.ok((await diskSync(opened.disk)) >= 0);
    t.ok(statSync(image).blocks * 512 < 2 * MIB, `${statSync(image).blocks} sectors are left`);
    opened.disk.close();
  },
  lacks("losetup"),
);

onEachEngine(
  t,
  "a block device that cannot unmap is zeroed by the kernel",
  async (t, engine) => {
    const { disk } = await engine.openDisk({ path: await slowDevice(t, 0) });
    t.equal(await zeroesExactly(engine, disk, MIB, 2 * MIB), true);
    disk.close();
  },
  lacks("losetup", "nbdkit", "nbdfuse"),
);

onEachEngine(
  t,
  "a file system without holes and without direct I/O is written zeros, several at once",
  async (t, engine) => {
    const directory = mounted(t, "ramfs", "ramfs");
    const { disk, direct } = await engine.openDisk({ path: join(directory, "disk"), createBytes: 8 * MIB });
    t.equal(direct, false, "said, so that the caller can say it");
    const memory = engine.pool.allocate(MIB);
    engine.pool.bytes.fill(0xff, memory, memory + MIB);
    for (let at = 0; at < 8 * MIB; at += MIB) await diskWrite(disk, at, memory, MIB);
    // Each of them is refused in its first way: the way must change once for all, and longer than one stretch.
    const lengths = [2 * MIB + 4 * KIB, MIB, MIB];
    const results = await Promise.all([
      diskZero(disk, 0, lengths[0]!),
      diskZero(disk, 4 * MIB, lengths[1]!),
      diskZero(disk, 6 * MIB, lengths[2]!),
    ]);
    t.same(results, lengths);
    const nonzero: number[] = [];
    for (let at = 0; at < 8 * MIB; at += 512 * KIB) {
      await diskRead(disk, at, memory, 512 * KIB);
      if (engine.pool.bytes.subarray(memory, memory + 4 * KIB).some((byte) => byte !== 0))
        nonzero.push(at / MIB);
    }
    t.same(nonzero, [2.5, 3, 3.5, 5, 5.5, 7, 7.5]);
    t.equal(await zeroesExactly(engine, disk, MIB, 2 * MIB), true, "and again, without asking again");
    disk.close();
  },
  lacks("mount"),
);
