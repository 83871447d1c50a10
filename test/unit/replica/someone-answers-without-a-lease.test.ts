import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { RecordAcceptor } from "../../../lib/replica/acceptor.js";
import type { LeasePeer } from "../../../lib/replica/api.js";
import { LeaseKeeper } from "../../../lib/replica/lease.js";
import {
  LEASE_MS,
  LEASE_RENEW_MS,
  RENEW_VOLUMES_MAX,
  RENEWALS_OPEN_MAX,
} from "../../../lib/replica/limits.js";
import { NodeCore } from "../../../lib/replica/node.js";
import type { MemberStore } from "../../../lib/store/api.js";
import { Engine } from "../store/support/engine.js";
import { NodeBench } from "./support/cluster.js";

/** Config nodes that answer when a test says so. */
class Grantors {
  readonly engine = new Engine(MIB);
  readonly open: { volumes: readonly number[]; done: (promised: readonly number[] | null) => void }[][];
  readonly told: [volume: number, epoch: number][] = [];
  volumes: number[] = [7];
  readonly keeper: LeaseKeeper;

  constructor(count: number) {
    this.open = Array.from({ length: count }, () => []);
    const peers = this.open.map(
      (asked): LeasePeer => ({ renew: (volumes, done) => asked.push({ volumes, done }) }),
    );
    this.keeper = new LeaseKeeper(this.engine, peers, {
      watched: () => this.volumes,
      promised: (volume, epoch) => this.told.push([volume, epoch]),
    });
  }

  /** Config node `i` answers its oldest open renewal; with null: it is not there. */
  answer(i: number, epoch: number | null = 0): void {
    const asked = this.open[i]!.shift()!;
    asked.done(epoch === null ? null : asked.volumes.map(() => epoch));
  }
}

t.test("a majority of answers makes a lease, counted from the sending of the renewals", async (t) => {
  const g = new Grantors(3);
  const mark = g.keeper.mark();
  g.keeper.start();
  t.notOk(g.keeper.holds(mark));
  g.engine.advance(900);
  g.answer(0);
  t.notOk(g.keeper.holds(mark), "one of three");
  g.answer(2);
  t.ok(g.keeper.holds(mark));
  g.engine.advance(LEASE_MS - 900 - 1);
  t.ok(g.keeper.holds(mark));
  g.engine.advance(1);
  t.notOk(g.keeper.holds(mark), "three seconds after the sending, not after the answer");
});

t.test("the oldest sending of the majority counts", async (t) => {
  const g = new Grantors(3);
  const mark = g.keeper.mark();
  g.keeper.start();
  g.answer(0);
  g.engine.advance(LEASE_RENEW_MS);
  g.answer(1);
  t.ok(g.keeper.holds(mark));
  g.answer(0);
  g.engine.advance(LEASE_MS - LEASE_RENEW_MS);
  t.notOk(g.keeper.holds(mark), "1 answered only what was sent at the beginning");
});

t.test("a renewal that did not ask about a volume gives no lease for it", async (t) => {
  const g = new Grantors(1);
  g.volumes = [];
  g.keeper.start();
  const mark = g.keeper.mark();
  g.volumes = [7];
  g.answer(0);
  t.notOk(g.keeper.holds(mark), "sent before the volume was served, answered after");
  g.keeper.renewNow();
  g.answer(0);
  t.ok(g.keeper.holds(mark));
});

t.test("a promise is told before the lease that came with it counts", async (t) => {
  const g = new Grantors(1);
  const mark = g.keeper.mark();
  g.keeper.start();
  g.answer(0, 9);
  t.same(g.told, [[7, 9]]);
  t.ok(g.keeper.holds(mark), "fencing is the gate's");
});

t.test(
  "a config node that is gone gives nothing, and one that is silent is not asked without end",
  async (t) => {
    const g = new Grantors(1);
    const mark = g.keeper.mark();
    g.keeper.start();
    g.answer(0, null);
    t.notOk(g.keeper.holds(mark));
    g.engine.advance(20 * LEASE_RENEW_MS);
    t.equal(g.open[0]!.length, RENEWALS_OPEN_MAX);
  },
);

t.test("whoever serves more volumes than a message names asks about all of them", async (t) => {
  const g = new Grantors(1);
  const last = 2 * RENEW_VOLUMES_MAX + 5;
  g.volumes = Array.from({ length: last }, (_, i) => i + 1);
  const mark = g.keeper.mark();
  g.keeper.start();
  g.engine.advance(900);
  const asked: number[] = [];
  for (let messages = 1; messages <= 3; messages++) {
    t.notOk(g.keeper.holds(mark), `${messages - 1} of three messages are answered`);
    t.equal(g.open[0]!.length, 1, "one is on its way at a time");
    t.ok(g.open[0]![0]!.volumes.length <= RENEW_VOLUMES_MAX);
    asked.push(...g.open[0]![0]!.volumes);
    g.answer(0, 9);
  }
  t.same(asked, g.volumes);
  t.equal(g.told.length, last);
  t.same(g.told.at(-1), [last, 9], "a promise of the last one is heard");
  t.ok(g.keeper.holds(mark));
  g.engine.advance(LEASE_MS - 900);
  t.notOk(g.keeper.holds(mark), "counted from the sending of the first message");
});

t.test("a node asks about every volume that it has let somebody in to", async (t) => {
  const bench = new NodeBench();
  const { store } = bench.machine;
  // A device of a test has no room for so many records.
  const records = {
    records: () => new Map(),
    putRecord: (_: number, __: unknown, done: (e: null) => void) => done(null),
  };
  const acceptor = new RecordAcceptor(records, { nameOf: () => null });
  const core = new NodeCore(
    { ...bench.link, store: store as MemberStore, stability: bench.stability, acceptor },
    { isConfig: true },
  );
  core.useLease(bench.lease);
  const count = RENEW_VOLUMES_MAX + 5;
  for (let volume = 1; volume <= count; volume++)
    core.promise(volume, { epoch: 2, owner: 3 }, () => undefined);
  bench.engine.settle();
  t.same(
    core.watched(),
    Array.from({ length: count }, (_, i) => i + 1),
  );
});

t.test("a renewal of which one message is lost gives no lease", async (t) => {
  const g = new Grantors(1);
  g.volumes = Array.from({ length: RENEW_VOLUMES_MAX + 1 }, (_, i) => i + 1);
  const mark = g.keeper.mark();
  g.keeper.start();
  g.answer(0);
  g.answer(0, null);
  t.notOk(g.keeper.holds(mark));
  t.equal(g.open[0]!.length, 0);
  g.keeper.renewNow();
  g.answer(0);
  g.answer(0);
  t.ok(g.keeper.holds(mark), "the next one does");
});

t.test("after stop nothing holds", async (t) => {
  const g = new Grantors(1);
  const mark = g.keeper.mark();
  g.keeper.start();
  g.answer(0);
  t.ok(g.keeper.holds(mark));
  g.keeper.stop();
  t.notOk(g.keeper.holds(mark));
});
