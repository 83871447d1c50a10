import t from "tap";
import { type CopyReport, needOf } from "../../../lib/cluster/care/needs.js";
import { NodeReports } from "../../../lib/cluster/care/reports.js";
import { careWorkOf } from "../../../lib/cluster/care/work.js";
import type { NodeDescription } from "../../../lib/cluster/description.js";
import { LOSSES_MAX, lossesOf, lossesOfNobody } from "../../../lib/cluster/losses.js";
import type { Member } from "../../../lib/replica/owner/member.js";
import type { ClusterRecord, MemberEntry } from "../../../lib/replica/owner/record.js";
import { ResyncPass } from "../../../lib/replica/owner/resync-pass.js";

interface Case {
  readonly members?: readonly string[];
  readonly seats?: number;
  readonly state?: "live" | "removed";
  readonly owner?: "released" | "lives" | "gone";
  readonly away?: readonly string[];
  readonly replicas?: number;
  readonly minReplicas?: number;
  readonly reports?: Readonly<Record<string, CopyReport>>;
  readonly since?: number;
}

function entryOf(text: string): MemberEntry {
  return text.endsWith("!")
    ? { node: text.slice(0, -1), state: "stale", since: 4 }
    : { node: text, state: "insync", since: 0 };
}

/** Members are named like "n1", stale ones "n1!". */
function needFor(of: Case) {
  const members = (of.members ?? ["n1", "n2", "n3"]).map(entryOf);
  const record = {
    id: 7,
    name: "v",
    state: of.state ?? "live",
    policy: { replicas: of.replicas ?? 3, minReplicas: of.minReplicas ?? 2 },
    owner: { peer: 5, node: null, incarnation: 0, released: (of.owner ?? "released") === "released" },
    members,
    ...(of.seats === undefined ? {} : { seats: of.seats }),
    replicasMin: 3,
  } as unknown as ClusterRecord;
  const away = of.away ?? [];
  const around = {
    isLinked: (node: string) => !away.includes(node),
    isGone: (owner: number, volume: number) => of.owner === "gone" && owner === 5 && volume === 7,
    reportOf: (node: string) => of.reports?.[node] ?? null,
    nameOf: (node: string) => node,
  };
  return needOf(record, around, of.since ?? 0);
}

t.test("a volume whose copies are all whole needs nobody", (t) => {
  t.equal(needFor({}), null);
  t.equal(
    needFor({ away: ["n2"] }),
    null,
    "nor one whose node is away: nothing can be done before it is back",
  );
  t.equal(needFor({ members: ["n1", "n2", "n3!"], away: ["n3"] }), null, "nor one whose stale copy is");
  t.equal(needFor({ members: ["n1", "n2", "n3!"], state: "removed" }), null);
  t.end();
});

t.test("a stale copy whose node is there does, and a seat that joins", (t) => {
  t.same(needFor({ members: ["n1", "n2", "n3!"] }), {
    why: ["the copy on n3 is stale"],
    away: [],
    isEnough: true,
    margin: 0,
  });
  t.same(needFor({ members: ["n1", "n2", "n3", "n4!"], seats: 3 })?.why, ["a further seat on n4 joins"]);
  t.equal(needFor({ members: ["n1", "n2", "n3", "n4!"], seats: 3 })?.margin, 1);
  t.end();
});

t.test("what somebody owns who may live is his", (t) => {
  const members = ["n1", "n2", "n3!"];
  t.equal(needFor({ members, owner: "lives" }), null);
  t.same(needFor({ members, owner: "gone" })?.why, [
    "its last gateway died with it",
    "the copy on n3 is stale",
  ]);
  t.same(needFor({ owner: "gone" })?.why, ["its last gateway died with it"]);
  t.end();
});

t.test("what its nodes tell counts, of copies that are in sync, and not what they told long ago", (t) => {
  const reports = { n2: { rotten: 3, lossy: false, heardAt: 100 } };
  t.same(needFor({ reports })?.why, ["3 extent(s) on n2 have bad blocks"]);
  t.same(needFor({ reports: { n1: { rotten: 0, lossy: true, heardAt: 100 } } })?.why, ["n1 lost power"]);
  t.equal(needFor({ reports, members: ["n1", "n2!", "n3"], away: ["n2"] }), null, "resync brings the other");
  t.equal(needFor({ reports, since: 101 }), null);
  t.ok(needFor({ reports, since: 100 }));
  t.end();
});

t.test("copies in sync whose nodes are away are named, and whether the others are enough", (t) => {
  const three = needFor({ members: ["n1", "n2", "n3!"], away: ["n2"] });
  t.match(three, { away: ["n2"], isEnough: false, margin: -1 });
  t.match(needFor({ members: ["n1", "n2", "n3!"], away: ["n2"], minReplicas: 1 }), { isEnough: true });
  t.match(needFor({ members: ["n1!", "n2!", "n3!"] }), { isEnough: false }, "an operator has to decide");
  t.end();
});

function memberOf(of: Partial<Member>): Member {
  const session = {} as Member["session"];
  return { inSync: true, lossy: false, session, pass: null, surplus: new Set(), ...of } as Member;
}

t.test("work is done when every copy that can be reached lacks nothing", (t) => {
  const whole = memberOf({});
  t.same(careWorkOf([whole, whole], 0), { isDone: true, toGo: 0 });
  t.same(careWorkOf([whole, whole], 2), { isDone: false, toGo: 2 });
  t.equal(careWorkOf([whole, memberOf({ surplus: null })], 0).isDone, false, "what it has is not known yet");
  t.same(careWorkOf([whole, memberOf({ surplus: new Set([1, 2]) })], 0), { isDone: false, toGo: 2 });
  t.same(careWorkOf([whole, memberOf({ lossy: true })], 0), { isDone: false, toGo: 1 });
  t.same(careWorkOf([whole, memberOf({ inSync: false })], 0), { isDone: false, toGo: null });
  t.same(careWorkOf([whole, memberOf({ inSync: false, session: null })], 0), { isDone: true, toGo: 0 });
  const pass = new ResyncPass();
  t.equal(careWorkOf([whole, memberOf({ inSync: false, pass })], 0).toGo, null, "its lists are being read");
  pass.listed(0, [{ layer: 0, extent: 3, generation: 1, created: 1, hot: false }], []);
  t.same(careWorkOf([whole, memberOf({ inSync: false, pass })], 0), { isDone: false, toGo: 2 });
  pass.owed.clear();
  t.same(
    careWorkOf([whole, memberOf({ inSync: false, pass })], 0),
    { isDone: false, toGo: 1 },
    "not flushed",
  );
  t.end();
});

t.test(
  "a node tells where it may lack something, of volumes that have a seat on it, and of so many only",
  (t) => {
    const members = [{ node: "n1", state: "insync", since: 0 }];
    const records = Array.from({ length: 2 * LOSSES_MAX }, (_, i) => {
      const state = i === 5 ? "removed" : "live";
      return { id: i, state, members: i === 6 ? [] : members } as unknown as ClusterRecord;
    });
    const isLossyIn = (id: number) => id >= 4 && id < 8;
    t.same(lossesOf({ node: "n1", isLossy: true, isLossyIn }, records), [4, 7]);
    t.same(lossesOf({ node: "n2", isLossy: true, isLossyIn }, records), []);
    t.same(lossesOf({ node: "n1", isLossy: false, isLossyIn }, records), []);
    t.equal(lossesOf({ node: "n1", isLossy: true, isLossyIn: () => true }, records).length, LOSSES_MAX);
    t.end();
  },
);

t.test("what is lacked of a volume without a seat here is nobody's, once a majority says so", async (t) => {
  const record = (id: number, node: string, state = "live") =>
    ({ id, state, members: [{ node, state: "stale", since: 0 }] }) as unknown as ClusterRecord;
  const known = [
    { record: record(1, "n1"), chosen: true },
    { record: record(2, "n2"), chosen: true },
    { record: record(3, "n2"), chosen: false },
    { record: record(4, "n1", "removed"), chosen: true },
    { record: record(5, "n2"), chosen: true },
  ];
  const lossy = { node: "n1", isLossy: true, isLossyIn: (id: number) => id !== 5 };
  t.same(lossesOfNobody(lossy, known), [2, 4]);
  t.same(lossesOfNobody({ ...lossy, isLossy: false }, known), []);
});

t.test("what nodes tell is of their last answer", async (t) => {
  let said: Partial<NodeDescription> | null = { rot: [{ volume: 7, blocks: 9, extents: 2 }], losses: [7, 8] };
  const reports = new NodeReports({
    now: () => 50,
    describe: () => Promise.resolve(said as NodeDescription),
  });
  const place = { node: "n1", address: { kind: "tcp", host: "h", port: 1 } } as const;
  await reports.refresh([place]);
  t.same(reports.reportOf("n1", 7), { rotten: 2, lossy: true, heardAt: 50 });
  t.same(reports.reportOf("n1", 8), { rotten: 0, lossy: true, heardAt: 50 });
  t.equal(reports.reportOf("n1", 9), null);
  t.equal(reports.reportOf("n2", 7), null);
  said = null;
  await reports.refresh([place]);
  t.equal(reports.reportOf("n1", 7), null, "one that does not answer has said nothing");
});
