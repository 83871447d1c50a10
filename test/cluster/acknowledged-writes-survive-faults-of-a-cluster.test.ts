import t, { type Test } from "tap";
import { Chaos } from "./support/chaos.js";
import { Cluster, type ClusterOptions } from "./support/cluster.js";
import { networkMissing } from "./support/network.js";
import { SeededRandom } from "./support/random.js";
import { SCENES } from "./support/scenes/index.js";

const MIB = 1 << 20;
const VOLUME = "v";
const SIZE_MIB = 32;
const AWAY_MS_MAX = 2000;
const DISK_MIB = 128;

/** One after another, on one cluster. All scenes are played by scripts/chaos. */
async function play(t: Test, names: readonly string[], options: ClusterOptions): Promise<void> {
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  const cluster = await Cluster.start(3, 2, options);
  t.teardown(async () => cluster.dispose());
  await cluster.gateways[0]!.lamina("volume", "create", VOLUME, "--size", `${SIZE_MIB}M`);
  const random = new SeededRandom(seed);
  const sizeBytes = SIZE_MIB * MIB;
  const chaos = new Chaos({ cluster, volume: VOLUME, sizeBytes, random, awayMsMax: AWAY_MS_MAX });
  const { report } = chaos;
  for (const name of names) {
    await chaos.round(SCENES.find((scene) => scene.name === name)!);
    if (report.problems.length > 0) break;
  }
  if (report.problems.length === 0) await chaos.finish();
  t.same(report.problems, []);
  t.same(report.scenes, names);
  t.ok(report.acknowledgedWrites > 100, `${report.acknowledgedWrites} writes were acknowledged`);
  t.comment(JSON.stringify(report));
}

t.test("three nodes, two gateways, and processes that die and stand still under a verified load", (t) =>
  play(
    t,
    ["kill a node", "stop a node", "kill a gateway", "hand over", "stop a gateway", "kill all nodes"],
    {},
  ),
);

const missing = await networkMissing();
t.test(
  "networks that come apart, disks that fill and rot, and devices that are not what they were",
  missing === null ? {} : { skip: missing },
  (t) =>
    play(
      t,
      [
        "a node is not heard",
        "split the cluster",
        "fill a node's disk",
        "bytes rot under a node",
        "metadata rots",
        "swap two nodes",
        "an old backup comes back",
        "a stranger has the port",
      ],
      { isolated: true, diskMib: DISK_MIB },
    ),
);
