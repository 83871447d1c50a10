/** Activation: what has to be true before anything is served, and what is made equal before it is. */
import t from "tap";
import { ExtentOpKind } from "../../../lib/core/extent-io.js";
import { generation } from "../../../lib/core/ids.js";
import { Status } from "../../../lib/core/status.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import { type Activating, FakeCluster } from "./support/fake-cluster.js";

const RELEASED = { owner: { peer: 1, node: null, incarnation: 0, released: true } };

function cluster(change: Partial<ClusterRecord> = RELEASED, nodes = 3): FakeCluster {
  const made = new FakeCluster(nodes);
  made.chosen.push(made.record({ generation: generation(5), ...change }));
  return made;
}

function recordOf({ outcome }: Activating): ClusterRecord | null {
  return outcome?.kind === "activated" ? outcome.activated.record : null;
}

t.test("leases of the last owner are waited for, unless it let go or its process is gone", async (t) => {
  const living = cluster({});
  living.connect();
  const waits = living.activate();
  living.pass(3400);
  t.equal(waits.outcome, null);
  t.match(waits.activation!.waiting, /^volume v1 waits: leases of its last owner end in \d+ ms$/);
  living.pass(100);
  t.equal(recordOf(waits)?.epoch, 2);

  const released = cluster();
  released.connect();
  t.equal(recordOf(released.activate())?.generation, 6, "released: at once");

  const died = cluster();
  died.chosen[0] = died.record({
    owner: { peer: 1, node: died.nodes[1]!.id, incarnation: 1, released: false },
  });
  died.nodes[1]!.incarnation = 2;
  died.connect();
  t.not(recordOf(died.activate()), null, "its device was opened again: at once");
});

t.test("nothing is served before a majority has accepted the record", async (t) => {
  const made = cluster();
  made.connect();
  const activating = made.activate();
  t.equal(made.chosen.length, 2);
  const stuck = cluster();
  stuck.connect();
  stuck.registerDown = true;
  const waits = stuck.activate();
  stuck.pass(10_000);
  t.equal(waits.outcome, null);
  t.match(waits.activation!.waiting, /a majority of the config nodes has to answer/);
  stuck.registerUp();
  t.not(recordOf(waits), null);
  t.same(recordOf(activating)!.owner, { peer: 99, node: null, incarnation: 0, released: false });
});

t.test("somebody is ahead: a higher epoch, after a pause", async (t) => {
  const made = cluster();
  made.connect();
  made.promisedEpoch = 9;
  const activating = made.activate(2);
  t.equal(activating.outcome, null);
  made.pass(1100);
  t.equal(recordOf(activating)?.epoch, 10);
});

t.test(
  "a member that takes no part is stale as of the new generation; one that is slow is waited for",
  async (t) => {
    const made = cluster();
    made.nodes[2]!.down = true;
    made.connect();
    const activating = made.activate();
    made.pass(900);
    t.equal(activating.outcome, null);
    made.pass(500);
    const record = recordOf(activating)!;
    t.same(
      record.members.map(({ state, since }) => [state, since]),
      [
        ["insync", 0],
        ["insync", 0],
        ["stale", 6],
      ],
    );
  },
);

t.test("a stale member stays stale since it left, and is not waited for", async (t) => {
  const made = cluster();
  const record = made.record(RELEASED);
  made.chosen[0] = {
    ...record,
    generation: generation(5),
    members: record.members.map((entry, i) => (i === 0 ? { ...entry, state: "stale", since: 3 } : entry)),
  };
  made.nodes[0]!.down = true;
  made.connect();
  const activating = made.activate();
  t.same(recordOf(activating)!.members[0], { node: made.nodes[0]!.id, state: "stale", since: 3 });
});

t.test("too few valid members: waits, and goes on when one comes", async (t) => {
  const made = cluster();
  made.nodes[1]!.down = true;
  made.nodes[2]!.down = true;
  made.connect();
  const activating = made.activate();
  made.pass(60_000);
  t.equal(activating.outcome, null);
  t.match(activating.activation!.waiting, /^volume v1 waits: not heard of n2, n3$/);
  made.nodes[2]!.down = false;
  made.pass(500);
  t.equal(recordOf(activating)?.members[1]?.state, "stale");
});

t.test("lossy members alone do not serve while one that may be whole is missing", async (t) => {
  const made = cluster();
  made.nodes[0]!.lossy = true;
  made.nodes[1]!.lossy = true;
  made.nodes[2]!.down = true;
  made.connect();
  const activating = made.activate();
  made.pass(30_000);
  t.equal(activating.outcome, null);
  made.nodes[2]!.down = false;
  made.pass(500);
  t.not(recordOf(activating), null);
});

t.test(
  "hot extents are made equal and stamped on all before they answer; cool ones answer at once",
  async (t) => {
    const made = cluster();
    const [a, b, c] = made.nodes;
    for (const node of made.nodes) node.put(1, [7, 7], 2, false);
    // 2 differs, 3 is equal and hot, 4 is known to one only.
    a!.put(2, [1, 1], 4, true);
    b!.put(2, [1, 2], 4, true);
    c!.put(2, [0, 1], 4, false);
    for (const node of made.nodes) node.put(3, [3], 4, node === b);
    c!.put(4, [9], 5, false);
    made.connect();
    const set = made.own(made.activate());
    const cool = made.read(set, 1);
    made.engine.settle();
    t.same(cool.fills?.slice(0, 3), [7, 7, 0]);
    t.same(set.work, { reconcile: 0, resync: 0, surplus: 0 });
    for (const node of made.nodes) {
      t.same(node.fills(2).slice(0, 3), [1, 1, 0]);
      t.equal(node.extents.get(2)!.generation, 6);
      t.equal(node.extents.get(3)!.generation, 6, "even if equal");
      t.equal(node.extents.get(1)!.generation, 2);
      t.equal(node.extents.has(4), false, "the first copy does not have it");
    }
  },
);

t.test("an extent that is asked for is reconciled before others, and answers only then", async (t) => {
  const made = cluster();
  for (let extent = 0; extent < 20; extent++) {
    for (const node of made.nodes) node.put(extent, [extent + 1], 4, true);
  }
  made.connect();
  const activating = made.activate();
  const second = made.nodes[1]!;
  const order: number[] = [];
  let hold = true;
  second.script = (op) => {
    if (hold) return "hold";
    if (op.generation === 6 && order.at(-1) !== op.extent) order.push(op.extent);
    return null;
  };
  const set = made.own(activating);
  const read = made.read(set, 17);
  made.engine.settle();
  t.equal(read.status, -1);
  hold = false;
  second.session!.answerHeld();
  made.engine.settle();
  t.equal(read.status, Status.Ok);
  t.ok(order.indexOf(17) <= 1, `${order.slice(0, 4).join(" ")} …: after the one that was being done`);
});

t.test("a copy that was put right since its greeting is believed before one that was not", async (t) => {
  const made = cluster(RELEASED, 2);
  const [a, b] = made.nodes;
  a!.put(2, [1, 1], 4, true);
  b!.put(2, [2, 2], 4, true);
  a!.lossy = true;
  b!.lossy = true;
  made.connect();
  // By another owner, while the session with this one lives on.
  b!.lossy = false;
  made.own(made.activate());
  made.pass(100);
  for (const node of made.nodes) t.same(node.fills(2).slice(0, 2), [2, 2]);
});

t.test(
  "a whole copy is believed before one that lost its power, for the whole extent; then LOSSY ends",
  async (t) => {
    const made = cluster();
    const [a, b, c] = made.nodes;
    a!.put(2, [1, 1], 4, true);
    a!.lossy = true;
    b!.put(2, [2, 2], 4, true);
    c!.put(2, [2, 2], 4, false);
    made.connect();
    made.own(made.activate());
    made.pass(100);
    for (const node of made.nodes) t.same(node.fills(2).slice(0, 2), [2, 2]);
    t.equal(a!.lossy, false);
    t.equal(a!.durable.has(2), true, "flushed before its LOSSY ends");
  },
);

t.test(
  "a member that leaves in the middle of a reconcile finds the extent among those stamped since",
  async (t) => {
    const made = cluster();
    const [a, b, c] = made.nodes;
    a!.put(2, [1], 4, true);
    b!.put(2, [1], 4, false);
    c!.put(2, [8], 4, false);
    made.connect();
    const activating = made.activate();
    c!.script = () => "hold";
    const set = made.own(activating);
    made.pass(7000);
    t.equal(made.chosen.at(-1)!.members[2]!.since, 7);
    t.equal(a!.extents.get(2)!.generation, 7);
    t.equal(b!.extents.get(2)!.generation, 7);
    c!.script = () => null;
    made.pass(7000);
    t.equal(c!.fills(2)[0], 1);
    t.equal(set.record.members[2]!.state, "insync");
  },
);

t.test("released in order: the next owner waits for nothing", async (t) => {
  const made = cluster();
  made.connect();
  const set = made.own(made.activate());
  const write = made.write(set, 0, 0, [4]);
  let released: boolean | null = null;
  set.release((done) => {
    released = done;
  });
  made.engine.settle();
  t.equal(write.status, Status.Ok);
  t.equal(released, true);
  t.equal(made.chosen.at(-1)!.owner.released, true);
  set.close(() => undefined);
  const next = made.own(made.activate(3));
  const read = made.read(next, 0);
  made.engine.settle();
  t.equal(read.fills?.[0], 4);
});

t.test("an owner that lets go answers nothing more, heard or not that its record was chosen", async (t) => {
  const made = cluster();
  made.connect();
  const set = made.own(made.activate());
  t.ok(set.mayAnswer, "holes");
  made.registerDown = true;
  const refusals: boolean[] = [];
  set.release((done) => refusals.push(done));
  made.engine.settle();
  const flush = made.ask(set, ExtentOpKind.Flush, 0);
  const read = made.read(set, 0);
  made.pass(1000);
  t.notOk(set.mayAnswer, "no hole");
  t.same([flush.status, read.status], [-1, -1]);
  set.close(() => undefined);
  t.same([flush.status, read.status], [Status.Shutdown, Status.Shutdown]);
  t.same(refusals, [], "nobody knows what became of the record");
});
