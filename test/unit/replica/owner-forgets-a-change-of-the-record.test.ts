import t from "tap";
import { ExtentOpKind } from "../../../lib/core/extent-io.js";
import { Status } from "../../../lib/core/status.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import { FakeCluster } from "./support/fake-cluster.js";

t.test("a change that people ask for is a chosen record of the next generation", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  const { size } = set.record;
  const told: (ClusterRecord | null)[] = [];
  cluster.registerDown = true;
  set.amend(
    (record) => ({ ...record, size: 2 * size }),
    (chosen) => told.push(chosen),
  );
  set.amend(
    (record) => ({ ...record, description: `was ${record.size}` }),
    (chosen) => told.push(chosen),
  );
  cluster.pass(1000);
  t.same(told, [], "not before it is chosen");
  cluster.registerUp();
  cluster.pass(1000);
  t.same(
    told.map((record) => [record?.generation, record?.size, record?.description]),
    [
      [2, 2 * size, ""],
      [3, 2 * size, `was ${2 * size}`],
    ],
  );
  t.equal(set.record.description, `was ${2 * size}`);
  t.same(
    cluster.chosen.map(({ generation }) => generation),
    [1, 2, 3],
  );
});

t.test("what is open while the record changes is answered", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  const slow = cluster.nodes[1]!;
  slow.script = () => "hold";
  const write = cluster.write(set, 0, 0, [4]);
  const flush = cluster.ask(set, ExtentOpKind.Flush, 0);
  cluster.engine.settle();
  let chosen: ClusterRecord | null = null;
  set.amend(
    (record) => ({ ...record, description: "meanwhile" }),
    (record) => {
      chosen = record;
    },
  );
  cluster.engine.settle();
  t.equal(set.record, chosen);
  t.same([write.status, flush.status], [-1, -1], "one of three has not answered");
  slow.script = () => null;
  slow.session!.answerHeld();
  cluster.engine.settle();
  t.same([write.status, flush.status], [Status.Ok, Status.Ok]);
  for (const { extents } of cluster.nodes)
    t.equal(extents.get(0)!.generation, 2, "stamped by the newer record");
});

t.test("an owner that is over says so to whoever wants a change", async (t) => {
  const cluster = new FakeCluster();
  const set = cluster.serve();
  const told: (ClusterRecord | null)[] = [];
  const want = (): void =>
    set.amend(
      (record) => record,
      (chosen) => told.push(chosen),
    );
  cluster.registerDown = true;
  want();
  cluster.engine.settle();
  set.learn(set.epoch);
  t.ok(!set.over, "its own epoch is no news");
  set.learn(set.epoch + 1);
  t.ok(set.over);
  t.equal(set.mayAnswer, false);
  want();
  t.same(told, [null, null]);
});

t.test(
  "a change that throws is its asker's mistake: he hears of it, and those behind him have their turn",
  async (t) => {
    const cluster = new FakeCluster();
    const set = cluster.serve();
    const mistake = new TypeError("a mistake");
    const told: unknown[] = [];
    set.amend(
      () => {
        throw mistake;
      },
      (chosen, why) => told.push(chosen, why),
    );
    set.amend(
      (record) => ({ ...record, description: "behind it" }),
      (chosen, why) => told.push(chosen?.description, why),
    );
    cluster.pass(1000);
    t.same(told, [null, mistake, "behind it", undefined]);
    t.equal(set.record.generation, 2, "nothing was proposed for the first");
    t.notOk(set.over);
  },
);
