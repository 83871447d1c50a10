/**
 * Faults in a cluster for as long as one likes: scripts/chaos [--rounds N] [--seed S] [--nodes N] [--gateways N]
 * [--size-mib N]. Ends with 1 as soon as something is wrong, and leaves the data behind for inspection.
 */
import { parseArgs } from "node:util";
import { Chaos, FAULTS } from "./support/chaos.js";
import { Cluster } from "./support/cluster.js";
import { SeededRandom } from "./support/random.js";

const MIB = 1 << 20;
const VOLUME = "v";
/** Beyond the silence after which a node is taken out, now and then. */
const STOPPED_MS_MAX = 8000;
const ROUNDS_BETWEEN_LINES = 10;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "200" },
      seed: { type: "string", default: String(Date.now() % 2 ** 31) },
      nodes: { type: "string", default: "3" },
      gateways: { type: "string", default: "2" },
      "size-mib": { type: "string", default: "64" },
    },
  });
  const seed = Number(values.seed);
  const random = new SeededRandom(seed);
  const cluster = await Cluster.start(Number(values.nodes), Number(values.gateways));
  console.log(`seed ${seed}, data ${cluster.directory}`);
  const size = Number(values["size-mib"]);
  await cluster.gateways[0]!.lamina("volume", "create", VOLUME, "--size", `${size}M`);
  const chaos = new Chaos(cluster, VOLUME, size * MIB, random, STOPPED_MS_MAX);
  const { report } = chaos;
  const rounds = Number(values.rounds);
  for (let round = 1; round <= rounds && report.problems.length === 0; round++) {
    await chaos.round(random.pick(FAULTS));
    if (round % ROUNDS_BETWEEN_LINES === 0 || report.problems.length > 0) {
      const { acknowledgedWrites, unfinishedRequests, checkedSectors } = report;
      console.log(
        `${round} rounds, ${acknowledgedWrites} writes, ${unfinishedRequests} cut off, ${checkedSectors} sectors read back`,
      );
    }
  }
  if (report.problems.length === 0) await chaos.finish();
  for (const problem of report.problems) console.log(problem);
  if (report.problems.length > 0) return 1;
  await cluster.dispose();
  console.log("nothing acknowledged is missing, nothing failed, and the copies are equal");
  return 0;
}

process.exitCode = await main();
