/** A further seat of a volume: it counts when it has everything, and nobody keeps what has become its own. */
import fc from "fast-check";
import t, { type Test } from "tap";
import { ExtentOpKind } from "../../../lib/core/extent-io.js";
import { Status } from "../../../lib/core/status.js";
import { Holders, membersForAll, membersForChanges } from "../../../lib/replica/owner/holders.js";
import { type PlacementNode, place } from "../../../lib/replica/owner/placement.js";
import { absenceMeansZeros, type ClusterRecord, seatsOf } from "../../../lib/replica/owner/record.js";
import type { ReplicaSet } from "../../../lib/replica/owner/replica-set.js";
import { FakeCluster, NODE_IDS } from "./support/fake-cluster.js";

const EXTENTS = 24;
const [FIRST, SECOND, THIRD, FOURTH] = NODE_IDS as [string, string, string, string];
const SEATS_MAX = 8;

/** Three members of four nodes, `replicas` copies of each extent. */
function threeOfFour(replicas = 3, minReplicas = 2): { cluster: FakeCluster; set: ReplicaSet } {
  const cluster = new FakeCluster(4);
  const record = cluster.record();
  const set = cluster.serve({
    policy: { ...record.policy, replicas, minReplicas },
    members: record.members.slice(0, 3),
    replicasMin: replicas,
  });
  return { cluster, set };
}

function grow(set: ReplicaSet, next: string): { refusal: string | null | undefined } {
  const asked: { refusal: string | null | undefined } = { refusal: undefined };
  set.grow(next, (refusal) => {
    asked.refusal = refusal;
  });
  return asked;
}

function fill(cluster: FakeCluster, set: ReplicaSet, add = 1): void {
  for (let extent = 0; extent < EXTENTS; extent++) cluster.write(set, extent, 0, [extent + add]);
  cluster.pass(200);
}

/** Whoever holds an extent has it, and nobody else. */
function copiesAreWhere(t: Test, cluster: FakeCluster, record: ClusterRecord, first = 1): void {
  const holders = new Holders(record);
  for (let extent = 0; extent < EXTENTS; extent++) {
    record.members.forEach(({ node }, seat) => {
      const fills = cluster.node(node).fills(extent)[0];
      const wanted = holders.holds(seat, extent) ? extent + first : 0;
      if (fills !== wanted) t.fail(`extent ${extent} at seat ${seat}: ${fills} instead of ${wanted}`);
      if (cluster.node(node).extents.has(extent) !== holders.holds(seat, extent))
        t.fail(`extent ${extent} at seat ${seat} is there although it is not its own, or is not`);
    });
  }
}

function endOf(cluster: FakeCluster, set: ReplicaSet): void {
  set.close(() => undefined);
  cluster.engine.settle();
}

function nextOwner(cluster: FakeCluster): ReplicaSet {
  const activating = cluster.activate(cluster.promisedEpoch + 1);
  cluster.pass(5000);
  return cluster.own(activating);
}

const seatDomains = fc.record({ zone: fc.nat(2), rack: fc.nat(1), host: fc.nat(2) });

void t.test("with one seat more an extent leaves at most one seat, for the new one", async () => {
  const isExchange = (
    volume: number,
    extent: number,
    replicas: number,
    labels: readonly { zone: number; rack: number; host: number }[],
  ): boolean => {
    const seats = labels.map(
      ({ zone, rack, host }, seat): PlacementNode => ({
        node: `seat ${seat}`,
        weight: 1,
        domains: { zone: `${zone}`, rack: `${rack}`, host: `${host}` },
      }),
    );
    const before = place(volume, extent, Math.min(replicas, seats.length - 1), seats.slice(0, -1))!.nodes;
    const after = place(volume, extent, Math.min(replicas, seats.length), seats)!.nodes;
    const came = after.filter((seat) => !before.includes(seat));
    const left = before.filter((seat) => !after.includes(seat));
    return left.length <= 1 && came.length <= 1 && came.every((seat) => seat === seats.at(-1)!.node);
  };
  fc.assert(
    fc.property(
      fc.nat(2 ** 40),
      fc.nat(2 ** 20),
      fc.integer({ min: 1, max: 5 }),
      fc.array(seatDomains, { minLength: 2, maxLength: SEATS_MAX }),
      isExchange,
    ),
    { numRuns: 3000 },
  );
});

void t.test("a seat that joins counts for nothing, and changes nothing for the others", async (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: SEATS_MAX - 1 }),
      fc.integer({ min: 1, max: 4 }),
      (seats, replicas) => {
        const base = new FakeCluster(4).record();
        const members = Array.from({ length: seats + 1 }, (_, i) => ({
          node: `${i}`.repeat(32),
          state: i === seats ? ("stale" as const) : ("insync" as const),
          since: 0,
        }));
        const policy = { ...base.policy, replicas, minReplicas: 1 };
        const before: ClusterRecord = { ...base, policy, members: members.slice(0, seats), replicasMin: 1 };
        const joining: ClusterRecord = { ...before, members, seats };
        const joined: ClusterRecord = { ...before, members };
        t.equal(membersForAll(joining), membersForAll(before));
        t.equal(membersForChanges(joining), membersForChanges(before));
        const all = new Set(members.slice(0, seats).map(({ node }) => node));
        t.ok(absenceMeansZeros(joining, all));
        const masks = [before, joining, joined].map((record) => new Holders(record));
        const followed = new Holders(joining);
        followed.follow(joined);
        for (let extent = 0; extent < 200; extent++) {
          const [was, while_, is] = masks.map((holders) => holders.mask(extent)) as [number, number, number];
          if ((while_ & ~(1 << seats)) !== was) t.fail(`extent ${extent} is elsewhere while a seat joins`);
          if ((while_ ^ is) >>> seats !== 0) t.fail(`extent ${extent} is, or is not, the further seat's`);
          if ((is & ~while_) !== 0) t.fail(`extent ${extent} comes to a seat that was given nothing of it`);
          if (followed.mask(extent) !== is) t.fail(`extent ${extent} is remembered from before`);
        }
      },
    ),
    { numRuns: 40 },
  );
});

void t.test("a further seat is given what is its own, and the others give that up", async (t) => {
  for (const replicas of [1, 2, 3]) {
    const { cluster, set } = threeOfFour(replicas, 1);
    fill(cluster, set);
    cluster.node(FOURTH).put(9, [99], 50, false);
    const asked = grow(set, FOURTH);
    cluster.pass(30);
    t.equal(asked.refusal, null);
    t.match(grow(set, FOURTH).refusal, /another seat is joining|a member already/);
    fill(cluster, set, 2);
    cluster.pass(8000);
    t.ok(cluster.seen.includes("n4 joined"));
    t.ok(
      cluster.chosen.some((record) => seatsOf(record) === 3 && record.members[3]?.state === "stale"),
      "first it is a seat that does not count",
    );
    t.equal(seatsOf(set.record), 4);
    t.same(set.work, { reconcile: 0, resync: 0, surplus: 0 });
    copiesAreWhere(t, cluster, set.record, 2);
    fill(cluster, set, 3);
    copiesAreWhere(t, cluster, set.record, 3);
  }
});

void t.test("a volume with fewer seats than copies gets a copy more of everything", async (t) => {
  const cluster = new FakeCluster(3);
  const record = cluster.record();
  const set = cluster.serve({
    policy: { ...record.policy, replicas: 3, minReplicas: 1 },
    members: record.members.slice(0, 2),
  });
  fill(cluster, set);
  grow(set, THIRD);
  cluster.pass(8000);
  t.equal(seatsOf(set.record), 3);
  copiesAreWhere(t, cluster, set.record);
});

void t.test("an owner that ends before the seat counts has a successor that goes on", async (t) => {
  const { cluster, set } = threeOfFour(2, 1);
  fill(cluster, set);
  const fourth = cluster.node(FOURTH);
  fourth.script = (op) => (op.kind === ExtentOpKind.Flush ? Status.LinkLost : null);
  grow(set, FOURTH);
  cluster.pass(5000);
  t.equal(seatsOf(set.record), 3, "without its final flush it does not count");
  for (const id of [FIRST, SECOND, THIRD])
    t.notOk(
      cluster.node(id).log.some((line) => line.startsWith("free")),
      "nobody gives anything up",
    );
  endOf(cluster, set);
  fourth.script = () => null;
  const next = nextOwner(cluster);
  t.equal(seatsOf(next.record), 3);
  cluster.pass(8000);
  t.equal(seatsOf(next.record), 4);
  copiesAreWhere(t, cluster, next.record);
});

void t.test(
  "what the others have not given up is found by the next owner, and counts for nothing",
  async (t) => {
    const { cluster, set } = threeOfFour(2, 1);
    fill(cluster, set);
    const old = [FIRST, SECOND, THIRD].map((id) => cluster.node(id));
    for (const node of old)
      node.script = (op) => (op.kind === ExtentOpKind.Free && op.blocks > 0 ? Status.Io : null);
    grow(set, FOURTH);
    cluster.engine.settle();
    const until = (): boolean => seatsOf(set.record) === 4 && set.record.members.length === 4;
    for (let i = 0; i < 400 && !until(); i++) cluster.engine.advance(10);
    t.ok(until(), "the seat counts");
    endOf(cluster, set);
    for (const node of old) node.script = () => null;
    const holders = new Holders(cluster.chosen.at(-1)!);
    const kept = old.flatMap((node, seat) =>
      [...node.extents.keys()].filter((one) => !holders.holds(seat, one)),
    );
    t.ok(kept.length > 0, "something is left");
    // What is left is old: nobody may take it for a copy.
    old.forEach((node, seat) => {
      for (const [extent, one] of node.extents) if (!holders.holds(seat, extent)) one.blocks[0]!.fill(255);
    });
    const next = nextOwner(cluster);
    cluster.pass(8000);
    t.same(next.work, { reconcile: 0, resync: 0, surplus: 0 });
    copiesAreWhere(t, cluster, next.record);
  },
);

void t.test("what one has that is another's now does not tell a returning member what exists", async (t) => {
  const { cluster, set } = threeOfFour(2, 1);
  fill(cluster, set);
  cluster.pass(2000);
  const three = [FIRST, SECOND, THIRD].map((id) => cluster.node(id));
  let isKept = true;
  for (const node of three)
    node.script = (op) =>
      op.kind === ExtentOpKind.Free && isKept && op.sequence > 0 && !isOwn(node.id, op.extent)
        ? "hold"
        : null;
  const isOwn = (id: string, extent: number): boolean =>
    new Holders(set.record).holds(NODE_IDS.indexOf(id), extent);
  grow(set, FOURTH);
  for (let i = 0; i < 400 && seatsOf(set.record) < 4; i++) cluster.engine.advance(10);
  t.equal(seatsOf(set.record), 4);
  const holders = new Holders(set.record);
  // An extent that one gives up too late, which another one of the three holds.
  const extent = Array.from({ length: EXTENTS }, (_, i) => i).find((one) =>
    three.some((node, seat) => node.extents.has(one) && !holders.holds(seat, one)),
  )!;
  const away = three.find((_, seat) => holders.holds(seat, extent))!;
  away.kill();
  away.down = true;
  const freed = cluster.ask(set, ExtentOpKind.Free, extent, 0, 8);
  cluster.pass(3500);
  t.equal(freed.status, Status.Ok);
  away.down = false;
  cluster.pass(4000);
  isKept = false;
  for (const node of three) node.session?.answerHeld();
  cluster.pass(8000);
  t.notOk(away.extents.has(extent), "it is gone with it");
  t.ok(set.members.every(({ inSync }) => inSync));
});

/** A write is open at who held the extent before, when a further seat comes to count; `first`: where to look for one. */
function writeAcross(t: Test, first: number): void {
  const { cluster, set } = threeOfFour(2, 1);
  fill(cluster, set);
  const holds = new Holders({ ...set.record, members: cluster.record().members });
  const extent = Array.from({ length: EXTENTS }, (_, i) => first + i).find((one) => holds.holds(3, one))!;
  const was = new Holders(set.record).mask(extent);
  const left = [0, 1, 2].find((seat) => ((was & ~holds.mask(extent)) >>> seat) & 1)!;
  const old = cluster.nodes[left]!;
  old.script = (op) => (op.kind === ExtentOpKind.Write && op.block === 3 ? "hold" : null);
  // The record is chosen while the old holder owes its answer.
  grow(set, FOURTH);
  cluster.engine.settle();
  cluster.registerDown = true;
  for (let i = 0; i < 400 && set.members[3]?.pass?.flushed !== true; i++) cluster.engine.advance(10);
  const written = cluster.write(set, extent, 3, [77]);
  cluster.engine.advance(100);
  t.equal(seatsOf(set.record), 3, "the record is on its way");
  cluster.registerUp();
  t.equal(seatsOf(set.record), 4);
  cluster.engine.advance(500);
  t.equal(written.status, -1, "its memory is the session's still");
  old.script = () => null;
  // What it let in before it has done by now, whatever it says.
  if (!old.extents.has(extent)) old.put(extent, [0, 0, 0, 77], 1, true);
  old.session!.answerHeld();
  cluster.pass(2000);
  t.equal(written.status, Status.Ok);
  t.equal(cluster.node(FOURTH).fills(extent)[3], 77);
  t.notOk(old.extents.has(extent), "given up after what was open");
  const read = cluster.read(set, extent, 3, 1);
  cluster.pass(50);
  t.same(read.fills, [77]);
}

void t.test(
  "a change that is open when the seat comes to count reaches who holds the extent then",
  async (t) => {
    writeAcross(t, 0);
  },
);

void t.test(
  "an extent that is made where it is not held any more, after the list was read, goes",
  async (t) => {
    writeAcross(t, EXTENTS);
  },
);

void t.test("a seat whose node is lost while it joins holds nobody up, and is given up", async (t) => {
  const { cluster, set } = threeOfFour(2, 1);
  fill(cluster, set);
  const fourth = cluster.node(FOURTH);
  fourth.script = (op) => (op.kind === ExtentOpKind.Flush ? "hold" : null);
  grow(set, FOURTH);
  for (let i = 0; i < 400 && set.members[3]?.pass?.isWaitedFor !== true; i++) cluster.engine.advance(10);
  t.ok(set.members[3]?.pass?.isWaitedFor, "it is about to count");
  const giveUp = (node: string): string | null | undefined => {
    let refusal: string | null | undefined;
    set.replace(node, null, (why) => {
      refusal = why;
    });
    cluster.pass(1000);
    return refusal;
  };
  t.match(giveUp(SECOND), /the seat of n2 counts/);
  const written = cluster.write(set, 0, 1, [5]);
  t.equal(giveUp(FOURTH), undefined, "it has a part of something");
  fourth.down = true;
  fourth.kill();
  cluster.pass(2000);
  t.equal(written.status, Status.Ok);
  t.same([set.record.members.length, seatsOf(set.record)], [3, 3]);
  fourth.down = false;
  fourth.script = () => null;
  cluster.pass(500);
  t.equal(fill(cluster, set, 2), undefined);
  copiesAreWhere(t, cluster, set.record, 2);
  t.equal(grow(set, FOURTH).refusal, undefined);
  cluster.pass(8000);
  t.equal(seatsOf(set.record), 4, "it may come again");
  copiesAreWhere(t, cluster, set.record, 2);
  t.match(giveUp(FOURTH), /the seat of n4 counts/);
});

void t.test("who cannot get a seat is told why", async (t) => {
  const { cluster, set } = threeOfFour();
  t.match(grow(set, SECOND).refusal, /n2 is a member already/);
  endOf(cluster, set);
  t.match(grow(set, FOURTH).refusal, /no owner here/);
});
