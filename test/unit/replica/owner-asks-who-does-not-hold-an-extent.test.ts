import fc from "fast-check";
import t from "tap";
import { Status } from "../../../lib/core/status.js";
import { Holders, membersForAll, membersForChanges } from "../../../lib/replica/owner/holders.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import { FakeCluster } from "./support/fake-cluster.js";

const EXTENTS = 24;

function recordOf(members: number, replicas: number, minReplicas: number): ClusterRecord {
  const record = new FakeCluster(4).record();
  return {
    ...record,
    policy: { ...record.policy, replicas, minReplicas },
    members: Array.from({ length: members }, (_, i) => ({
      node: `${i}`.repeat(32),
      state: "insync",
      since: 0,
    })),
  };
}

/** Four nodes, two copies of each extent. */
function pairs(): { cluster: FakeCluster; record: ClusterRecord; holders: Holders } {
  const cluster = new FakeCluster(4);
  const record = cluster.record({
    policy: { ...cluster.record().policy, replicas: 2, minReplicas: 1 },
    replicasMin: 2,
  });
  return { cluster, record, holders: new Holders(record) };
}

void t.test("every extent has its copies, spread evenly, whoever sits in the seats", async (t) => {
  const record = recordOf(5, 3, 2);
  const holders = new Holders(record);
  const others = new Holders({
    ...record,
    members: record.members.map(({ node }) => ({ node: `f${node.slice(1)}`, state: "stale", since: 4 })),
  });
  const counts = [0, 0, 0, 0, 0];
  for (let extent = 0; extent < 5000; extent++) {
    const seats = counts.map((_, seat) => holders.holds(seat, extent));
    if (seats.filter(Boolean).length !== 3) t.fail(`extent ${extent} is in seats ${seats}`);
    if (others.mask(extent) !== holders.mask(extent)) t.fail(`extent ${extent} depends on who sits where`);
    seats.forEach((holds, seat) => {
      if (holds) counts[seat]!++;
    });
  }
  for (const count of counts) t.ok(count > 2700 && count < 3300, `${counts}`);
});

void t.test(
  "as many members as changes need leave every extent enough copies, and one fewer does not",
  async (t) => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.nat(5), fc.nat(5), (members, less, lessMin) => {
        const replicas = Math.max(1, members - less);
        const minReplicas = Math.max(1, replicas - lessMin);
        const record = recordOf(members, replicas, minReplicas);
        // Of `there` members that are in sync, an extent has the fewest copies when all others hold it.
        const fewest = (there: number): number => Math.max(0, replicas - (members - there));
        t.equal(fewest(membersForChanges(record)), minReplicas);
        t.equal(fewest(membersForChanges(record) - 1), minReplicas - 1);
        t.equal(fewest(membersForAll(record)), 1);
      }),
    );
  },
);

void t.test("an extent is written to those that hold it, and to nobody else", async (t) => {
  const { cluster, record, holders } = pairs();
  const set = cluster.serve(record);
  for (let extent = 0; extent < EXTENTS; extent++) {
    const written = cluster.write(set, extent, 0, [extent + 1]);
    cluster.pass(50);
    t.equal(written.status, Status.Ok);
    cluster.nodes.forEach((node, seat) => {
      t.equal(node.extents.has(extent), holders.holds(seat, extent), `extent ${extent}, seat ${seat}`);
    });
    const read = cluster.read(set, extent, 0, 1);
    cluster.pass(50);
    t.same(read.fills, [extent + 1]);
  }
});

void t.test("a member that comes back gets what it holds, from all that have a part of it", async (t) => {
  const { cluster, record, holders } = pairs();
  const set = cluster.serve(record);
  const away = cluster.nodes[1]!;
  away.kill();
  away.down = true;
  const writes = Array.from({ length: EXTENTS }, (_, extent) => cluster.write(set, extent, 0, [extent + 1]));
  cluster.pass(3000);
  t.ok(writes.every(({ status }) => status === Status.Ok));
  t.ok(cluster.seen.some((line) => line.startsWith("n2 left")));
  away.down = false;
  cluster.pass(10_000);
  t.ok(cluster.seen.includes("n2 joined"));
  for (let extent = 0; extent < EXTENTS; extent++)
    t.equal(away.extents.has(extent), holders.holds(1, extent), `extent ${extent}`);
});

void t.test("an extent that some do not have because it is not theirs is in no doubt", async (t) => {
  const { cluster, record } = pairs();
  const set = cluster.serve(record);
  for (let extent = 0; extent < EXTENTS; extent++) cluster.write(set, extent, 0, [extent + 1]);
  cluster.pass(200);
  set.close(() => undefined);
  cluster.engine.settle();
  for (const node of cluster.nodes) for (const extent of node.extents.values()) extent.hot = false;
  const activating = cluster.activate(cluster.promisedEpoch + 1);
  cluster.pass(5000);
  const { outcome } = activating;
  t.equal(outcome?.kind, "activated");
  if (outcome?.kind === "activated") t.same([...outcome.activated.reconcile], []);
});
