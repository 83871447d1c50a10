/** What nodes find by themselves is asked for and repaired, while nobody reads it. */
import t from "tap";
import { FakeCluster } from "./support/fake-cluster.js";

const CONTENT = [1, 2, 3, 4];
const ROUND_MS = 61_000;

function withContent(extents: number, nodes = 3): FakeCluster {
  const made = new FakeCluster(nodes);
  for (const node of made.nodes) {
    for (let extent = 0; extent < extents; extent++) node.put(extent, CONTENT, 1, false);
  }
  return made;
}

/** Extents with rot. */
function rotten(made: FakeCluster, node: number): number[] {
  return [...made.nodes[node]!.extents].filter(([, { rot }]) => rot.size > 0).map(([extent]) => extent);
}

t.test("rot that is there when the volume is opened, and rot that comes later", async (t) => {
  const made = withContent(7);
  for (const extent of [1, 3, 6]) made.nodes[0]!.extents.get(extent)!.rot.add(2);
  made.serve();
  made.pass(1000);
  t.same(rotten(made, 0), [6], "a page of two");
  made.nodes[1]!.extents.get(4)!.rot.add(0);
  made.pass(ROUND_MS);
  t.same(rotten(made, 0), []);
  t.same(rotten(made, 1), []);
  t.same(made.nodes[0]!.fills(6).slice(0, 4), CONTENT);
  t.same(made.seen, ["n1 repaired 1 of 1", "n1 repaired 1 of 3", "n1 repaired 1 of 6", "n2 repaired 1 of 4"]);
});

t.test("a node that cannot say is asked no sooner, and stays a member", async (t) => {
  const made = withContent(2);
  made.nodes[0]!.rottenPage = -1;
  made.nodes[0]!.extents.get(1)!.rot.add(2);
  const set = made.serve();
  made.pass(ROUND_MS);
  t.equal(made.nodes[0]!.rottenCalls, 2);
  t.same(rotten(made, 0), [1]);
  t.same(made.seen, []);
  t.equal(set.record.members[0]!.state, "insync");
});

t.test("what has no good copy is told once, until the record changes", async (t) => {
  const made = withContent(2, 2);
  for (const node of made.nodes) node.extents.get(1)!.rot.add(2);
  const set = made.serve();
  made.pass(3 * ROUND_MS);
  t.same([...made.seen].sort(), ["n1 cannot repair 1:2", "n2 cannot repair 1:2"]);
  made.nodes[1]!.extents.get(1)!.rot.clear();
  set.amend(
    (record) => record,
    () => undefined,
  );
  made.pass(ROUND_MS);
  t.same(rotten(made, 0), []);
});

t.test("nobody is taken out because a copy is wanted for it", async (t) => {
  const made = withContent(2);
  const set = made.serve();
  made.pass(1000);
  made.nodes[1]!.down = true;
  made.nodes[1]!.kill();
  made.nodes[0]!.extents.get(1)!.rot.add(2);
  made.pass(2 * ROUND_MS);
  t.equal(set.record.members[1]!.state, "insync");
  t.same(rotten(made, 0), [1]);
  made.nodes[1]!.down = false;
  made.pass(ROUND_MS);
  t.same(rotten(made, 0), []);
});
