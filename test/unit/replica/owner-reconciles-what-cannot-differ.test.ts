/** Hand-over in order: nothing is compared again, and everything is as soon as anything might differ. */
import t from "tap";
import type { ReplicaSet } from "../../../lib/replica/owner/replica-set.js";
import { FakeCluster } from "./support/fake-cluster.js";

const CONTENT = [1, 2, 3, 4];
const CHANGED = [9, 2, 3, 4];

/** One hot extent, equal everywhere, that an owner has written and let go of. */
function handedOver(nodes = 3): FakeCluster {
  const made = new FakeCluster(nodes);
  for (const node of made.nodes) node.put(0, CONTENT, 1, false);
  const set = made.serve();
  made.write(set, 0, 0, [9]);
  made.engine.settle();
  letGo(made, set);
  return made;
}

function letGo(made: FakeCluster, set: ReplicaSet): void {
  let released: boolean | null = null;
  set.release((done) => {
    released = done;
  });
  made.engine.settle();
  if (released !== true) throw new Error("not released");
  set.close(() => undefined);
}

t.test(
  "after an order to let go hot extents answer at once, are not stamped, and become stable",
  async (t) => {
    const made = handedOver();
    t.same(
      made.nodes.map((node) => node.extents.get(0)!.hot),
      [true, true, true],
    );
    t.equal(made.chosen.at(-1)!.owner.settled, true);
    const set = made.own(made.activate(3));
    t.equal(made.chosen.at(-1)!.owner.settled, undefined, "true of one release");
    t.equal(set.work.reconcile, 0);
    const read = made.read(set, 0, 0, 4);
    made.engine.settle();
    t.same(read.fills, CHANGED);
    const { generation } = made.chosen.at(-1)!;
    made.pass(1500);
    for (const node of made.nodes) {
      t.ok(node.extents.get(0)!.generation < generation);
      t.equal(node.extents.get(0)!.hot, false, "its owner told that it is stable");
    }
  },
);

t.test("a member that lost power since is compared with the others", async (t) => {
  const made = handedOver();
  const last = made.nodes[2]!;
  last.put(0, CONTENT, 1, true);
  last.lossy = true;
  last.kill();
  made.connect();
  const set = made.own(made.activate(3));
  made.pass(500);
  t.same(last.fills(0).slice(0, 4), CHANGED);
  t.equal(last.lossy, false);
  t.same(set.record.members[2]!.state, "insync");
});

t.test("a member that does not take part: the others are compared", async (t) => {
  const made = handedOver();
  made.nodes[2]!.down = true;
  made.nodes[2]!.kill();
  made.connect();
  const activating = made.activate(3);
  made.pass(1500);
  const set = made.own(activating);
  made.pass(500);
  t.equal(made.nodes[0]!.extents.get(0)!.generation, set.generation, "stamped");
});

t.test("who lets go with something left to reconcile does not say that nothing differs", async (t) => {
  const made = new FakeCluster(3);
  for (const node of made.nodes) node.put(0, CONTENT, 1, true);
  for (const node of made.nodes) node.put(1, CONTENT, 1, true);
  made.nodes[1]!.put(1, CHANGED, 1, true);
  made.nodes[1]!.script = () => "hold";
  const set = made.serve({}, [0, 1]);
  let released = false;
  set.release((done) => {
    released = done;
  });
  made.engine.settle();
  t.equal(released, false, "a piece of work is brought to its end");
  made.nodes[1]!.script = () => null;
  made.nodes[1]!.session!.answerHeld();
  made.engine.settle();
  t.equal(released, true, "the next one is not begun");
  t.not(made.chosen.at(-1)!.owner.settled, true);
  set.close(() => undefined);
  const next = made.own(made.activate(3));
  made.pass(500);
  t.equal(next.work.reconcile, 0);
  t.same(made.nodes[1]!.fills(1), made.nodes[0]!.fills(1));
});

t.test("who lets go with a LOSSY member does not say that nothing differs", async (t) => {
  const made = new FakeCluster(3);
  made.nodes[0]!.lossy = true;
  made.nodes[0]!.down = true;
  const set = made.serve();
  letGo(made, set);
  t.not(made.chosen.at(-1)!.owner.settled, true);
});

t.test("an extent that one member lacks is in doubt, whatever the record says", async (t) => {
  const made = handedOver();
  made.nodes[1]!.extents.delete(0);
  made.connect();
  const set = made.own(made.activate(3));
  made.pass(500);
  t.same(made.nodes[1]!.fills(0).slice(0, 4), CHANGED);
  t.equal(set.work.reconcile, 0);
});
