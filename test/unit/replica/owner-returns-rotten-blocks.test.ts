import t from "tap";
import { generation } from "../../../lib/core/ids.js";
import { Status } from "../../../lib/core/status.js";
import { FakeCluster } from "./support/fake-cluster.js";
import { EXTENT_BLOCKS } from "./support/fake-node.js";

const CONTENT = [1, 2, 3, 4, 5, 6, 7, 8];

function withContent(nodes = 3): FakeCluster {
  const cluster = new FakeCluster(nodes);
  for (const node of cluster.nodes) node.put(0, CONTENT, 1, false);
  return cluster;
}

t.test("a rotten block is read from another copy, and the bad one is rewritten", async (t) => {
  const cluster = withContent();
  for (const block of [2, 5]) cluster.nodes[0]!.extents.get(0)!.rot.add(block);
  const set = cluster.serve();
  const reads = [0, 1, 2].map(() => cluster.read(set, 0));
  cluster.pass(500);
  for (const read of reads) t.same(read.fills, CONTENT);
  t.equal(cluster.nodes[0]!.extents.get(0)!.rot.size, 0);
  t.same(cluster.seen, ["n1 repaired 2 of 0"]);
});

t.test("different blocks rotten in every copy: each is there somewhere, so the read succeeds", async (t) => {
  const cluster = withContent();
  cluster.nodes.forEach((node, i) => {
    node.extents.get(0)!.rot.add(i);
  });
  const set = cluster.serve();
  const read = cluster.read(set, 0);
  cluster.pass(500);
  t.equal(read.status, Status.Ok);
  t.same(read.fills, CONTENT);
});

t.test("a block that is rotten everywhere is an error, of that block only", async (t) => {
  const cluster = withContent(2);
  for (const node of cluster.nodes) node.extents.get(0)!.rot.add(4);
  const set = cluster.serve();
  const bad = cluster.read(set, 0, 4, 1);
  const good = cluster.read(set, 0, 5, EXTENT_BLOCKS - 5);
  cluster.pass(500);
  t.equal(bad.status, Status.Io);
  t.equal(bad.op.badBlock, 4);
  t.same(good.fills, [6, 7, 8]);
  t.same(new Set(cluster.seen), new Set(["n1 cannot repair 0:4", "n2 cannot repair 0:4"]));
});

t.test("rotten in one copy while the other is away: waits for it, and is no error", async (t) => {
  const cluster = withContent(2);
  cluster.nodes[0]!.extents.get(0)!.rot.add(4);
  const set = cluster.serve();
  cluster.nodes[1]!.down = true;
  cluster.nodes[1]!.kill();
  const read = cluster.read(set, 0);
  cluster.pass(20_000);
  t.equal(read.status, -1);
  cluster.nodes[1]!.down = false;
  cluster.pass(500);
  t.same(read.fills, CONTENT);
});

t.test("a member in resync does not join with what it had of a block that nobody can read", async (t) => {
  const cluster = new FakeCluster(2);
  const [whole, stale] = cluster.nodes;
  whole!.put(0, CONTENT, 5, false);
  whole!.put(1, CONTENT, 5, false);
  stale!.put(0, [1, 2, 3, 4, 50, 6, 7, 8], 3, false);
  whole!.extents.get(0)!.rot.add(4);
  const { members, policy } = cluster.record();
  const record = {
    generation: generation(6),
    policy: { ...policy, minReplicas: 1 },
    members: members.map((entry, i) => (i === 1 ? { ...entry, state: "stale" as const, since: 4 } : entry)),
  };
  const set = cluster.serve(record);
  cluster.pass(1000);
  t.equal(set.record.members[1]!.state, "stale");
  const told = ["n1 cannot repair 0:4", "n2 cannot repair 0:4"];
  t.same([...cluster.seen].sort(), told, "once each, not with every look");
  t.same(stale!.fills(1), CONTENT, "it does not hold up the others");
  const bad = cluster.read(set, 0, 4, 1);
  cluster.pass(500);
  t.equal(bad.status, Status.Io, "not the older bytes");
  const write = cluster.write(set, 0, 4, [51]);
  cluster.pass(12_000);
  t.equal(write.status, Status.Ok);
  t.equal(set.record.members[1]!.state, "insync");
  t.equal(stale!.fills(0)[4], 51);
});

t.test("rotten in one copy, and the other leaves for good: an error, not a wait for ever", async (t) => {
  const cluster = new FakeCluster(2);
  for (const node of cluster.nodes) node.put(0, CONTENT, 1, false);
  cluster.nodes[0]!.extents.get(0)!.rot.add(4);
  const { policy } = cluster.record();
  const set = cluster.serve({ policy: { ...policy, minReplicas: 1 } });
  cluster.nodes[1]!.down = true;
  cluster.nodes[1]!.kill();
  const read = cluster.read(set, 0);
  cluster.pass(500);
  t.equal(read.status, -1, "the other copy may come back");
  const write = cluster.write(set, 1, 0, [9]);
  cluster.pass(5000);
  t.equal(write.status, Status.Ok);
  t.equal(set.record.members[1]!.state, "stale");
  t.equal(read.status, Status.Io);
});
