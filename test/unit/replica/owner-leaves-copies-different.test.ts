/** What a reconcile finds unreadable or LOSSY is equal too before anything relies on it. */
import t from "tap";
import { ExtentOpKind } from "../../../lib/core/extent-io.js";
import { FakeCluster } from "./support/fake-cluster.js";

/** Members that differ in block 0 of extent 0, which is in doubt; those of `unreadable` cannot read it. */
function differing(fills: readonly number[], unreadable: readonly number[]): FakeCluster {
  const made = new FakeCluster(fills.length);
  made.nodes.forEach((node, i) => {
    node.put(0, [fills[i]!, 5], 1, true);
    if (unreadable.includes(i)) node.extents.get(0)!.rot.add(0);
  });
  made.serve({}, [0]);
  made.pass(500);
  return made;
}

for (const [name, fills, unreadable, result] of [
  ["the first source cannot read", [1, 9, 9], [0], 9],
  ["nor can the second", [1, 2, 9], [0, 1], 9],
  ["one of the others has the version of the source that cannot", [1, 9, 1], [0], 9],
  ["of two copies one can be read", [1, 9], [0], 9],
  ["a target cannot read what it is to lose", [1, 9, 1], [1], 1],
] as const) {
  t.test(`${name}: all copies are equal, and readable`, async (t) => {
    const made = differing(fills, unreadable);
    for (const node of made.nodes) {
      t.same(node.fills(0).slice(0, 2), [result, 5]);
      t.same([...node.extents.get(0)!.rot], []);
    }
  });
}

t.test("a flush is not answered while a member in sync lacks what its power loss took", async (t) => {
  const made = new FakeCluster(2);
  const [whole, lossy] = [made.nodes[0]!, made.nodes[1]!];
  whole.put(0, [9], 1, true);
  lossy.put(0, [1], 1, true);
  lossy.lossy = true;
  whole.script = (op) => (op.kind === ExtentOpKind.Map ? "hold" : null);
  const set = made.serve({}, [0]);
  const flush = made.ask(set, ExtentOpKind.Flush, 0);
  made.pass(500);
  t.equal(flush.status, -1);
  whole.script = () => null;
  whole.session!.answerHeld();
  made.pass(500);
  t.equal(flush.status, 0);
  t.equal(lossy.durable.get(0)!.blocks[0]![0], 9);
});
