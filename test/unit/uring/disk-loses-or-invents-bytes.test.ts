import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync } from "node:fs";
import { dirname, join } from "node:path";
import t from "tap";
import { DiskErrno } from "../../../lib/core/disk.js";
import { KIB, MIB } from "../../../lib/core/limits.js";
import {
  diskRead,
  diskResult,
  diskSync,
  diskWrite,
  diskZero,
  fillPattern,
  onEachEngine,
} from "./support/engines.js";

onEachEngine(t, "what was written is read back, and nothing beside it changes", async (t, engine) => {
  const path = join(t.testdir(), "disk");
  const { disk, created, kind } = await engine.openDisk({ path, createBytes: 8 * MIB });
  t.equal(created, true);
  t.equal(kind, "file");
  t.equal(disk.sizeBytes, 8 * MIB);
  t.equal(4096 % disk.alignBytes, 0);
  const memory = engine.pool.allocate(MIB);
  const back = engine.pool.allocate(MIB);
  const bytes = engine.pool.bytes;
  fillPattern(bytes.subarray(memory, memory + MIB), 3);
  t.equal(await diskWrite(disk, 4 * KIB, memory, MIB), MIB);
  t.equal(await diskSync(disk), 0);
  t.equal(await diskRead(disk, 4 * KIB, back, MIB), MIB);
  t.ok(Buffer.compare(bytes.subarray(memory, memory + MIB), bytes.subarray(back, back + MIB)) === 0);
  t.equal(await diskRead(disk, 0, back, 4 * KIB), 4 * KIB);
  t.ok(
    bytes.subarray(back, back + 4 * KIB).every((byte) => byte === 0),
    "the hole before it",
  );
  t.equal(await diskRead(disk, disk.sizeBytes - 4 * KIB, back, 4 * KIB), 4 * KIB, "the last block");
  disk.close();
  t.ok(
    readFileSync(path)
      .subarray(4 * KIB, 4 * KIB + MIB)
      .equals(bytes.subarray(memory, memory + MIB)),
  );
});

onEachEngine(t, "offsets beyond 4 GiB are not cut", async (t, engine) => {
  const path = join(t.testdir(), "disk");
  const size = 6 * 1024 * MIB;
  const { disk } = await engine.openDisk({ path, createBytes: size });
  const memory = engine.pool.allocate(4 * KIB);
  const at = 5 * 1024 * MIB + 12 * KIB;
  engine.pool.bytes.fill(0x5a, memory, memory + 4 * KIB);
  t.equal(await diskWrite(disk, at, memory, 4 * KIB), 4 * KIB);
  engine.pool.bytes.fill(0, memory, memory + 4 * KIB);
  t.equal(await diskRead(disk, at - 4096 * MIB, memory, 4 * KIB), 4 * KIB);
  t.equal(engine.pool.bytes[memory], 0, "not at the offset modulo 4 GiB");
  t.equal(await diskRead(disk, at, memory, 4 * KIB), 4 * KIB);
  t.equal(engine.pool.bytes[memory], 0x5a);
  t.equal(await diskZero(disk, 4 * KIB, size - 4 * KIB), size - 4 * KIB, "a zeroed range of 6 GiB");
  t.equal(await diskRead(disk, at, memory, 4 * KIB), 4 * KIB);
  t.equal(engine.pool.bytes[memory], 0);
  disk.close();
});

onEachEngine(t, "many requests in flight each answer with their own tag and bytes", async (t, engine) => {
  const path = join(t.testdir(), "disk");
  const blocks = 1500;
  const { disk } = await engine.openDisk({ path, createBytes: blocks * 4 * KIB });
  const memory: number[] = [];
  for (let i = 0; i < blocks; i++) {
    const at = engine.pool.allocate(4 * KIB);
    memory.push(at);
    engine.pool.view.setUint32(at, i);
  }
  const all = (
    start: (block: number, done: { diskDone(tag: number, result: number): void }) => void,
  ): Promise<void> =>
    new Promise((resolve, reject) => {
      const seen = new Set<number>();
      const done = {
        diskDone(tag: number, result: number): void {
          if (result !== 4 * KIB || seen.has(tag)) reject(new Error(`tag ${tag}: ${result}`));
          seen.add(tag);
          if (seen.size === blocks) resolve();
        },
      };
      for (let i = 0; i < blocks; i++) start(i, done);
    });
  await all((i, done) => disk.write(i * 4 * KIB, memory[i]!, 4 * KIB, done, i));
  for (const at of memory) engine.pool.view.setUint32(at, 0xffffffff);
  await all((i, done) => disk.read((blocks - 1 - i) * 4 * KIB, memory[i]!, 4 * KIB, done, i));
  t.ok(memory.every((at, i) => engine.pool.view.getUint32(at) === blocks - 1 - i));
  disk.close();
});

onEachEngine(
  t,
  "an append is done on return, of any length at any offset, and a direct read sees it",
  async (t, engine) => {
    const path = join(t.testdir(), "disk");
    const { disk } = await engine.openDisk({ path, createBytes: MIB });
    const memory = engine.pool.allocate(8 * KIB);
    const bytes = engine.pool.bytes;
    fillPattern(bytes.subarray(memory, memory + 8 * KIB), 9);
    t.equal(disk.appendNow(12345, memory + 3, 4567), 4567);
    t.ok(
      readFileSync(path)
        .subarray(12345, 12345 + 4567)
        .equals(bytes.subarray(memory + 3, memory + 3 + 4567)),
    );
    t.equal(await diskSync(disk), 0);
    const back = engine.pool.allocate(32 * KIB);
    t.equal(await diskRead(disk, 8 * KIB, back, 32 * KIB), 32 * KIB);
    const at = back + 12345 - 8 * KIB;
    t.ok(Buffer.compare(bytes.subarray(at, at + 4567), bytes.subarray(memory + 3, memory + 3 + 4567)) === 0);
    t.equal(
      disk.appendNow(0, engine.pool.capacityBytes + 8 * MIB, 10),
      -14,
      "memory outside the pool: EFAULT",
    );
    disk.close();
  },
);

onEachEngine(
  t,
  "zeroed ranges read as zeros, keep the file's length and give their space back",
  async (t, engine) => {
    const path = join(t.testdir(), "disk");
    const { disk } = await engine.openDisk({ path, createBytes: 4 * MIB });
    const memory = engine.pool.allocate(MIB);
    engine.pool.bytes.fill(0xff, memory, memory + MIB);
    for (let i = 0; i < 4; i++) t.equal(await diskWrite(disk, i * MIB, memory, MIB), MIB);
    await diskSync(disk);
    const full = statSync(path).blocks;
    t.equal(await diskZero(disk, MIB, 3 * MIB), 3 * MIB);
    await diskSync(disk);
    t.equal(statSync(path).size, 4 * MIB);
    t.ok(statSync(path).blocks <= full - 5000, `${full} sectors before, ${statSync(path).blocks} after`);
    for (const at of [MIB, 3 * MIB]) {
      t.equal(await diskRead(disk, at, memory, MIB), MIB);
      t.ok(engine.pool.bytes.subarray(memory, memory + MIB).every((byte) => byte === 0));
    }
    t.equal(await diskRead(disk, 0, memory, MIB), MIB);
    t.ok(
      engine.pool.bytes.subarray(memory, memory + MIB).every((byte) => byte === 0xff),
      "its neighbour stayed",
    );
    disk.close();
  },
);

onEachEngine(
  t,
  "short and long requests on a file system in memory, where the short ones are done at once",
  async (t, engine) => {
    const path = join(mkdtempSync("/dev/shm/lamina-"), "disk");
    t.teardown(() => rmSync(dirname(path), { recursive: true }));
    const { disk } = await engine.openDisk({ path, createBytes: 2 * MIB });
    const memory = engine.pool.allocate(MIB);
    const back = engine.pool.allocate(MIB);
    const { bytes } = engine.pool;
    fillPattern(bytes.subarray(memory, memory + MIB), 21);
    for (const length of [4 * KIB, 64 * KIB, 68 * KIB, MIB]) {
      t.equal(await diskWrite(disk, 8 * KIB, memory, length), length);
      t.equal(await diskSync(disk), 0);
      t.equal(await diskRead(disk, 8 * KIB, back, length), length);
      t.equal(
        Buffer.compare(bytes.subarray(memory, memory + length), bytes.subarray(back, back + length)),
        0,
      );
      bytes.fill(0, back, back + length);
    }
    truncateSync(path, 64 * KIB);
    t.equal(await diskRead(disk, 128 * KIB, back, 4 * KIB), DiskErrno.EIO);
    disk.close();
  },
  !existsSync("/dev/shm") && "needs /dev/shm",
);

onEachEngine(t, "a device that became shorter answers EIO, not fewer bytes", async (t, engine) => {
  const path = join(t.testdir(), "disk");
  const { disk } = await engine.openDisk({ path, createBytes: MIB });
  truncateSync(path, 64 * KIB);
  const memory = engine.pool.allocate(MIB);
  t.equal(await diskRead(disk, 512 * KIB, memory, 4 * KIB), DiskErrno.EIO, "all of it missing");
  t.equal(await diskRead(disk, 0, memory, MIB), DiskErrno.EIO, "a part of it missing");
  disk.close();
});

onEachEngine(
  t,
  "a full file system answers ENOSPC, and reserved space is there when it is full",
  async (t, engine) => {
    const directory = t.testdir();
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", directory]);
    try {
      const path = join(directory, "disk");
      const { disk, reserve } = await engine.openDisk({ path, createBytes: 8 * MIB });
      const memory = engine.pool.allocate(MIB);
      engine.pool.bytes.fill(1, memory, memory + MIB);
      await reserve(0, 512 * KIB);
      let result = 0;
      let at = MIB;
      for (; at < 8 * MIB && result >= 0; at += MIB) result = await diskWrite(disk, at, memory, MIB);
      t.equal(result, DiskErrno.ENOSPC);
      t.equal(await diskWrite(disk, 0, memory, 512 * KIB), 512 * KIB, "the reserved part");
      await t.rejects(
        reserve(2 * MIB, 4 * MIB),
        { code: "DEVICE_UNOPENABLE" },
        "a reservation that cannot be had",
      );
      disk.close();
    } finally {
      execFileSync("umount", ["--lazy", directory]);
    }
  },
  process.getuid?.() !== 0 && "mounting a small tmpfs needs root",
);

onEachEngine(
  t,
  "a request that is not aligned or not inside the device is a broken invariant",
  async (t, engine) => {
    const path = join(t.testdir(), "disk");
    const { disk } = await engine.openDisk({ path, createBytes: MIB });
    const memory = engine.pool.allocate(8 * KIB);
    const nobody = { diskDone(): void {} };
    const broken = { name: "InvariantError" };
    t.throws(() => disk.read(1, memory, 4 * KIB, nobody, 0), broken);
    t.throws(() => disk.read(0, memory + 1, 4 * KIB, nobody, 0), broken);
    t.throws(() => disk.write(0, memory, 100, nobody, 0), broken);
    t.throws(() => disk.write(MIB, memory, 4 * KIB, nobody, 0), broken);
    t.throws(() => disk.zero(MIB - 4 * KIB, 8 * KIB, nobody, 0), broken);
    disk.close();
    t.throws(() => disk.sync(nobody, 0), broken, "after close");
  },
);

onEachEngine(t, "requests in flight complete although the disk is closed", async (t, engine) => {
  const path = join(t.testdir(), "disk");
  const { disk } = await engine.openDisk({ path, createBytes: MIB });
  const memory = engine.pool.allocate(MIB);
  const writes = [diskWrite(disk, 0, memory, MIB), diskSync(disk)];
  disk.close();
  t.same(await Promise.all(writes), [MIB, 0]);
  // The lock went with the last of them.
  const again = await engine.openDisk({ path });
  t.equal(again.created, false);
  const last = diskResult((listener) => {
    const closing = {
      diskDone(tag: number, result: number): void {
        again.disk.close();
        listener.diskDone(tag, result);
      },
    };
    again.disk.read(0, memory, MIB, closing, 0);
  });
  t.equal(await last, MIB, "closed from its own last completion");
});

onEachEngine(t, "what cannot be opened says so by name", async (t, engine) => {
  const directory = t.testdir({ file: "x" });
  await t.rejects(engine.openDisk({ path: join(directory, "none") }), {
    code: "DEVICE_UNOPENABLE",
    message: /ENOENT/,
  });
  await t.rejects(engine.openDisk({ path: directory }), { code: "DEVICE_UNOPENABLE" });
  await t.rejects(engine.openDisk({ path: "/dev/null" }), { code: "DEVICE_UNOPENABLE", message: /neither/ });
  await t.rejects(engine.openDisk({ path: join(directory, "none", "disk"), createBytes: MIB }), {
    code: "DEVICE_UNOPENABLE",
  });
});

onEachEngine(t, "a device opened for reading refuses writes and still reads", async (t, engine) => {
  const path = join(t.testdir(), "disk");
  (await engine.openDisk({ path, createBytes: MIB })).disk.close();
  const { disk } = await engine.openDisk({ path, readOnly: true });
  const memory = engine.pool.allocate(4 * KIB);
  t.equal(await diskRead(disk, 0, memory, 4 * KIB), 4 * KIB);
  t.equal(await diskWrite(disk, 0, memory, 4 * KIB), -9, "EBADF");
  t.equal(disk.appendNow(0, memory, 10), -9, "EBADF");
  disk.close();
});
