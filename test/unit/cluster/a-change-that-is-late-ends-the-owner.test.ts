/** A change that waits for its turn meets a record that others have changed meanwhile. */
import t from "tap";
import { Edit } from "../../../lib/cluster/edit.js";
import { MIB } from "../../../lib/core/limits.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import { resized } from "../../../lib/volume/registry-base.js";
import { FakeCluster } from "../replica/support/fake-cluster.js";

t.test("growing less than somebody before it is refused, and the volume goes on", async (t) => {
  const cluster = new FakeCluster(3);
  const set = cluster.serve({ size: MIB });
  cluster.registerDown = true;
  const done: (number | null)[] = [];
  const ask = (size: number): Edit => {
    const wanted = new Edit((record) => resized(record, size));
    t.doesNotThrow(() => wanted.of(set.record), "the record that is there has nothing against it");
    set.amend(
      (record) => wanted.whenDue(record),
      (record) => done.push(record?.size ?? null),
    );
    cluster.pass(100);
    return wanted;
  };
  const first = ask(3 * MIB);
  const second = ask(2 * MIB);
  t.same(done, [], "both wait for a majority");
  cluster.registerUp();
  cluster.pass(500);
  t.same(done, [3 * MIB, 3 * MIB]);
  t.doesNotThrow(() => first.throwRefusal());
  t.throws(() => second.throwRefusal(), { code: "VOLUME_SHRINK" });
  t.equal(set.record.size, 3 * MIB);
  t.notOk(set.over, "its owner goes on");
});

t.test("what is a mistake of the program stays one", async (t) => {
  const broken = new Edit(() => {
    throw new TypeError("a mistake");
  });
  const record: ClusterRecord = new FakeCluster(1).record();
  t.throws(() => broken.whenDue(record), TypeError);
  t.doesNotThrow(() => broken.throwRefusal());
});
