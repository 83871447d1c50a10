import t from "tap";
import { ExtentFlag, ExtentOpKind } from "../../../lib/core/extent-io.js";
import type { MemberStore } from "../../../lib/store/index.js";
import { Machine, VOLUME } from "./support/machine.js";

const STABLE_NEVER = { isStable: () => false };

function listed(machine: Machine): [extent: number, generation: number, created: number, hot: boolean][] {
  const seen: [number, number, number, boolean][] = [];
  machine.store.inventory(VOLUME, (_layer, extent, generation, created, hot) => {
    seen.push([extent, generation, created, hot]);
  });
  return seen;
}

t.test("an operation that changes no block stamps the extent all the same, durably", async (t) => {
  for (const kind of [ExtentOpKind.Zero, ExtentOpKind.Write, ExtentOpKind.Stamp]) {
    const machine = new Machine().start();
    t.equal(machine.write(3, 0, [1]), 0);
    const op = kind === ExtentOpKind.Write ? machine.writing(3, 4, [0, 0]) : machine.op(kind, 3, 4, 2);
    op.generation = 9;
    t.equal(machine.do(op).status, 0);
    t.same(
      listed(machine).map(([extent, generation]) => [extent, generation]),
      [[3, 9]],
    );
    t.equal(machine.flush(), 0);
    machine.powerLoss().start();
    t.equal(listed(machine)[0]![1], 9, `after kind ${kind}`);
    t.same(machine.read(3, 0, 6), [1, 0, 0, 0, 0, 0]);
  }
});

t.test("a lower generation never replaces a higher one, and a stamp makes no extent", async (t) => {
  const machine = new Machine().start();
  const write = machine.writing(1, 0, [1]);
  write.generation = 5;
  write.sequence = 77;
  machine.do(write);
  const stamp = machine.op(ExtentOpKind.Stamp, 1, 0, 0);
  stamp.generation = 4;
  machine.do(stamp);
  const nowhere = machine.op(ExtentOpKind.Stamp, 2, 0, 0);
  nowhere.generation = 6;
  t.equal(machine.do(nowhere).status, 0);
  t.same(listed(machine), [[1, 5, 77, true]]);
});

t.test("Read and Map tell the entries when asked, with the table in memory or not", async (t) => {
  const machine = new Machine().start();
  const write = machine.writing(2, 3, [7, 8]);
  machine.do(write);
  const wanted = [0, write.entries[0], write.entries[1], 0];
  const ask = (kind: typeof ExtentOpKind.Read | typeof ExtentOpKind.Map, extent: number): number[] => {
    const op = machine.op(kind, extent, 2, 4, ExtentFlag.Entries);
    op.memory = machine.engine.pool.allocate(4 * 4096);
    op.entries.fill(99);
    machine.do(op);
    machine.engine.pool.free(op.memory);
    return [...op.entries.subarray(0, 4)];
  };
  for (const kind of [ExtentOpKind.Read, ExtentOpKind.Map] as const) {
    t.same(ask(kind, 2), wanted);
    t.same(ask(kind, 5), [0, 0, 0, 0], "of an extent that does not exist");
  }
  machine.engine.pool.free(write.memory);
  machine.stop();
  machine.start();
  t.same(ask(ExtentOpKind.Read, 2), wanted, "with the table and the data read together");
});

t.test("an extent stays hot until its owner calls it stable", async (t) => {
  let stable = false;
  const machine = new Machine({ open: { stability: { isStable: () => stable }, coolAfterMs: 10 } }).start();
  machine.write(1, 0, [1]);
  machine.flush();
  machine.engine.advance(60_000);
  t.same(listed(machine)[0]![3], true);
  machine.stop();
  machine.start();
  t.same(listed(machine)[0]![3], true, "through a clean shutdown");
  stable = true;
  machine.write(1, 0, [2]);
  machine.engine.advance(60_000);
  t.same(listed(machine)[0]![3], false);
});

t.test("a member stays LOSSY, through further lives, until the others have put it right", async (t) => {
  const machine = new Machine({ open: { stability: STABLE_NEVER } }).start();
  const identity = (): MemberStore["identity"] => (machine.store as MemberStore).identity;
  machine.write(1, 0, [1]);
  t.equal(identity().lossy, false);
  const { incarnation } = identity();
  machine.powerLoss().start();
  machine.engine.advance(60_000);
  t.equal(identity().lossy, true, "although all is settled");
  machine.kill().start();
  machine.engine.advance(60_000);
  t.equal(identity().lossy, true);
  t.equal(identity().incarnation, incarnation + 2);
  (machine.store as MemberStore).reconciled();
  machine.engine.advance(60_000);
  t.equal(identity().lossy, false);
  machine.kill().start();
  t.equal(identity().lossy, false);
});
