import t from "tap";
import { Chaos, FAULTS } from "./support/chaos.js";
import { Cluster } from "./support/cluster.js";
import { SeededRandom } from "./support/random.js";

const MIB = 1 << 20;
const VOLUME = "v";
const SIZE_BYTES = 32 * MIB;
const STOPPED_MS_MAX = 2000;

t.test("three nodes, two gateways, and every fault under a verified load", async (t) => {
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  const cluster = await Cluster.start(3, 2);
  t.teardown(async () => cluster.dispose());
  await cluster.gateways[0]!.lamina("volume", "create", VOLUME, "--size", "32M");
  const chaos = new Chaos(cluster, VOLUME, SIZE_BYTES, new SeededRandom(seed), STOPPED_MS_MAX);
  const { report } = chaos;
  for (const fault of FAULTS) {
    await chaos.round(fault);
    if (report.problems.length > 0) break;
  }
  if (report.problems.length === 0) await chaos.finish();
  t.same(report.problems, []);
  t.ok(report.acknowledgedWrites > 100, `${report.acknowledgedWrites} writes were acknowledged`);
  t.comment(JSON.stringify(report));
});
