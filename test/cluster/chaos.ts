/**
 * Faults in a cluster for as long as one likes: scripts/chaos says how it is called. Ends with 1 as soon as something
 * is wrong, and leaves the data behind for inspection.
 */
import { parseArgs } from "node:util";
import { check } from "../interop/support/process.js";
import { LAMINA } from "../interop/support/server.js";
import { Chaos } from "./support/chaos.js";
import { Cluster } from "./support/cluster.js";
import { networkMissing } from "./support/network.js";
import { SeededRandom } from "./support/random.js";
import { SCENES } from "./support/scenes/index.js";
import type { Need, Scene } from "./support/scenes/scene.js";

const MIB = 1 << 20;
const VOLUME = "v";
/** Beyond the silence after which a node is taken out, now and then. */
const AWAY_MS_MAX = 8000;
/** Of a node's disk, where it is to be filled: metadata, and the volume with what is being freed. */
const DISK_OVER_VOLUME = 2;
const DISK_MIB_MORE = 64;
/** A cluster ends, is compared and begins anew after so many rounds. */
const ROUNDS_OF_A_CLUSTER = 40;

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
    scene: { type: "string", multiple: true, default: [] },
    nodes: { type: "string", default: "3" },
    gateways: { type: "string", default: "2" },
    "size-mib": { type: "string", default: "64" },
    loopback: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
  },
});

async function main(): Promise<number> {
  if (options.list) {
    for (const { name } of SCENES) console.log(name);
    return 0;
  }
  const unknown = options.scene.filter((name) => !SCENES.some((scene) => scene.name === name));
  if (unknown.length > 0) {
    console.error(`no such scene: ${unknown.join(", ")}; --list names them`);
    return 64;
  }
  const missing = options.loopback ? "asked for loopback" : await networkMissing();
  const isIsolated = missing === null;
  const has: Record<Need, boolean> = { network: isIsolated, disks: isIsolated, redis: await canMirror() };
  if (!isIsolated) console.log(`scenes of partitions and full disks are left out: ${missing}`);
  const scenes = SCENES.filter(
    ({ name, needs }) =>
      (needs === undefined || has[needs]) && (options.scene.length === 0 || options.scene.includes(name)),
  );
  if (scenes.length === 0) {
    console.error("nothing is left to do");
    return 1;
  }
  let left = Number(options.rounds);
  for (let seed = Number(options.seed); left > 0; seed++) {
    const rounds = Math.min(left, ROUNDS_OF_A_CLUSTER);
    if (!(await oneCluster(seed, rounds, scenes, has))) return 1;
    left -= rounds;
  }
  console.log("nothing acknowledged is missing, nothing failed, and the copies are equal");
  return 0;
}

/** Gateways of older builds (LAMINA_BIN) have no Redis. */
async function canMirror(): Promise<boolean> {
  return (await check(LAMINA, ["gateway", "--help"])).includes("--redis");
}

async function oneCluster(
  seed: number,
  rounds: number,
  scenes: readonly Scene[],
  { network: isolated, redis }: Readonly<Record<Need, boolean>>,
): Promise<boolean> {
  const random = new SeededRandom(seed);
  const sizeMib = Number(options["size-mib"]);
  const diskMib = sizeMib * DISK_OVER_VOLUME + DISK_MIB_MORE;
  const cluster = await Cluster.start(
    Number(options.nodes),
    Number(options.gateways),
    isolated ? { isolated, diskMib, redis } : { redis },
  );
  console.log(`seed ${seed}, data ${cluster.directory}`);
  await cluster.gateways[0]!.lamina(
    "volume",
    "create",
    VOLUME,
    "--size",
    `${sizeMib}M`,
    "--replicas",
    options.nodes,
  );
  const sizeBytes = sizeMib * MIB;
  const chaos = new Chaos({ cluster, volume: VOLUME, sizeBytes, random, awayMsMax: AWAY_MS_MAX });
  const { report } = chaos;
  for (let round = 1; round <= rounds && report.problems.length === 0; round++) {
    const scene = random.pick(scenes);
    const begun = Date.now();
    await chaos.round(scene);
    console.log(`${String(round).padStart(4)}  ${scene.name}  ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  }
  if (report.problems.length === 0) await chaos.finish();
  const { acknowledgedWrites, unfinishedRequests, checkedSectors } = report;
  console.log(
    `${acknowledgedWrites} writes, ${unfinishedRequests} requests cut off, ${checkedSectors} sectors read back`,
  );
  for (const problem of report.problems) console.log(problem);
  if (report.problems.length === 0) {
    await cluster.dispose();
    return true;
  }
  await cluster.stop();
  console.log(`again: ./scripts/chaos --seed ${seed} --rounds ${rounds}; what is left: ${cluster.directory}`);
  return false;
}

// What a failed scene has begun may still be at it.
process.exit(await main());
