import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { Machine, VOLUME } from "./support/machine.js";

t.test("a slot that is used again shows zeros, in this life and after every kind of end", async (t) => {
  for (const end of ["none", "restart", "kill", "power"] as const) {
    const machine = new Machine({ sizeBytes: MIB, open: { preHotSlots: 1 } }).start();
    const { slots } = machine.layout;
    for (let extent = 0; extent < slots; extent++) machine.write(extent, 0, new Array<number>(16).fill(0x55));
    machine.flush();
    for (let extent = 0; extent < slots; extent++) machine.free(extent);
    if (end === "power") machine.flush();
    if (end === "restart") machine.stop();
    if (end === "kill") machine.kill();
    if (end === "power") machine.powerLoss(() => false);
    if (end !== "none") machine.start();
    for (let extent = 0; extent < slots; extent++) machine.write(100 + extent, 7, [0x66]);
    for (let extent = 0; extent < slots; extent++) {
      const read = machine.read(100 + extent, 0, 16);
      t.same(read, [...new Array<number>(7).fill(0), 0x66, ...new Array<number>(8).fill(0)], end);
    }
    machine.stop();
    t.same(machine.fsck(), []);
    t.notOk(machine.disk.bytes.subarray(machine.layout.slotsStart).includes(0x55), "no byte of it is left");
  }
});

t.test("a slot whose ALLOC was lost with a power loss is zeroed before it is used", async (t) => {
  // Enough slots are hot in advance that taking one causes no sync.
  const machine = new Machine({ open: { preHotSlots: 8 } }).start();
  machine.flush();
  machine.write(0, 0, [0x77]);
  machine.powerLoss((sector) => sector * 512 >= machine.layout.slotsStart);
  t.ok(machine.disk.bytes.subarray(machine.layout.slotsStart).includes(0x77), "its data has landed");
  machine.start();
  t.same(machine.read(0, 0, 1), [0]);
  machine.engine.advance(1000);
  t.notOk(machine.disk.bytes.subarray(machine.layout.slotsStart).includes(0x77));
  machine.stop();
});

t.test("a volume that is dropped is gone, durably, and its slots come back as zeros", async (t) => {
  const machine = new Machine({ format: { logBytes: 16384 } }).start();
  for (let extent = 0; extent < 20; extent++) machine.write(extent, 3, [0x44]);
  t.equal(machine.store.slotsOf(VOLUME), 20);
  t.same(machine.store.volumesWithSlots(), [VOLUME]);
  let error: unknown = "not yet";
  machine.store.dropVolume(VOLUME, (e) => {
    error = e;
  });
  machine.engine.settle();
  t.equal(error, null);
  t.equal(machine.store.slotsOf(VOLUME), 0);
  machine.powerLoss().start();
  const seen: number[] = [];
  machine.store.inventory(VOLUME, (_layer, extent) => seen.push(extent));
  t.same(seen, []);
  machine.engine.advance(5000);
  t.match(machine.store.stats(), { freeSlots: machine.layout.slots, freeingSlots: 0 });
  t.notOk(machine.disk.bytes.subarray(machine.layout.slotsStart).includes(0x44));
  machine.stop();
});

t.test(
  "inside an extent, long runs are given back and the rest is overwritten; all reads as zeros",
  async (t) => {
    const machine = new Machine({
      sizeBytes: 8 * MIB,
      format: { extentBlocks: 64 },
      zeroGrainBytes: 16384,
    }).start();
    machine.write(0, 0, new Array<number>(64).fill(9));
    const from = machine.disk.events.length;
    machine.zero(0, 1, 40);
    const kinds = machine.disk.events.slice(from).filter(({ kind }) => kind === "zero" || kind === "write");
    t.match(kinds, [{ kind: "write" }, { kind: "zero", length: 36 * 4096 }, { kind: "write" }]);
    t.same(machine.read(0, 0, 64), [9, ...new Array<number>(40).fill(0), ...new Array<number>(23).fill(9)]);
    const again = machine.disk.events.length;
    machine.zero(0, 50, 3);
    t.notOk(
      machine.disk.events.slice(again).some(({ kind }) => kind === "zero"),
      "a short run is overwritten",
    );
    t.same(machine.read(0, 49, 5), [9, 0, 0, 0, 9]);
    const nothing = machine.disk.events.length;
    machine.zero(0, 50, 3);
    t.equal(machine.disk.events.length, nothing, "holes are left alone");
    machine.stop();
    t.same(machine.fsck(), []);
  },
);
