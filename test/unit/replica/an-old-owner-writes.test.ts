import t from "tap";
import { ExtentFlag, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { Status } from "../../../lib/core/status.js";
import { NodeBench, VOLUME } from "./support/cluster.js";

t.test("what is written through a session is read through it, entries and holes included", async (t) => {
  const bench = new NodeBench();
  const { session } = bench.connect(11);
  t.equal(session.greeting?.lossy, false);
  t.same(bench.promise(session, 1, 11), { kind: "promised", accepted: null });
  t.equal(bench.do(session, bench.fill(bench.op(ExtentOpKind.Write, 1, 2, 3), 0x41)), Status.Ok);
  const read = bench.op(ExtentOpKind.Read, 1, 0, 6);
  bench.engine.pool.bytes.fill(0xee, read.memory, read.memory + 6 * 4096);
  t.equal(bench.do(session, read), Status.Ok);
  t.equal(read.present[0], 0b11100);
  t.equal(read.presentCount, 3);
  const bytes = bench.engine.pool.bytes.subarray(read.memory, read.memory + 6 * 4096);
  t.ok(bytes.subarray(0, 8192).every((byte) => byte === 0));
  t.ok(bytes.subarray(8192, 20480).every((byte) => byte === 0x41));
  const map = bench.op(ExtentOpKind.Map, 1, 0, 6);
  map.flags = ExtentFlag.Entries;
  t.equal(bench.do(session, map), Status.Ok);
  t.same([...map.entries.subarray(0, 6)], [...read.entries.subarray(0, 6)]);
  const hole = bench.op(ExtentOpKind.Read, 1, 0, 6);
  hole.extent = 3;
  t.equal(bench.do(session, hole), Status.Ok);
  t.equal(hole.presentCount, 0);
  t.equal(bench.do(session, bench.op(ExtentOpKind.Flush, 1, 0, 0)), Status.Ok);
});

t.test("nothing is let in without a promise, for another epoch, owner, or an older generation", async (t) => {
  const bench = new NodeBench();
  const { session } = bench.connect(11);
  const { session: other } = bench.connect(22);
  const write = (of: typeof session, epoch: number, generation: number): number | null =>
    bench.do(of, bench.fill(bench.op(ExtentOpKind.Write, epoch, 0, 1, generation), 1));
  t.equal(write(session, 1, 1), Status.Fenced, "before any promise");
  bench.promise(session, 5, 11);
  t.equal(write(session, 4, 1), Status.Fenced);
  t.equal(session.fencedBy, 5);
  t.equal(write(session, 6, 1), Status.Fenced);
  t.equal(write(other, 5, 1), Status.Fenced, "the right epoch of somebody else");
  t.equal(write(session, 5, 7), Status.Ok);
  t.equal(write(session, 5, 6), Status.Outdated);
  bench.lease.held = false;
  t.equal(write(session, 5, 7), Status.NoLease);
  bench.lease.held = true;
  t.same(bench.promise(other, 5, 22), { kind: "refused", promised: { epoch: 5, owner: 11 } });
  t.same(bench.promise(other, 6, 22), { kind: "promised", accepted: null });
  t.equal(write(session, 5, 7), Status.Fenced);
  t.equal(session.fencedBy, 6);
});

t.test("a promise waits for what is in the store, and lets nothing older in meanwhile", async (t) => {
  const bench = new NodeBench();
  const { session } = bench.connect(11);
  const { session: next } = bench.connect(22);
  bench.promise(session, 1, 11);
  bench.machine.disk.frozen = true;
  const first = bench.fill(bench.op(ExtentOpKind.Write, 1), 1);
  session.submit(first);
  bench.engine.advance(20);
  let promised: string | null = null;
  next.promise(VOLUME, { epoch: 2, owner: 22 }, ({ kind }) => {
    promised = kind;
  });
  bench.engine.advance(20);
  const late = bench.fill(bench.op(ExtentOpKind.Write, 1, 5), 2);
  t.equal(bench.do(session, late), Status.Fenced);
  t.equal(promised, null, "the first write is on its way to the disk");

  bench.machine.disk.thaw();
  bench.engine.advance(20);
  t.equal(first.status, Status.Ok);
  t.equal(promised, "promised");
});

t.test(
  "a promise survives power loss, and the gate is closed after it until it is asked for again",
  async (t) => {
    const bench = new NodeBench();
    bench.promise(bench.connect(11).session, 9, 11);
    bench.machine.powerLoss();
    bench.start();
    const { session } = bench.connect(11);
    t.equal(session.greeting?.lossy, true);
    t.equal(bench.do(session, bench.op(ExtentOpKind.Flush, 9, 0, 0)), Status.Fenced);
    const { session: older } = bench.connect(22);
    t.same(bench.promise(older, 8, 22), { kind: "refused", promised: { epoch: 9, owner: 11 } });
    t.equal(bench.promise(session, 9, 11)?.kind, "promised");
    t.equal(bench.do(session, bench.op(ExtentOpKind.Flush, 9, 0, 0)), Status.Ok);
  },
);

t.test("LOSSY ends when the owner has reconciled every volume that was ever let in", async (t) => {
  const bench = new NodeBench();
  bench.promise(bench.connect(11).session, 1, 11);
  bench.machine.powerLoss();
  bench.start();
  bench.engine.advance(10_000);
  const { session } = bench.connect(11);
  t.equal(session.greeting?.lossy, true, "although not one extent is hot");
  let done: boolean | null = null;
  const tell = (): void =>
    session.reconciled(VOLUME, 1, (ok) => {
      done = ok;
    });
  tell();
  bench.engine.advance(50);
  t.equal(done, false, "not by one who has no promise");
  bench.promise(session, 1, 11);
  const isWhole = (): boolean | null => {
    let said: boolean | null = null;
    session.inventory(
      VOLUME,
      1,
      () => undefined,
      (complete, whole) => {
        said = complete && whole;
      },
    );
    bench.engine.advance(50);
    return said;
  };
  t.equal(isWhole(), false);
  tell();
  bench.engine.advance(10_000);
  t.equal(done, true);
  t.equal(isWhole(), true, "an inventory says so, whatever the greeting of the session was");
  t.equal(session.greeting?.lossy, true);
  t.equal(bench.connect(33).session.greeting?.lossy, false);
});

t.test("LOSSY does not stay for a volume that has no seat at the node", async (t) => {
  const bench = new NodeBench();
  const { session } = bench.connect(11);
  let promised = 0;
  for (const volume of [VOLUME, VOLUME + 1])
    session.promise(volume, { epoch: 1, owner: 11 }, ({ kind }) => {
      if (kind === "promised") promised++;
    });
  bench.engine.advance(50);
  t.equal(promised, 2);
  bench.machine.powerLoss();
  bench.start();
  bench.engine.advance(10_000);
  t.same([bench.core.isLossyIn(VOLUME), bench.core.isLossyIn(VOLUME + 1)], [true, true]);
  bench.core.reconciled(VOLUME + 1);
  bench.engine.advance(10_000);
  t.equal(bench.connect(22).session.greeting?.lossy, true, "the other one has an owner who has not said it");
  bench.core.reconciled(VOLUME);
  bench.engine.advance(10_000);
  t.equal(bench.connect(33).session.greeting?.lossy, false);
});
