/** What a reconcile finds unreadable or LOSSY is equal too before anything relies on it. */
import t from "tap";
import { ExtentFlag, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { generation } from "../../../lib/core/ids.js";
import { Status } from "../../../lib/core/status.js";
import { FakeCluster } from "./support/fake-cluster.js";
import type { FakeNode } from "./support/fake-node.js";

/** Members that differ in block 0 of extent 0, which is in doubt; those of `unreadable` cannot read it. */
function differing(fills: readonly number[], unreadable: readonly number[]): FakeCluster {
  const made = new FakeCluster(fills.length);
  made.nodes.forEach((node, i) => {
    node.put(0, [fills[i]!, 5], 1, true);
    // Nobody names what it cannot read, so that no repair does what the reconcile has to.
    node.rottenPage = -1;
    if (unreadable.includes(i)) node.extents.get(0)!.rot.add(0);
  });
  made.serve({}, [0]);
  made.pass(500);
  return made;
}

for (const [name, fills, unreadable, result] of [
  ["the first source cannot read", [1, 9, 9], [0], 9],
  ["nor can the second", [1, 2, 9], [0, 1], 9],
  ["one of the others has the version of the source that cannot", [1, 9, 1], [0], 9],
  ["of two copies one can be read", [1, 9], [0], 9],
  ["a target cannot read what it is to lose", [1, 9, 1], [1], 1],
] as const) {
  t.test(`${name}: all copies are equal, and readable`, async (t) => {
    const made = differing(fills, unreadable);
    for (const node of made.nodes) {
      t.same(node.fills(0).slice(0, 2), [result, 5]);
      t.same([...node.extents.get(0)!.rot], []);
    }
  });
}

t.test("a flush is not answered while a member in sync lacks what its power loss took", async (t) => {
  const made = new FakeCluster(2);
  const [whole, lossy] = [made.nodes[0]!, made.nodes[1]!];
  whole.put(0, [9], 1, true);
  lossy.put(0, [1], 1, true);
  lossy.lossy = true;
  whole.script = (op) => (op.kind === ExtentOpKind.Map ? "hold" : null);
  const set = made.serve({}, [0]);
  const flush = made.ask(set, ExtentOpKind.Flush, 0);
  made.pass(500);
  t.equal(flush.status, -1);
  whole.script = () => null;
  whole.session!.answerHeld();
  made.pass(500);
  t.equal(flush.status, 0);
  t.equal(lossy.durable.get(0)!.blocks[0]![0], 9);
});

t.test("lives of an extent that differ are compared, although nothing is hot", async (t) => {
  const made = new FakeCluster(2);
  const [first, second] = [made.nodes[0]!, made.nodes[1]!];
  first.put(0, [9], 1, false);
  second.put(0, [1], 1, false);
  first.extents.get(0)!.created = 40;
  made.connect();
  made.chosen.push(made.record({ owner: { peer: 5, node: null, incarnation: 0, released: true } }));
  made.own(made.activate());
  made.pass(500);
  t.same(second.fills(0), first.fills(0));
});

t.test("nobody is given an extent that comes to be in doubt while it is waited for", async (t) => {
  const made = new FakeCluster(3);
  const [first, second] = made.nodes as [FakeNode, FakeNode, ...FakeNode[]];
  first.put(0, [1], 5, false);
  second.put(0, [1], 5, false);
  const members = made
    .record()
    .members.map((entry, i) => (i === 2 ? { ...entry, state: "stale" as const, since: 4 } : entry));
  const set = made.serve({ generation: generation(6), members });
  for (const node of [first, second]) node.script = (op) => (op.kind === ExtentOpKind.Write ? "hold" : null);
  const written = made.write(set, 0, 0, [7], ExtentFlag.NoWait);
  const other = made.write(set, 1, 0, [8]);
  made.pass(500);
  t.equal(set.members[2]!.pass?.owed.has(0), true, "the resync waits for the extent");
  // Each has kept another part of what did not fit; the first one is without its lease for a moment.
  first.extents.get(0)!.blocks[0]!.fill(7);
  for (const node of [first, second]) node.script = () => null;
  const { session } = first;
  session!.answer(({ extent, kind }) => kind === ExtentOpKind.Write && extent === 0, Status.NoSpace);
  session!.answer(({ extent, kind }) => kind === ExtentOpKind.Write && extent === 1, Status.NoLease);
  second.session!.answer(({ extent, kind }) => kind === ExtentOpKind.Write && extent === 0, Status.NoSpace);
  made.engine.settle();
  t.equal(written.status, Status.NoSpace);
  for (const node of [first, second]) node.session!.answerHeld();
  made.pass(2000);
  t.equal(other.status, Status.Ok);
  t.ok(set.members.every(({ inSync }) => inSync));
  for (const node of made.nodes) t.same(node.fills(0), first.fills(0), node.id);
});

t.test("no copy of a block that differs can be read: it is not chosen by who reads it first", async (t) => {
  const made = new FakeCluster(2);
  const [first, second] = made.nodes as [FakeNode, FakeNode];
  for (const [node, fill] of [
    [first, 1],
    [second, 9],
  ] as const) {
    node.put(0, [fill, 5], 1, true);
    node.rottenPage = -1;
    node.extents.get(0)!.rot.add(0);
  }
  const set = made.serve({}, [0]);
  made.pass(5000);
  const lost = made.read(set, 0, 0, 1);
  const beside = made.read(set, 0, 1, 1);
  const flush = made.ask(set, ExtentOpKind.Flush, 0);
  made.pass(500);
  t.same(
    [lost.status, beside.status, flush.status],
    [Status.Io, Status.Ok, Status.Ok],
    "an error of that block only",
  );
  t.same(
    made.nodes.map((node) => node.extents.get(0)!.hot),
    [true, true],
    "the next owner is to find it in doubt",
  );
  const released: boolean[] = [];
  // Either of them can be read again, and then the other one.
  second.extents.get(0)!.rot.clear();
  const once = made.read(set, 0, 0, 1);
  made.pass(500);
  t.same(once.fills, [9]);
  first.extents.get(0)!.rot.clear();
  for (const node of made.nodes) t.same(node.fills(0).slice(0, 2), [9, 5], node.id);
  made.pass(5000);
  t.same(
    made.nodes.map((node) => node.extents.get(0)!.hot),
    [false, false],
  );
  set.release((isReleased) => released.push(isReleased));
  made.pass(500);
  t.same(released, [true]);
});

t.test(
  "a block that nobody can read is equal again when it was written, and stable when that was seen",
  async (t) => {
    const made = new FakeCluster(2);
    made.nodes.forEach((node, i) => {
      node.put(0, [i + 1, 5], 1, true);
      node.rottenPage = -1;
      node.extents.get(0)!.rot.add(0);
    });
    const set = made.serve({}, [0]);
    made.pass(500);
    const write = made.write(set, 0, 0, [7]);
    made.pass(500);
    t.equal(write.status, Status.Ok);
    const read = made.read(set, 0, 0, 2);
    made.pass(500);
    t.same(read.fills, [7, 5]);
    for (const node of made.nodes) t.same(node.fills(0).slice(0, 2), [7, 5]);
    set.release(() => undefined);
    made.pass(500);
    t.equal(set.record.owner.settled, true);
  },
);
