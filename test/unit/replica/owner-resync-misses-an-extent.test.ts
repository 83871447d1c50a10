/** Return and resync: what a stale member is given, and what it is not believed. */
import t from "tap";
import { ExtentOpKind } from "../../../lib/core/extent-io.js";
import { generation } from "../../../lib/core/ids.js";
import { Status } from "../../../lib/core/status.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import type { ReplicaSet } from "../../../lib/replica/owner/replica-set.js";
import { FakeCluster } from "./support/fake-cluster.js";

/** Three nodes, of which the third left at generation 4. */
function staleThird(cluster: FakeCluster): Partial<ClusterRecord> {
  return {
    generation: generation(6),
    members: cluster
      .record()
      .members.map((entry, i) => (i === 2 ? { ...entry, state: "stale" as const, since: 4 } : entry)),
  };
}

function isInSync(set: ReplicaSet): boolean {
  return set.record.members[2]!.state === "insync";
}

t.test(
  "stamped since, own hot ones, missing and surplus are made equal; the rest is not touched",
  async (t) => {
    const cluster = new FakeCluster();
    const [a, b, c] = cluster.nodes;
    for (const node of [a!, b!]) {
      node.put(1, [1], 3, false);
      node.put(2, [2], 4, false);
      node.put(3, [3], 3, false);
      node.put(4, [4], 2, false);
    }
    c!.put(1, [1], 3, false);
    c!.put(2, [9], 3, false);
    c!.put(3, [9], 3, true);
    c!.put(5, [5], 3, false);
    const set = cluster.serve(staleThird(cluster));
    cluster.pass(1000);
    t.equal(isInSync(set), true);
    t.same(
      [1, 2, 3, 4, 5].map((extent) => c!.fills(extent)[0]),
      [1, 2, 3, 4, 0],
    );
    t.notMatch(c!.log.join(" "), / 1 g/);
    t.equal(c!.durable.has(2), true, "flushed before it is in sync");
    t.equal(set.generation, 7);
  },
);

t.test("what is written meanwhile reaches it, before and behind the cursor, and new extents", async (t) => {
  const cluster = new FakeCluster();
  const [a, b, c] = cluster.nodes;
  for (const node of [a!, b!]) for (let i = 0; i < 6; i++) node.put(i, [i + 1], 5, false);
  const set = cluster.serve(staleThird(cluster));
  let maps = 0;
  // The third extent's comparison does not end for a while.
  c!.script = ({ kind }) => (kind === ExtentOpKind.Map && ++maps === 3 ? "hold" : null);
  cluster.pass(500);
  t.equal(set.work.resync, 4);
  const done = cluster.write(set, 0, 1, [50]);
  const later = cluster.write(set, 5, 1, [60]);
  const fresh = cluster.write(set, 9, 0, [70]);
  const current = cluster.write(set, 2, 1, [80]);
  cluster.engine.settle();
  t.same([done.status, later.status, fresh.status, current.status], [0, 0, 0, -1]);
  t.equal(c!.fills(0)[1], 50);
  t.equal(c!.fills(9)[0], 70);
  t.equal(c!.fills(5)[1], 0);
  c!.session!.answerHeld();
  cluster.pass(1000);
  t.equal(current.status, Status.Ok);
  t.equal(isInSync(set), true);
  for (const extent of [0, 1, 2, 3, 4, 5, 9]) t.same(c!.fills(extent), a!.fills(extent), `extent ${extent}`);
});

t.test("a failure on the way keeps the original stale-since, and is no failure of the volume", async (t) => {
  const cluster = new FakeCluster();
  const [a, b, c] = cluster.nodes;
  for (const node of [a!, b!]) for (let i = 0; i < 3; i++) node.put(i, [i + 1], 5, false);
  const set = cluster.serve(staleThird(cluster));
  c!.script = ({ kind }) => (kind === ExtentOpKind.Write ? Status.Io : null);
  cluster.pass(2000);
  const write = cluster.write(set, 8, 0, [9]);
  cluster.engine.settle();
  t.equal(write.status, Status.Ok);
  t.equal(cluster.chosen.length, 1);
  t.equal(set.record.members[2]!.since, 4);
  c!.script = () => null;
  cluster.pass(1000);
  t.equal(isInSync(set), true);
  t.equal(c!.fills(8)[0], 9);
});

t.test("from its final flush on it is waited for; a failure then ends the pass", async (t) => {
  const cluster = new FakeCluster();
  const c = cluster.nodes[2]!;
  const set = cluster.serve(staleThird(cluster));
  c.script = ({ kind }) => (kind === ExtentOpKind.Flush ? "hold" : null);
  cluster.pass(500);
  const flush = cluster.ask(set, ExtentOpKind.Flush, 0);
  cluster.engine.settle();
  t.equal(flush.status, -1, "a FLUSH that skipped it would not cover what it holds when it is in sync");
  c.down = true;
  c.kill();
  cluster.engine.settle();
  t.equal(flush.status, Status.Ok);
  t.equal(isInSync(set), false);
  c.down = false;
  c.script = () => null;
  cluster.pass(1000);
  t.equal(isInSync(set), true);
});

t.test(
  "the record that calls it in sync cannot be accepted: it is waited for, and not read from",
  async (t) => {
    const cluster = new FakeCluster();
    const c = cluster.nodes[2]!;
    const set = cluster.serve(staleThird(cluster));
    cluster.registerDown = true;
    cluster.pass(500);
    c.script = ({ kind }) => (kind === ExtentOpKind.Read ? Status.Io : "hold");
    const write = cluster.write(set, 0, 0, [5]);
    const reads = [0, 1, 2, 3].map(() => cluster.read(set, 7));
    cluster.engine.settle();
    t.same(
      reads.map(({ status }) => status),
      [0, 0, 0, 0],
    );
    t.equal(write.status, -1);
    cluster.registerUp();
    c.script = () => null;
    c.session!.answerHeld();
    cluster.engine.settle();
    t.equal(write.status, Status.Ok);
    t.equal(isInSync(set), true);
  },
);

t.test(
  "another life of it while that record is being chosen: in sync on paper only until the next",
  async (t) => {
    const cluster = new FakeCluster();
    const c = cluster.nodes[2]!;
    const set = cluster.serve(staleThird(cluster));
    cluster.registerDown = true;
    cluster.pass(500);
    c.powerLoss();
    cluster.connect();
    cluster.registerUp();
    cluster.pass(100);
    t.same(
      cluster.seen.slice(0, 2).map((line) => line.slice(0, 9)),
      ["n3 joined", "n3 left: "],
    );
    cluster.pass(1000);
    t.equal(isInSync(set), true);
    t.equal(c.lossy, false, "its LOSSY ends when it has everything");
  },
);

t.test("a stuck write is no reason not to resync, and reaches who joins", async (t) => {
  const cluster = new FakeCluster();
  const [a, b, c] = cluster.nodes;
  for (const node of [a!, b!]) node.put(0, [1], 5, false);
  const set = cluster.serve(staleThird(cluster));
  b!.down = true;
  b!.kill();
  const write = cluster.write(set, 0, 3, [44]);
  cluster.pass(3000);
  t.equal(write.status, Status.Ok, "two again, so the one that is gone can go");
  t.equal(isInSync(set), true);
  t.equal(set.record.members[1]!.state, "stale");
  t.same(c!.fills(0), a!.fills(0));
});

t.test("idle extents are called stable, to in-sync members only, and again after a restart", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[2]!.down = true;
  cluster.nodes[2]!.kill();
  cluster.write(set, 5, 0, [1]);
  cluster.pass(3000);
  t.same(cluster.nodes[0]!.stable, [5]);
  cluster.nodes[2]!.script = ({ kind }) => (kind === ExtentOpKind.Flush ? "hold" : null);
  cluster.nodes[2]!.down = false;
  cluster.pass(4000);
  t.same(cluster.nodes[2]!.stable, [], "it is not in sync");
  cluster.nodes[2]!.script = () => null;
  cluster.nodes[2]!.session!.answerHeld();
  cluster.pass(2000);
  t.ok(cluster.nodes[2]!.stable.includes(5));
  t.equal(cluster.nodes[2]!.extents.get(5)!.hot, false);
  cluster.nodes[1]!.extents.get(5)!.hot = true;
  cluster.nodes[1]!.kill();
  cluster.pass(2000);
  t.equal(cluster.nodes[1]!.extents.get(5)!.hot, false);
});

t.test("a power loss took Free and Alloc of an extent: the cool life before is not believed", async (t) => {
  const cluster = new FakeCluster();
  const [a, b, c] = cluster.nodes;
  for (const node of [a!, b!]) {
    node.put(1, [2], 3, false);
    node.extents.get(1)!.created = 40;
  }
  c!.put(1, [1], 3, false);
  const set = cluster.serve(staleThird(cluster));
  cluster.pass(1000);
  t.equal(isInSync(set), true);
  t.equal(c!.fills(1)[0], 2);
});

t.test("a change that could not be sent to it for the moment is to do again", async (t) => {
  const cluster = new FakeCluster();
  const [a, b, c] = cluster.nodes;
  for (const node of [a!, b!]) node.put(1, [1], 5, false);
  const set = cluster.serve(staleThird(cluster));
  let refused = 0;
  c!.script = ({ kind }) => (kind === ExtentOpKind.Map && refused++ === 0 ? Status.NoLease : null);
  while (refused === 0) cluster.pass(50);
  const write = cluster.write(set, 9, 0, [7]);
  cluster.engine.settle();
  t.equal(write.status, Status.Ok);
  cluster.pass(2000);
  t.equal(isInSync(set), true);
  t.same(c!.fills(9), a!.fills(9));
});
