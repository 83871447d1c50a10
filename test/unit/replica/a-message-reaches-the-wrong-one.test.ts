import t from "tap";
import { ExtentOpKind } from "../../../lib/core/extent-io.js";
import { Status } from "../../../lib/core/status.js";
import { INVENTORY_PAGE, STABLE_MAX } from "../../../lib/replica/limits.js";
import { NodeBench, VOLUME } from "./support/cluster.js";

t.test("another cluster, another node, an old session number: refused", async (t) => {
  const bench = new NodeBench();
  t.equal(bench.connect(11, 1, { cluster: new Uint8Array(16).fill(1) }).session.greeting, null);
  t.equal(bench.connect(11, 1, { node: "0".repeat(32) }).session.greeting, null);
  t.equal(bench.connect(11, 2).session.greeting?.node, bench.core.id);
  t.equal(bench.connect(11, 2).session.greeting, null);
  t.equal(bench.connect(11, 1).session.greeting, null);
  bench.engine.advance(100);
  t.equal(bench.losses.length, 4);
  t.equal(bench.core.sessions, 1);
});

t.test("a newer session is greeted only when nothing of the older one can land any more", async (t) => {
  const bench = new NodeBench();
  const { session } = bench.connect(11, 1);
  bench.promise(session, 1, 11);
  bench.machine.disk.frozen = true;
  const stuck = bench.fill(bench.op(ExtentOpKind.Write, 1), 1);
  session.submit(stuck);
  bench.engine.advance(20);
  const { session: newer } = bench.connect(11, 2);
  bench.engine.advance(20);
  t.equal(stuck.status, Status.LinkLost, "the older one is cut");
  t.equal(newer.greeting, null);

  bench.machine.disk.thaw();
  bench.engine.advance(20);
  t.equal(newer.greeting?.node, bench.core.id);
  t.equal(bench.do(newer, bench.op(ExtentOpKind.Flush, 1, 0, 0)), Status.Ok, "with the same promise");
});

t.test("bytes of a cut session that nobody has read are never executed", async (t) => {
  const bench = new NodeBench();
  const { session, far } = bench.connect(11, 1);
  bench.promise(session, 1, 11);
  // The write is delivered in the batch in which the newer session has said Hello.
  const late = bench.fill(bench.op(ExtentOpKind.Write, 1), 0x55);
  const before = bench.machine.store.stats().blocksWritten;
  const { near } = bench.connect(11, 2);
  t.ok(far.closed);
  session.submit(late);
  bench.engine.advance(50);
  t.equal(late.status, Status.LinkLost);
  t.equal(bench.machine.store.stats().blocksWritten, before);
  t.notOk(near.closed);
});

t.test("damage on the way is not stored and not believed", async (t) => {
  const bench = new NodeBench();
  const { session } = bench.connect(11, 1);
  bench.promise(session, 1, 11);
  const write = bench.fill(bench.op(ExtentOpKind.Write, 1), 3);
  write.entries[0]! ^= 1;
  t.equal(bench.do(session, write), Status.LinkLost, "entries that do not fit the bytes end the session");
  t.equal(bench.machine.store.stats().blocksWritten, 0);
});

t.test("more than the window waits at the asker, and all of it is answered in the end", async (t) => {
  const bench = new NodeBench();
  const { session, near } = bench.connect(11, 1);
  bench.promise(session, 1, 11);
  const sent = near.taken.length;
  const ops = Array.from({ length: 400 }, (_, i) =>
    bench.fill(bench.op(ExtentOpKind.Write, 1, i % 16), i & 0xff),
  );
  ops.forEach((op, i) => {
    op.extent = Math.floor(i / 16);
    bench.fill(op, (i & 0x7f) + 1);
    session.submit(op);
  });
  bench.engine.advance(5000);
  t.equal(bench.answered.length, 400);
  t.ok(near.taken.length > sent);
  t.ok(bench.answered.every(({ status }) => status === Status.Ok || status === Status.NoSpace));
});

t.test("an answer that overtakes the end of its send leaves the memory alone until then", async (t) => {
  const bench = new NodeBench();
  const { session, near } = bench.connect(11, 1);
  bench.promise(session, 1, 11);
  near.stuck = true;
  const write = bench.fill(bench.op(ExtentOpKind.Write, 1), 3);
  t.equal(bench.do(session, write), null, "the node has answered, the send has not ended");
  near.unstick();
  bench.engine.advance(10);
  t.equal(write.status, Status.Ok);
});

t.test("a lost connection answers everything once, and gives all memory back", async (t) => {
  const bench = new NodeBench();
  const free = bench.engine.pool.freeBytes;
  const { session, near, far } = bench.connect(11, 1);
  bench.promise(session, 1, 11);
  const ops = [1, 2, 3].map((block) => bench.fill(bench.op(ExtentOpKind.Write, 1, block), block));
  for (const op of ops) session.submit(op);
  near.break();
  far.break();
  bench.engine.advance(100);
  t.same(
    ops.map(({ status }) => status),
    [Status.LinkLost, Status.LinkLost, Status.LinkLost],
  );
  const after = bench.op(ExtentOpKind.Flush, 1, 0, 0);
  t.equal(bench.do(session, after), Status.LinkLost, "and what comes later too");
  t.equal(bench.answered.length, 4);
  for (const op of [...ops, after]) bench.engine.pool.free(op.memory);
  t.equal(bench.engine.pool.freeBytes, free);
  t.equal(bench.core.sessions, 0);
});

t.test("an inventory comes whole, in pages, and only to who has the promise", async (t) => {
  const bench = new NodeBench();
  const { session } = bench.connect(11, 1);
  bench.promise(session, 1, 11);
  for (let extent = 0; extent < 9; extent++) {
    const write = bench.op(ExtentOpKind.Write, 1, 0, 1, 3);
    write.extent = extent;
    write.sequence = 100 + extent;
    t.equal(bench.do(session, bench.fill(write, 1)), Status.Ok);
  }
  const seen: string[] = [];
  let complete: boolean | null = null;
  const list = (epoch: number): void =>
    session.inventory(
      VOLUME,
      epoch,
      ({ extent, generation, created, hot }) => seen.push(`${extent}/${generation}/${created}/${hot}`),
      (all) => {
        complete = all;
      },
    );
  list(1);
  bench.engine.advance(50);
  t.same(
    seen.sort(),
    Array.from({ length: 9 }, (_, i) => `${i}/3/${100 + i}/true`),
  );
  t.equal(complete, true);
  list(2);
  bench.engine.advance(50);
  t.equal(complete, false);
});

t.test("inventories of several pages that are asked for at a time do not get into each other", async (t) => {
  const bench = new NodeBench();
  const { session } = bench.connect(11, 1);
  const other = VOLUME + 1;
  bench.promise(session, 1, 11);
  session.promise(other, { epoch: 1, owner: 11 }, () => undefined);
  bench.engine.advance(50);
  const counts = new Map([
    [VOLUME, 3 * INVENTORY_PAGE],
    [other, 2 * INVENTORY_PAGE + 1],
  ]);
  let freed = 0;
  // Each list that is taken has one extent less at its beginning.
  bench.core.inventory = (volume) => {
    const first = freed++;
    const entry = { layer: 0, generation: 1, created: 1, hot: false };
    const count = counts.get(volume)! - first;
    return Array.from({ length: count }, (_, i) => ({ ...entry, extent: first + i }));
  };
  const lists = [VOLUME, other, VOLUME].map((volume) => {
    const list = { volume, seen: [] as number[], complete: null as boolean | null };
    session.inventory(
      volume,
      1,
      ({ extent }) => list.seen.push(extent),
      (complete) => {
        list.complete = complete;
      },
    );
    return list;
  });
  bench.engine.advance(500);
  lists.forEach(({ volume, seen, complete }, first) => {
    t.equal(complete, true);
    const all = Array.from({ length: counts.get(volume)! - first }, (_, i) => first + i);
    t.same(seen, all, "every extent of one list, once");
  });
  t.same(bench.losses, []);
  const after: boolean[] = [];
  const ask = (): void => {
    session.inventory(
      VOLUME,
      1,
      () => undefined,
      (complete) => after.push(complete),
    );
  };
  ask();
  ask();
  session.close();
  ask();
  bench.engine.advance(50);
  t.same(after, [false, false, false], "the session has ended");
});

t.test("only Stable of the current epoch, up to the last write, lets an extent cool", async (t) => {
  const bench = new NodeBench();
  const { session } = bench.connect(11, 1);
  bench.promise(session, 3, 11);
  const write = bench.fill(bench.op(ExtentOpKind.Write, 3), 1);
  write.sequence = 50;
  bench.do(session, write);
  const stable = (epoch: number, sequence: number): boolean => {
    session.stable(VOLUME, epoch, 0, [0], [sequence]);
    bench.engine.advance(20);
    return bench.stability.isStable(VOLUME, 0, 0);
  };
  t.notOk(stable(3, 49));
  t.notOk(stable(2, 50));
  t.ok(stable(3, 50));
  bench.promise(session, 4, 11);
  t.notOk(bench.stability.isStable(VOLUME, 0, 0), "a new owner says it anew");
  t.ok(STABLE_MAX > 0);
});
