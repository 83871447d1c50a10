/** Replacing a member: its seat goes to another node, which is believed nothing until it has everything. */
import t from "tap";
import { Status } from "../../../lib/core/status.js";
import type { ReplicaSet } from "../../../lib/replica/owner/replica-set.js";
import { FakeCluster, NODE_IDS } from "./support/fake-cluster.js";

const [FIRST, SECOND, , FOURTH] = NODE_IDS as [string, string, string, string];

/** Three members of four nodes. */
function threeOfFour(minReplicas = 2): { cluster: FakeCluster; set: ReplicaSet } {
  const cluster = new FakeCluster(4);
  const record = cluster.record();
  const set = cluster.serve({
    policy: { ...record.policy, replicas: 3, minReplicas },
    members: record.members.slice(0, 3),
    replicasMin: 3,
  });
  return { cluster, set };
}

function replace(set: ReplicaSet, old: string, next: string): { refusal: string | null | undefined } {
  const asked: { refusal: string | null | undefined } = { refusal: undefined };
  set.replace(old, next, (refusal) => {
    asked.refusal = refusal;
  });
  return asked;
}

function states(set: ReplicaSet): string[] {
  return set.record.members.map(({ node, state, since }) => `${node[0]} ${state} ${since}`);
}

void t.test("a lost member's seat goes to a node that is given everything", async (t) => {
  const { cluster, set } = threeOfFour();
  for (let extent = 0; extent < 5; extent++) cluster.write(set, extent, 0, [extent + 1]);
  cluster.pass(100);
  const lost = cluster.node(SECOND);
  lost.kill();
  lost.down = true;
  const held = cluster.write(set, 1, 1, [77]);
  cluster.pass(3000);
  t.equal(held.status, Status.Ok);
  const next = cluster.node(FOURTH);
  next.put(3, [99], 50, false);
  next.put(9, [99], 50, false);
  const asked = replace(set, SECOND, FOURTH);
  cluster.pass(5000);
  t.equal(asked.refusal, null);
  t.same(states(set), ["1 insync 0", "4 insync 0", "3 insync 0"]);
  for (let extent = 0; extent < 5; extent++)
    t.same(next.fills(extent), cluster.node(FIRST).fills(extent), `extent ${extent}`);
  t.equal(next.fills(9)[0], 0, "what it had from elsewhere is gone");
  t.ok(
    cluster.chosen.some(({ members }) => members[1]!.node === FOURTH && members[1]!.state === "stale"),
    "first it is a member that has nothing",
  );
});

void t.test("a member that is in sync leaves first, and writes go on", async (t) => {
  const { cluster, set } = threeOfFour();
  const before = cluster.write(set, 0, 0, [1]);
  cluster.pass(100);
  const asked = replace(set, FIRST, FOURTH);
  const during = cluster.write(set, 0, 1, [2]);
  cluster.pass(5000);
  t.same([before.status, during.status, asked.refusal], [Status.Ok, Status.Ok, null]);
  t.same(states(set), ["4 insync 0", "2 insync 0", "3 insync 0"]);
  t.same(cluster.node(FOURTH).fills(0).slice(0, 2), [1, 2]);
});

void t.test("no member goes that the volume needs, and none comes twice", async (t) => {
  const { cluster, set } = threeOfFour(3);
  t.match(replace(set, FIRST, FOURTH).refusal, /not enough copies without n1/);
  t.match(replace(set, FOURTH, FIRST).refusal, /n4 is no member/);
  t.match(replace(set, FIRST, SECOND).refusal, /n2 is a member already/);
  cluster.pass(1000);
  t.same(states(set), ["1 insync 0", "2 insync 0", "3 insync 0"]);
});

void t.test("a member that comes to be needed stays", async (t) => {
  const { cluster, set } = threeOfFour();
  cluster.registerDown = true;
  const asked = replace(set, FIRST, FOURTH);
  cluster.pass(300);
  t.equal(asked.refusal, undefined, "it waits for the record");
  cluster.registerUp();
  cluster.pass(5000);
  t.equal(asked.refusal, null);
  cluster.node(SECOND).kill();
  cluster.node(SECOND).down = true;
  cluster.write(set, 0, 0, [1]);
  cluster.pass(3000);
  t.match(replace(set, FOURTH, FIRST).refusal, /not enough copies/);
  const after = cluster.write(set, 0, 1, [1]);
  cluster.pass(100);
  t.equal(after.status, Status.Ok);
});
