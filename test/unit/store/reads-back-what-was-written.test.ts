import t from "tap";
import { Machine } from "./support/machine.js";

t.test("an extent that was never written reads as holes and touches no disk", async (t) => {
  const machine = new Machine().start();
  const before = machine.disk.events.length;
  t.same(machine.read(3, 0, 4), [0, 0, 0, 0]);
  t.equal(machine.disk.events.length, before);
  t.equal(machine.stop(), null);
});

t.test("what was written reads back, holes between are zeros", async (t) => {
  const machine = new Machine().start();
  t.equal(machine.write(0, 2, [5, 6]), 0);
  t.equal(machine.write(0, 6, [7]), 0);
  t.same(machine.read(0, 0, 8), [0, 0, 5, 6, 0, 0, 7, 0]);
  t.same(machine.map(0).slice(0, 8), [0, 0, 1, 1, 0, 0, 1, 0]);
  t.equal(machine.stop(), null);
});

t.test("it is there after a clean restart, a kill, and a flush with power loss", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1, 2, 3]);
  machine.stop();
  machine.start();
  t.same(machine.read(0, 0, 4), [1, 2, 3, 0], "clean restart");
  machine.write(0, 1, [9]);
  machine.write(4, 15, [8]);
  machine.kill().start();
  t.same(machine.read(0, 0, 4), [1, 9, 3, 0], "kill");
  t.same(machine.read(4, 14, 2), [0, 8], "kill, new extent");
  machine.write(0, 3, [4]);
  machine.flush();
  machine.write(0, 0, [77]);
  machine.powerLoss().start();
  t.same(machine.read(0, 1, 3), [9, 3, 4], "flushed");
  t.match(machine.read(0, 0, 1)[0], /^(1|77)$/);
  t.same(machine.seen.rot, []);
  t.equal(machine.stop(), null);
});

t.test("zeros over holes stay holes, zeroing makes holes, freeing frees", async (t) => {
  const machine = new Machine().start();
  t.equal(machine.write(0, 0, [0, 0]), 0);
  t.equal(machine.store.stats().liveSlots, 0);
  machine.write(0, 0, [1, 0, 2, 3]);
  t.same(machine.map(0).slice(0, 4), [1, 0, 1, 1]);
  t.equal(machine.zero(0, 2, 2), 0);
  t.same(machine.map(0).slice(0, 4), [1, 0, 0, 0]);
  t.same(machine.read(0, 0, 4), [1, 0, 0, 0]);
  t.equal(machine.free(0), 0);
  t.same(machine.read(0, 0, 4), [0, 0, 0, 0]);
  machine.engine.advance(5000);
  t.match(machine.store.stats(), { liveSlots: 0, freeingSlots: 0, freeSlots: machine.layout.slots });
  t.equal(machine.stop(), null);
});
