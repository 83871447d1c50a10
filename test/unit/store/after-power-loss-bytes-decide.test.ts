import t from "tap";
import { ExtentFlag } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { READINGS_MAX } from "../../../lib/store/settle.js";
import { Machine } from "./support/machine.js";

t.test("data that landed without its record is adopted, durably, and reported", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.flush();
  machine.write(0, 0, [2]);
  const { slotsStart } = machine.layout;
  machine.powerLoss((sector) => sector * 512 >= slotsStart).start();
  t.same(machine.seen.lossy, [true, false]);
  t.same(machine.read(0, 0, 1), [2], "the bytes decide");
  t.equal(machine.store.stats().adoptedBlocks, 1);
  machine.kill().start();
  t.same(machine.read(0, 0, 1), [2]);
  t.equal(machine.store.stats().adoptedBlocks, 0, "it was durable");
  t.same(machine.seen.rot, []);
  machine.stop();
});

t.test("half a block that landed is adopted as it is", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.flush();
  machine.write(0, 0, [2]);
  machine.powerLoss((sector) => sector % 2 === 0).start();
  t.same(machine.read(0, 0, 1), [-1]);
  machine.kill().start();
  t.same(machine.read(0, 0, 1), [-1]);
  t.same(machine.seen.rot, []);
  t.equal(machine.stop(), null);
  t.same(machine.fsck(), []);
});

t.test(
  "bytes in an absent block of a hot slot are adopted: the record was lost, the data was not",
  async (t) => {
    const machine = new Machine().start();
    machine.write(0, 0, [1]);
    machine.flush();
    machine.write(0, 5, [6]);
    machine.powerLoss((sector) => sector * 512 >= machine.layout.slotsStart).start();
    t.same(machine.read(0, 0, 6), [1, 0, 0, 0, 0, 6]);
    machine.stop();
  },
);

/** Extents with one flushed block each, after a power loss. */
function afterPowerLoss(extents: number): Machine {
  const machine = new Machine().start();
  for (let extent = 0; extent < extents; extent++) machine.write(extent, 0, [extent + 1]);
  machine.flush();
  return machine.powerLoss();
}

t.test("one read that goes astray decides nothing", async (t) => {
  const machine = afterPowerLoss(2);
  const { slotsStart, slotBytes } = machine.layout;
  const strays = new Set<number>();
  // The first read of either slot brings the other one's bytes, or those of a slot that holds nothing.
  machine.disk.leads = (offset) => {
    if (offset < slotsStart || strays.has(offset)) return offset;
    strays.add(offset);
    return strays.size === 1 ? slotsStart + slotsStart + slotBytes - offset : slotsStart + 2 * slotBytes;
  };
  machine.start();
  machine.engine.advance(1000);
  t.equal(strays.size, 2, "both were led astray");
  t.notOk(machine.store.stats().lossy);
  t.equal(machine.store.stats().adoptedBlocks, 0);
  for (let extent = 0; extent < 2; extent++) t.same(machine.read(extent, 0, 2), [extent + 1, 0]);
  t.same(machine.seen.rot, []);
  t.equal(machine.stop(), null);
  t.same(machine.fsck(), []);
});

t.test("zeros from elsewhere are not the zeros that were once written here", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.zero(0, 0, 1, ExtentFlag.NoHole);
  machine.write(0, 0, [3]);
  machine.flush();
  machine.powerLoss();
  const { slotsStart, slotBytes } = machine.layout;
  let strays = 0;
  const nobodys = slotsStart + 9 * slotBytes;
  machine.disk.leads = (offset) => (offset >= slotsStart && strays++ === 0 ? nobodys : offset);
  machine.start();
  machine.engine.advance(1000);
  t.ok(strays > 1, "it was read again");
  t.same(machine.read(0, 0, 2), [3, 0]);
  t.equal(machine.store.stats().adoptedBlocks, 0);
  t.same(machine.seen.rot, []);
  t.equal(machine.stop(), null);
  t.same(machine.fsck(), []);
});

t.test("a block that is never read the same twice is unreadable, and keeps its entry", async (t) => {
  const extents = READINGS_MAX + 1;
  const machine = afterPowerLoss(extents);
  const { slotsStart, slotBytes } = machine.layout;
  let readings = 0;
  machine.disk.leads = (offset) => {
    if (offset !== slotsStart || readings >= READINGS_MAX) return offset;
    readings++;
    return slotsStart + readings * slotBytes;
  };
  machine.start();
  machine.engine.advance(1000);
  t.equal(readings, READINGS_MAX);
  t.equal(machine.store.stats().adoptedBlocks, 0);
  t.equal(machine.seen.rot.length, 1, "it is reported");
  for (let extent = 0; extent < extents; extent++) t.same(machine.read(extent, 0, 2), [extent + 1, 0]);
  t.equal(machine.stop(), null);
  t.same(machine.fsck(), []);
});

t.test("LOSSY survives a kill in the middle of settling", async (t) => {
  const machine = new Machine().start();
  for (let extent = 0; extent < 4; extent++) machine.write(extent, 0, [1]);
  machine.flush();
  for (let extent = 0; extent < 4; extent++) machine.write(extent, 0, [2]);
  machine.powerLoss((sector) => sector % 2 === 0);
  machine.engine.settle();
  // The process dies as soon as the device is taken over, before any slot is settled.
  const boot = machine.bootId;
  machine.disk.fault = (event) => {
    if (event.kind === "read" && event.offset >= machine.layout.slotsStart) machine.disk.frozen = true;
    return 0;
  };
  machine.start();
  t.ok(machine.store.stats().lossy);
  machine.kill();
  machine.bootId = boot;
  machine.start();
  for (let extent = 0; extent < 4; extent++)
    t.same(machine.read(extent, 0, 1), [-1], "adopted in the second life");
  machine.engine.advance(1000);
  t.notOk(machine.store.stats().lossy);
  t.same(machine.seen.rot, []);
  machine.stop();
});

t.test("a clean shutdown is not lossy on another boot; a kill on the same boot neither", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.stop();
  machine.bootId = "another";
  machine.start();
  t.same(machine.seen.lossy, []);
  machine.kill().start();
  t.same(machine.seen.lossy, []);
  machine.stop();
});

t.test("the same bytes after a mere kill are bit rot, not adopted", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1, 2]);
  machine.kill();
  machine.disk.bytes[machine.layout.slotsStart + slotOf(machine) * 16 * BLOCK_BYTES + 77]! ^= 4;
  machine.start();
  t.same(machine.read(0, 0, 1), [-5]);
  t.same(machine.read(0, 1, 1), [2], "its neighbour is fine");
  t.match(machine.seen.rot, [{ extent: 0, block: 0 }]);
  machine.stop();
});

/** The slot that holds extent 0: where its bytes are found on the disk. */
function slotOf(machine: Machine): number {
  const { slotsStart, slots } = machine.layout;
  for (let slot = 0; slot < slots; slot++) {
    if (machine.disk.bytes[slotsStart + slot * 16 * BLOCK_BYTES] === 1) return slot;
  }
  throw new Error("no slot holds it");
}
