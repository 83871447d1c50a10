/** A change that waits for its turn meets a record that others have changed meanwhile. */
import t from "tap";
import { Edit } from "../../../lib/cluster/edit.js";
import { MIB } from "../../../lib/core/limits.js";
import { resized } from "../../../lib/volume/registry-base.js";
import { FakeCluster } from "../replica/support/fake-cluster.js";

t.test("growing less than somebody before it is refused, and the volume goes on", async (t) => {
  const cluster = new FakeCluster(3);
  const set = cluster.serve({ size: MIB });
  cluster.registerDown = true;
  const done: (number | null)[] = [];
  const ask = (size: number): Promise<void> =>
    new Edit((record) => resized(record, size)).made(
      set.record,
      (due) =>
        new Promise((resolve) => {
          set.amend(due, (record) => {
            done.push(record?.size ?? null);
            resolve();
          });
          cluster.pass(100);
        }),
    );
  const first = ask(3 * MIB);
  const second = ask(2 * MIB);
  t.same(done, [], "both wait for a majority");
  cluster.registerUp();
  cluster.pass(500);
  t.same(done, [3 * MIB, 3 * MIB]);
  await t.resolves(first);
  await t.rejects(second, { code: "VOLUME_SHRINK" });
  t.equal(set.record.size, 3 * MIB);
  t.notOk(set.over, "its owner goes on");
});

t.test("what is a mistake of the program stays one", async (t) => {
  const broken = new Edit((record) => {
    if (record.size > MIB) throw new TypeError("a mistake");
    return record;
  });
  const cluster = new FakeCluster(1);
  const [before, since] = [MIB, 2 * MIB].map((size) => ({ ...cluster.record(), size }));
  await t.rejects(
    broken.made(before!, async (due) => due(since!)),
    TypeError,
  );
});
