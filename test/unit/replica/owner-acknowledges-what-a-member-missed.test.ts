/** The table "a member …" of docs/architecture/replica.md, row by row. */
import t from "tap";
import { ExtentFlag, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { Status } from "../../../lib/core/status.js";
import { FakeCluster } from "./support/fake-cluster.js";

const HOLD = (): "hold" => "hold";
const isChange = (kind: number): boolean => kind !== ExtentOpKind.Read && kind !== ExtentOpKind.Map;

/** Two copies of which one is enough. */
function pair(nodes = 2): FakeCluster {
  const cluster = new FakeCluster(nodes);
  const { record } = cluster;
  cluster.record = (change) => {
    const made = record.call(cluster, change);
    return { ...made, policy: { ...made.policy, replicas: 2, minReplicas: 1 }, replicasMin: 2 };
  };
  return cluster;
}

t.test("answered only when all in-sync members have answered", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[2]!.script = HOLD;
  const write = cluster.write(set, 0, 0, [5]);
  cluster.engine.settle();
  t.equal(write.status, -1);
  t.equal(cluster.nodes[0]!.fills(0)[0], 5);
  cluster.nodes[2]!.session!.answerHeld();
  cluster.engine.settle();
  t.equal(write.status, Status.Ok);
  for (const node of cluster.nodes) t.equal(node.fills(0)[0], 5);
  t.equal(cluster.chosen.length, 1);
});

t.test("back within the grace in the same life: sent again under the same generation", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[2]!.script = HOLD;
  const write = cluster.write(set, 0, 0, [5]);
  cluster.engine.settle();
  cluster.nodes[2]!.script = () => null;
  cluster.nodes[2]!.kill();
  cluster.engine.advance(500);
  t.equal(write.status, -1);
  cluster.connect();
  t.equal(write.status, Status.Ok);
  t.equal(cluster.nodes[2]!.fills(0)[0], 5);
  t.same(cluster.seen, []);
  t.equal(set.generation, 1);
});

t.test("gone past the grace: taken out before the answer, and the others get it again", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[2]!.down = true;
  cluster.nodes[2]!.kill();
  cluster.registerDown = true;
  const write = cluster.write(set, 0, 0, [5]);
  cluster.pass(3000);
  t.equal(write.status, -1, "not before the record is chosen");
  t.match(set.waiting, /^volume v1 waits: a majority of the config nodes .*; n3 down since \d\d:\d\d:\d\d$/);
  cluster.registerUp();
  t.equal(write.status, Status.Ok);
  t.same(cluster.chosen.at(-1)!.members[2], { node: cluster.nodes[2]!.id, state: "stale", since: 2 });
  t.same(cluster.nodes[0]!.log, ["write 0 g1", "write 0 g2"]);
  t.same(cluster.seen, ["n3 left: its connection is gone"]);
  t.equal(set.waiting, null);
});

t.test("gone, and the other one has no power: it stays, for it alone has what was answered", async (t) => {
  const cluster = pair();
  const [whole, dark] = [cluster.nodes[0]!, cluster.nodes[1]!];
  const set = cluster.serve();
  const first = cluster.write(set, 0, 0, [5]);
  cluster.engine.settle();
  t.equal(first.status, Status.Ok);
  dark.dark = true;
  whole.down = true;
  whole.kill();
  const second = cluster.write(set, 0, 1, [6]);
  cluster.pass(4000);
  t.equal(cluster.chosen.length, 1, "whoever stays must have said that it is there");
  t.equal(second.status, -1);
  whole.down = false;
  cluster.pass(100);
  dark.powerLoss();
  cluster.pass(100);
  t.equal(second.status, Status.Ok);
  t.match(cluster.seen, [/^n2 left: it came back/]);
  t.same(whole.fills(0).slice(0, 2), [5, 6]);
});

t.test("gone, and the other one lost power before and was not given back everything: it stays", async (t) => {
  const cluster = pair();
  const [whole, lossy] = [cluster.nodes[0]!, cluster.nodes[1]!];
  whole.put(0, [9], 1, true);
  lossy.put(0, [1], 1, true);
  lossy.lossy = true;
  whole.script = HOLD;
  const set = cluster.serve({}, [0]);
  whole.down = true;
  whole.kill();
  const write = cluster.write(set, 0, 1, [6]);
  cluster.pass(4000);
  t.equal(cluster.chosen.length, 1);
  t.equal(write.status, -1);
  t.match(set.waiting, /n1 down since .*; n2 has lost power, and may lack what the others have$/);
  whole.script = () => null;
  whole.down = false;
  cluster.pass(2000);
  t.equal(write.status, Status.Ok);
  for (const node of [whole, lossy]) t.same(node.fills(0).slice(0, 2), [9, 6]);
});

t.test("its device fails, and the other one lost power before: what one copy answers goes on", async (t) => {
  const cluster = pair();
  const [failing, lossy] = [cluster.nodes[0]!, cluster.nodes[1]!];
  for (const node of [failing, lossy]) node.put(0, [9], 1, true);
  lossy.lossy = true;
  failing.script = ({ kind }) => (kind === ExtentOpKind.Write ? Status.Io : "hold");
  const set = cluster.serve({}, [0]);
  t.ok(set.work.reconcile > 0);
  const write = cluster.write(set, 1, 0, [6]);
  cluster.pass(1000);
  t.equal(write.status, Status.Ok);
  t.same(cluster.seen, ["n1 left: its device fails"]);
});

t.test("gone, and people replace it: the other one is enough although it lost power before", async (t) => {
  const cluster = pair(3);
  const [gone, lossy, fresh] = [cluster.nodes[0]!, cluster.nodes[1]!, cluster.nodes[2]!];
  gone.put(0, [9], 1, true);
  lossy.put(0, [1], 1, true);
  lossy.lossy = true;
  gone.script = HOLD;
  const set = cluster.serve({ members: cluster.record().members.slice(0, 2) }, [0]);
  gone.down = true;
  gone.kill();
  const write = cluster.write(set, 0, 1, [6]);
  cluster.pass(4000);
  t.equal(cluster.chosen.length, 1, "nobody decides that by himself");
  let refusal: string | null | undefined;
  set.replace(gone.id, fresh.id, (said) => {
    refusal = said;
  });
  cluster.pass(5000);
  t.equal(refusal, null);
  t.equal(write.status, Status.Ok);
  for (const node of [lossy, fresh]) t.same(node.fills(0).slice(0, 2), [1, 6]);
});

t.test("nobody waits for a member that is gone: it stays in sync", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[2]!.down = true;
  cluster.nodes[2]!.kill();
  cluster.pass(10_000);
  t.equal(cluster.chosen.length, 1);
  const read = cluster.read(set, 0);
  cluster.pass(100);
  t.equal(read.status, Status.Ok);
  cluster.nodes[2]!.down = false;
  cluster.pass(100);
  const write = cluster.write(set, 0, 0, [1]);
  cluster.engine.settle();
  t.equal(write.status, Status.Ok);
  t.equal(cluster.chosen.length, 1);
});

t.test("back with another boot id: taken out before any I/O", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.write(set, 0, 0, [5]);
  cluster.engine.settle();
  cluster.nodes[2]!.powerLoss();
  cluster.nodes[2]!.log.length = 0;
  cluster.registerDown = true;
  cluster.connect();
  const write = cluster.write(set, 0, 1, [6]);
  cluster.engine.settle();
  t.equal(write.status, -1);
  t.same(cluster.nodes[2]!.log, []);
  cluster.registerUp();
  t.equal(write.status, Status.Ok);
  t.match(cluster.seen[0], /^n3 left: it came back/);
  t.equal(cluster.chosen.at(-1)!.members[2]!.since, 2);
});

t.test(
  "the same process is whole although it may lack writes of other volumes; another one is not",
  async (t) => {
    const cluster = new FakeCluster();
    const node = cluster.nodes[2]!;
    const set = cluster.serve();
    node.session!.lose("a short break");
    cluster.connect();
    t.not(node.session, null);
    // It is LOSSY from before, for volumes that nobody has opened yet.
    node.lossy = true;
    node.session!.lose("a short break");
    cluster.connect();
    const write = cluster.write(set, 0, 0, [5]);
    cluster.engine.settle();
    t.equal(write.status, Status.Ok);
    t.same(cluster.seen, []);
    node.kill();
    cluster.connect();
    cluster.engine.settle();
    t.match(cluster.seen[0], /^n3 left: it came back/);
  },
);

t.test("silent for five seconds: cut and taken out", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[1]!.script = HOLD;
  const write = cluster.write(set, 0, 0, [5]);
  cluster.pass(4900);
  t.equal(write.status, -1);
  cluster.pass(700);
  t.equal(write.status, Status.Ok);
  t.same(cluster.seen, ["n2 left: it does not answer"]);
});

t.test("Io: taken out", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[1]!.script = ({ kind }) => (isChange(kind) ? Status.Io : null);
  const write = cluster.write(set, 0, 0, [5]);
  cluster.engine.settle();
  t.equal(write.status, Status.Ok);
  t.same(cluster.seen, ["n2 left: its device fails"]);
  t.same(cluster.nodes[0]!.log, ["write 0 g1", "write 0 g2"]);
});

t.test("NoSpace on all: the policy decides", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  let full = true;
  for (const node of cluster.nodes)
    node.script = ({ kind }) => (full && kind === ExtentOpKind.Write ? Status.NoSpace : null);
  const refused = cluster.write(set, 0, 0, [5], ExtentFlag.NoWait);
  const waits = cluster.write(set, 1, 0, [6]);
  cluster.pass(2000);
  t.equal(refused.status, Status.NoSpace);
  t.equal(waits.status, -1);
  full = false;
  cluster.pass(500);
  t.equal(waits.status, Status.Ok);
  t.same(cluster.seen, []);
});

t.test("NoSpace on some: those are taken out, and nobody is told ENOSPC", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[0]!.script = ({ kind }) => (kind === ExtentOpKind.Write ? Status.NoSpace : null);
  const write = cluster.write(set, 0, 0, [5], ExtentFlag.NoWait);
  cluster.engine.settle();
  t.equal(write.status, Status.Ok);
  t.same(cluster.seen, ["n1 left: its device is full"]);
});

t.test("NoLease: waited for like a silent one", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[1]!.script = ({ kind }) => (isChange(kind) ? Status.NoLease : null);
  const write = cluster.write(set, 0, 0, [5]);
  cluster.pass(2000);
  t.equal(write.status, -1);
  cluster.nodes[1]!.script = () => null;
  cluster.pass(500);
  t.equal(write.status, Status.Ok, "the lease came back");
  t.same(cluster.seen, []);
  cluster.nodes[1]!.script = ({ kind }) => (isChange(kind) ? Status.NoLease : null);
  const other = cluster.write(set, 0, 0, [6]);
  cluster.pass(5600);
  t.equal(other.status, Status.Ok);
  t.match(cluster.seen[0], /^n2 left: it reaches no majority/);
});

for (const [name, status] of [
  ["NoLease", Status.NoLease],
  ["NoSpace", Status.NoSpace],
] as const) {
  t.test(`${name} of one that the others cannot go on without: used again when it has passed`, async (t) => {
    const cluster = new FakeCluster();
    const set = cluster.serve();
    cluster.nodes[2]!.down = true;
    cluster.nodes[2]!.kill();
    const first = cluster.write(set, 0, 0, [5]);
    cluster.pass(2000);
    t.equal(first.status, Status.Ok);
    cluster.nodes[1]!.script = ({ kind }) => (isChange(kind) ? status : null);
    const write = cluster.write(set, 0, 0, [6]);
    cluster.pass(20_000);
    t.equal(write.status, -1);
    cluster.nodes[1]!.script = () => null;
    cluster.pass(1000);
    t.equal(write.status, Status.Ok);
    t.same(cluster.seen, ["n3 left: its connection is gone"]);
  });
}

t.test("NoLease once, and then answers: it is not taken out, though nobody writes", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  let refused = false;
  for (const node of cluster.nodes) {
    node.script = () => {
      if (refused) return null;
      refused = true;
      return Status.NoLease;
    };
  }
  for (let i = 0; i < 30; i++) {
    const reads = [cluster.read(set, 0), cluster.read(set, 0), cluster.read(set, 0)];
    cluster.pass(300);
    t.same(
      reads.map((read) => read.status),
      [Status.Ok, Status.Ok, Status.Ok],
    );
  }
  t.same(cluster.seen, []);
});

t.test("Fenced by a newer owner: nothing is answered any more", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.nodes[1]!.promised = { epoch: 2, owner: 5 };
  const write = cluster.write(set, 0, 0, [5]);
  cluster.pass(20_000);
  t.equal(write.status, -1);
  t.same(cluster.seen, ["ended: epoch 2 has taken over"]);
  const read = cluster.read(set, 0);
  cluster.pass(1000);
  t.equal(read.status, -1);
  let closed = false;
  set.close(() => {
    closed = true;
  });
  t.equal(closed, true);
  t.equal(write.status, Status.Shutdown);
  t.equal(read.status, Status.Shutdown);
  t.equal(cluster.engine.pool.freeBytes, cluster.engine.pool.capacityBytes);
});

t.test("a record that a majority refuses ends the owner, with nothing answered", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.refuseWith = 8;
  cluster.nodes[1]!.script = ({ kind }) => (isChange(kind) ? Status.Io : null);
  const write = cluster.write(set, 0, 0, [5]);
  cluster.pass(1000);
  t.equal(write.status, -1);
  t.same(cluster.seen, ["ended: epoch 8 has taken over"]);
});

t.test("below minReplicas nobody who may return whole is taken out; the wait has a name", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  for (const node of cluster.nodes.slice(1)) {
    node.down = true;
    node.kill();
  }
  const write = cluster.write(set, 0, 0, [5]);
  cluster.pass(20_000);
  t.equal(write.status, -1);
  t.equal(cluster.chosen.length, 1);
  t.match(set.waiting, /^volume v1 waits: 1 of 3 copies can be used and 2 are needed; n2 down since/);
  const read = cluster.read(set, 0, 0, 1);
  cluster.engine.settle();
  t.equal(read.status, Status.Ok, "reads go on");
  cluster.nodes[1]!.down = false;
  cluster.pass(100);
  t.equal(write.status, Status.Ok, "one that came back makes two, and the third can go");
  t.same(cluster.seen, ["n3 left: its connection is gone"]);
  cluster.nodes[1]!.down = true;
  cluster.nodes[1]!.kill();
  const further = cluster.write(set, 0, 0, [6]);
  cluster.pass(2000);
  t.equal(further.status, -1);
  t.match(
    set.waiting,
    /; n2 down since [\d:]{8}; n3 stale and away since [\d:]{8}, resynced when it is back$/,
    "who is waited for, and who is not",
  );
});

t.test(
  "a member that is not whole leaves even below minReplicas, and nothing is answered until it is back",
  async (t) => {
    const cluster = new FakeCluster(2);
    const set = cluster.serve();
    cluster.nodes[1]!.script = HOLD;
    const write = cluster.write(set, 3, 0, [5]);
    cluster.engine.settle();
    cluster.nodes[1]!.script = ({ kind }) => (kind === ExtentOpKind.Map ? "hold" : null);
    cluster.nodes[1]!.powerLoss();
    cluster.pass(1000);
    t.equal(cluster.chosen.at(-1)!.members[1]!.state, "stale");
    t.equal(write.status, -1, "one copy is less than two");
    cluster.nodes[1]!.script = () => null;
    cluster.nodes[1]!.session!.answerHeld();
    cluster.pass(2000);
    t.equal(write.status, Status.Ok);
    t.same(
      cluster.seen.map((line) => line.slice(0, 7)),
      ["n2 left", "n2 join"],
    );
    t.equal(cluster.nodes[1]!.fills(3)[0], 5);
  },
);

t.test("all copies lose their power under a living owner: it ends loudly", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.write(set, 0, 0, [5]);
  cluster.engine.settle();
  for (const node of cluster.nodes) {
    node.down = true;
    node.powerLoss();
  }
  for (const node of cluster.nodes) node.down = false;
  const write = cluster.write(set, 0, 0, [6]);
  cluster.pass(5000);
  t.match(cluster.seen.at(-1), /^ended: every copy came back without/);
  t.equal(write.status, -1);
});

t.test("without a lease nothing is answered, and what was held is answered when it is back", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.leaseHolds = false;
  const write = cluster.write(set, 0, 0, [5]);
  const flush = cluster.ask(set, ExtentOpKind.Flush, 0);
  const read = cluster.read(set, 9);
  cluster.pass(2000);
  t.same([write.status, flush.status, read.status], [-1, -1, -1]);
  cluster.leaseHolds = true;
  cluster.pass(300);
  t.same([write.status, flush.status, read.status], [0, 0, 0]);
});

t.test("a flush reaches every in-sync member, and follows a shrink", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  cluster.write(set, 0, 0, [5]);
  cluster.nodes[2]!.script = ({ kind }) => (kind === ExtentOpKind.Flush ? Status.Io : null);
  const flush = cluster.ask(set, ExtentOpKind.Flush, 0);
  cluster.engine.settle();
  t.equal(flush.status, Status.Ok);
  t.same(cluster.seen, ["n3 left: its device fails"]);
  for (const node of cluster.nodes.slice(0, 2)) t.equal(node.durable.has(0), true);
});

t.test("gone for long and then back without what it had not flushed: the second reason counts", async (t) => {
  const cluster = new FakeCluster(2);
  const set = cluster.serve();
  cluster.nodes[1]!.down = true;
  cluster.nodes[1]!.kill();
  const write = cluster.write(set, 0, 0, [5]);
  cluster.pass(5000);
  t.equal(cluster.chosen.length, 1, "below minReplicas it may return whole");
  cluster.nodes[1]!.powerLoss();
  cluster.nodes[1]!.down = false;
  cluster.pass(2000);
  t.equal(write.status, Status.Ok);
  t.match(cluster.seen[0], /^n2 left: it came back without/);
});
