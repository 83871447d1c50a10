import t from "tap";
import { ExtentFlag, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { MIB } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import { Machine } from "./support/machine.js";

const ENOSPC = -28;
const EIO = -5;

function fill(machine: Machine): number {
  const { slots } = machine.layout;
  for (let extent = 0; extent < slots; extent++) machine.write(extent, 0, [1 + (extent % 200)]);
  return slots;
}

t.test(
  "at full a write waits, goes on when a slot comes back, and nobody else's bytes come with it",
  async (t) => {
    const machine = new Machine({ sizeBytes: MIB }).start();
    const slots = fill(machine);
    t.match(machine.store.stats(), { freeSlots: 0, liveSlots: slots });
    const op = machine.submit(machine.writing(slots + 5, 3, [99]));
    machine.engine.advance(10_000);
    t.notOk(machine.answered(op));
    t.same(machine.seen.full, [true]);
    t.equal(machine.store.stats().waitingForSpace, 1);
    t.equal(machine.write(0, 1, [7]), 0, "extents that exist are written as before");
    machine.free(1);
    machine.engine.advance(2000);
    t.ok(machine.answered(op));
    t.equal(op.status, 0);
    t.same(machine.seen.full, [true, false]);
    t.same(machine.read(slots + 5, 0, 5), [0, 0, 0, 99, 0]);
    machine.engine.pool.free(op.memory);
    t.equal(machine.stop(), null);
    t.same(machine.fsck(), []);
  },
);

t.test("with NoWait it gets ENOSPC, but not while a slot is just being freed", async (t) => {
  const machine = new Machine({ sizeBytes: MIB }).start();
  const slots = fill(machine);
  t.equal(machine.write(slots, 0, [1], ExtentFlag.NoWait), Status.NoSpace);
  machine.do(machine.op(ExtentOpKind.Flush, 0, 0, 0));
  machine.submit(machine.op(ExtentOpKind.Free, 0, 0, 16));
  t.equal(machine.write(slots, 0, [1], ExtentFlag.NoWait), Status.Ok);
  t.equal(machine.stop(), null);
});

t.test("the reserve is kept", async (t) => {
  const machine = new Machine({ sizeBytes: MIB, open: { reserveShare: 0.5 } }).start();
  const { slots } = machine.layout;
  let written = 0;
  while (machine.write(written, 0, [1], ExtentFlag.NoWait) === 0) written++;
  t.equal(written, slots - Math.floor(slots / 2));
  machine.stop();
});

t.test("closing answers those who wait for space", async (t) => {
  const machine = new Machine({ sizeBytes: MIB }).start();
  const op = machine.writing(fill(machine) + 1, 0, [1]);
  machine.submit(op);
  machine.engine.settle();
  let closed = false;
  machine.store.close(() => {
    closed = true;
  });
  machine.engine.advance(5000);
  t.ok(closed);
  t.equal(op.status, Status.Shutdown);
});

t.test("closing waits for no space that is missed only then", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.disk.fault = (event) =>
    event.kind === "write" && event.offset >= machine.layout.slotsStart ? ENOSPC : 0;
  const op = machine.submit(machine.writing(0, 1, [2]));
  let closed = false;
  machine.store.close(() => {
    closed = true;
  });
  machine.engine.advance(5000);
  t.ok(closed, "the store has closed");
  t.ok(machine.answered(op));
  t.equal(op.status, Status.Shutdown);
  t.same(machine.seen.full, [], "and that nobody waits is no news of space");
  machine.engine.pool.free(op.memory);
});

t.test("a full file system is waited for, and the device lives on", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1, 2, 3]);
  let full = true;
  machine.disk.fault = (event) =>
    full && event.kind === "write" && event.offset >= machine.layout.slotsStart ? ENOSPC : 0;
  const waiting = machine.submit(machine.writing(0, 1, [8]));
  t.equal(machine.write(0, 0, [9], ExtentFlag.NoWait), Status.NoSpace);
  machine.engine.advance(5000);
  t.notOk(machine.answered(waiting));
  t.same(machine.seen.full, [true]);
  t.same(machine.read(0, 0, 1), [1], "the failed write left the old bytes");
  full = false;
  machine.engine.advance(3000);
  t.equal(machine.answered(waiting) && waiting.status, 0);
  t.same(machine.read(0, 0, 3), [1, 8, 3]);
  machine.engine.pool.free(waiting.memory);
  t.equal(machine.stop(), null);
  t.same(machine.fsck(), []);
});

t.test(
  "a data write that fails is repeated, then the device is failed; everyone is told, nothing hangs",
  async (t) => {
    const machine = new Machine().start();
    machine.write(0, 0, [1]);
    let failures = 2;
    const fault = (event: { kind: string; offset?: number }): number =>
      event.kind === "write" && (event.offset ?? 0) >= machine.layout.slotsStart && failures-- > 0 ? EIO : 0;
    machine.disk.fault = fault;
    t.equal(machine.write(0, 0, [2]), 0, "twice is repeated");
    t.same(machine.read(0, 0, 1), [2]);
    failures = Number.POSITIVE_INFINITY;
    const ops = [machine.writing(0, 1, [3]), machine.writing(1, 1, [4])];
    for (const op of ops) machine.submit(op);
    t.equal(machine.do(machine.op(ExtentOpKind.Zero, 0, 0, 1)).status, Status.Io);
    machine.engine.advance(1000);
    for (const op of ops) t.equal(machine.answered(op) && op.status, Status.Io);
    t.equal(machine.seen.failed.length, 1);
    t.equal(machine.flush(), Status.Io);
    t.same(machine.read(0, 0, 1), [-5], "it answers nothing any more");
    for (const op of ops) machine.engine.pool.free(op.memory);
    t.equal(machine.stop()?.code, "DEVICE_FAILED");
  },
);

t.test("a failed fsync fails the device, and nobody who waited for it is told success", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.flush();
  machine.disk.fault = ({ kind }) => (kind === "sync" ? EIO : 0);
  const fua = machine.writing(0, 1, [2], ExtentFlag.Fua);
  const flushes = [0, 1].map(() => machine.op(ExtentOpKind.Flush, 0, 0, 0));
  for (const op of [fua, ...flushes]) machine.submit(op);
  machine.engine.settle();
  machine.disk.fault = () => 0;
  for (const op of [fua, ...flushes]) t.equal(machine.answered(op) && op.status, Status.Io);
  t.equal(machine.flush(), Status.Io, "the next one is not believed either");
  t.equal(machine.seen.failed.length, 1);
  t.match(machine.store.stats().failed, /fdatasync/);
  machine.engine.pool.free(fua.memory);
  let error: string | undefined;
  machine.store.putRecord(3, new Uint8Array(1), (e) => {
    error = e?.code;
  });
  machine.engine.advance(10);
  t.equal(error, "DEVICE_FAILED");
  t.equal(machine.stop()?.code, "DEVICE_FAILED");
});

t.test("an append that fails fails the device before any data goes out", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.disk.fault = ({ kind }) => (kind === "append" ? EIO : 0);
  const from = machine.disk.events.length;
  t.equal(machine.write(0, 0, [2]), Status.Io);
  t.notOk(machine.disk.events.slice(from).some(({ kind }) => kind === "write"));
  machine.disk.fault = () => 0;
  machine.stop();
  machine.kill();
  machine.bootId = "after the failure";
  machine.start();
  t.same(machine.read(0, 0, 1), [1]);
  machine.stop();
});
