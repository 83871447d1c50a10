import t from "tap";
import type { ErrorCode } from "../../../lib/core/errors.js";
import { LaminaError } from "../../../lib/core/errors.js";
import { KIB, MIB } from "../../../lib/core/limits.js";
import { diskSync } from "../../../lib/core/routine.js";
import { DeviceFailure } from "../../../lib/store/device.js";
import { SUPERBLOCK_A, SUPERBLOCK_B } from "../../../lib/store/format.js";
import {
  formatStore,
  openStore,
  planFormat,
  probe,
  type UpgradeStep,
  type UpgradeSteps,
} from "../../../lib/store/index.js";
import { decodeSuperblock, encodeSuperblock } from "../../../lib/store/superblock.js";
import { DEVICE_ID, Machine } from "./support/machine.js";
import { MemoryDisk } from "./support/memory-disk.js";

function codeOf(run: () => unknown): ErrorCode | "no error" {
  try {
    run();
  } catch (error) {
    if (error instanceof LaminaError) return error.code;
    throw error;
  }
  return "no error";
}

function open(machine: Machine): unknown {
  return machine.engine.run(openStore(machine.environment(), { path: "disk" }));
}

t.test("a device that is blank, foreign, newer, damaged or cut short is refused by name", async (t) => {
  const machine = new Machine();
  const { disk } = machine;
  const sound = disk.bytes.slice();
  t.equal(machine.engine.run(probe(machine.environment())).kind, "store");

  disk.bytes.fill(0);
  t.equal(
    codeOf(() => open(machine)),
    "DEVICE_FOREIGN",
  );
  t.equal(machine.engine.run(probe(machine.environment())).kind, "blank");

  disk.bytes.set([0x58, 0x46, 0x53, 0x42], 0);
  t.equal(
    codeOf(() => open(machine)),
    "DEVICE_FOREIGN",
  );
  t.match(machine.engine.run(probe(machine.environment())), { kind: "foreign", found: /XFS/ });

  disk.bytes.set(sound);
  const page = disk.bytes.subarray(SUPERBLOCK_A, SUPERBLOCK_A + 4096);
  const decoded = decodeSuperblock(page, machine.engine);
  t.equal(decoded.kind, "valid");
  if (decoded.kind !== "valid") return;
  const newer = new Uint8Array(4096);
  encodeSuperblock({ ...decoded.superblock, version: 99 }, newer, machine.engine);
  for (const at of [SUPERBLOCK_A, SUPERBLOCK_B]) disk.bytes.set(newer, at);
  t.equal(
    codeOf(() => open(machine)),
    "DEVICE_NEWER",
  );
  t.same(machine.engine.run(probe(machine.environment())), { kind: "newer", version: 99 });

  disk.bytes.set(sound);
  for (const at of [SUPERBLOCK_A, SUPERBLOCK_B]) disk.bytes[at + 100]! ^= 1;
  t.equal(
    codeOf(() => open(machine)),
    "DEVICE_DAMAGED",
  );
  t.equal(machine.engine.run(probe(machine.environment())).kind, "damaged");

  disk.bytes.set(sound);
  machine.disk = new MemoryDisk(machine.engine, 2 * MIB, { content: sound.subarray(0, 2 * MIB) });
  t.equal(
    codeOf(() => open(machine)),
    "DEVICE_DAMAGED",
  );
  t.ok(Buffer.compare(disk.bytes, sound) === 0, "nothing was written");
});

/** The superblock of `at` with another version, checksum included. */
function setVersion(machine: Machine, at: number, version: number): void {
  const page = machine.disk.bytes.subarray(at, at + 4096);
  const decoded = decodeSuperblock(page, machine.engine);
  if (decoded.kind !== "valid") throw new Error(`the superblock at ${at} is ${decoded.kind}`);
  encodeSuperblock({ ...decoded.superblock, version }, page, machine.engine);
}

t.test("an older version that nobody upgrades is refused, and nothing is written", async (t) => {
  const machine = new Machine();
  for (const at of [SUPERBLOCK_A, SUPERBLOCK_B]) setVersion(machine, at, 0);
  const before = machine.disk.bytes.slice();
  t.equal(
    codeOf(() => open(machine)),
    "DEVICE_OLDER",
  );
  t.equal(
    codeOf(() => machine.fsck()),
    "DEVICE_OLDER",
  );
  t.ok(Buffer.compare(machine.disk.bytes, before) === 0, "nothing was written");
});

t.test("one newer copy of the superblock is enough to be refused", async (t) => {
  for (const at of [SUPERBLOCK_A, SUPERBLOCK_B]) {
    const machine = new Machine();
    setVersion(machine, at, 2);
    t.equal(
      codeOf(() => open(machine)),
      "DEVICE_NEWER",
    );
    t.same(machine.engine.run(probe(machine.environment())), { kind: "newer", version: 2 });
  }
});

t.test("a step brings an older version forward, and one that fails is made again", async (t) => {
  const machine = new Machine();
  for (const at of [SUPERBLOCK_A, SUPERBLOCK_B]) setVersion(machine, at, 0);
  let steps = 0;
  const step: UpgradeStep = function* () {
    if (++steps === 1) throw new DeviceFailure("no more today");
    yield* diskSync(machine.disk);
  };
  const upgradeSteps: UpgradeSteps = new Map([[0, step]]);
  const upgraded = (): unknown =>
    machine.engine.run(openStore(machine.environment(), { path: "disk", upgradeSteps }));
  t.equal(codeOf(upgraded), "DEVICE_FAILED");
  t.equal(
    codeOf(() => open(machine)),
    "DEVICE_OLDER",
    "it is as old as before",
  );
  t.equal(codeOf(upgraded), "no error");
  t.equal(steps, 2);
  t.equal(
    codeOf(() => open(machine)),
    "no error",
    "from now on without the step",
  );
});

t.test("one damaged copy of the superblock is enough to open, and is mended by it", async (t) => {
  for (const at of [SUPERBLOCK_A, SUPERBLOCK_B]) {
    const machine = new Machine();
    machine.disk.bytes.fill(0xff, at + 8, at + 600);
    t.match(machine.fsck(), [/superblock [AB] is damaged/]);
    machine.start();
    t.equal(machine.stop(), null);
    t.same(machine.fsck(), []);
  }
});

t.test("too small a capacity is refused before anything is written", async (t) => {
  const machine = new Machine();
  const before = machine.disk.bytes.slice();
  const options = { deviceId: DEVICE_ID, clusterId: DEVICE_ID, capacityBytes: 300 * KIB, extentBlocks: 16 };
  t.equal(
    codeOf(() => planFormat(options)),
    "DEVICE_TOO_SMALL",
  );
  t.equal(
    codeOf(() => machine.engine.run(formatStore(machine.environment(), options))),
    "DEVICE_TOO_SMALL",
  );
  const large = { ...options, capacityBytes: 64 * MIB };
  t.equal(
    codeOf(() => machine.engine.run(formatStore(machine.environment(), large))),
    "DEVICE_TOO_SMALL",
  );
  t.ok(Buffer.compare(machine.disk.bytes, before) === 0, "nothing was written");
});

t.test("formatting again leaves nothing of the first store", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1, 2, 3]);
  machine.stop();
  const options = {
    deviceId: DEVICE_ID.slice().reverse(),
    clusterId: new Uint8Array(16),
    capacityBytes: machine.disk.sizeBytes,
    extentBlocks: 16,
    records: 8,
  };
  machine.engine.run(formatStore(machine.environment(), options));
  t.same(machine.fsck(), []);
  machine.start();
  t.same(machine.read(0, 0, 4), [0, 0, 0, 0]);
  t.equal(machine.store.stats().liveSlots, 0);
  t.equal(machine.stop(), null);
});

t.test("an interrupted format leaves no store", async (t) => {
  const machine = new Machine();
  let writes = 0;
  machine.disk.fault = (event) => (event.kind === "write" && ++writes > 3 ? -5 : 0);
  const options = {
    deviceId: DEVICE_ID,
    clusterId: DEVICE_ID,
    capacityBytes: MIB,
    extentBlocks: 16,
    records: 8,
  };
  t.throws(() => machine.engine.run(formatStore(machine.environment(), options)));
  machine.disk.fault = () => 0;
  t.equal(
    codeOf(() => open(machine)),
    "DEVICE_FOREIGN",
  );
  t.equal(machine.engine.pool.freeBytes, machine.engine.pool.capacityBytes);
});
