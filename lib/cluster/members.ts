/**
 * The config nodes of a cluster, as every process of it has written them down (`cluster.json` in its data directory):
 * which devices, where they listen, and which version of the set that is (lib/replica/config). A device that is not in
 * the set does not vote, whatever address it answers at.
 */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { LaminaError } from "../core/errors.js";
import type { NodeId } from "../replica/api.js";
import { type ConfigSet, isIn, rawConfigSet } from "../replica/config/set.js";
import { addressText } from "../uring/address.js";
import { parseDescription, placeSchema, setSchema, shortId } from "./description.js";
import type { NodeAddress, NodePlace } from "./dial.js";
import { askText, type DialEnvironment } from "./dial.js";
import type { ClusterKey } from "./key.js";
import { firstSetOf, placesOf } from "./places.js";
import { Purpose } from "./prelude.js";

const MEMBERS_FILE = "cluster.json";
/** History: 2 = a set with a version; 1 = the places of the first. A reader refuses what it does not know. */
const FORMAT = 2;

const fileSchema = z.union([
  z
    .object({ format: z.literal(1), cluster: z.string(), config: z.array(placeSchema).min(1) })
    .transform(({ cluster, config }) => ({ cluster, set: firstSetOf(config) })),
  z.object({ format: z.literal(FORMAT), cluster: z.string(), set: setSchema }),
]);

/** Null when nothing is written down yet. Throws CLUSTER_FILE_DAMAGED. */
export function readMembers(directory: string, key: ClusterKey): ConfigSet | null {
  const path = join(directory, MEMBERS_FILE);
  if (!existsSync(path)) return null;
  let file: z.infer<typeof fileSchema>;
  try {
    file = fileSchema.parse(JSON.parse(readFileSync(path, "utf8")));
  } catch (error) {
    throw new LaminaError("CLUSTER_FILE_DAMAGED", { path, what: (error as Error).message }, error);
  }
  const own = hex(key.cluster);
  if (file.cluster !== own)
    throw new LaminaError("CLUSTER_DEVICE_FOREIGN", { path, found: file.cluster, own });
  return file.set;
}

/** Whole or not at all. */
export function writeMembers(directory: string, key: ClusterKey, set: ConfigSet): void {
  const path = join(directory, MEMBERS_FILE);
  const file = { format: FORMAT, cluster: hex(key.cluster), set: rawConfigSet(set) };
  const text = `${JSON.stringify(file, null, 2)}\n`;
  writeFileSync(`${path}.new`, text, { mode: 0o600, flush: true });
  renameSync(`${path}.new`, path);
  const fd = openSync(directory, "r");
  fsyncSync(fd);
  closeSync(fd);
}

/** One attempt to learn who the config nodes are. */
export type Learned =
  | { readonly kind: "known"; readonly set: ConfigSet }
  /** Not now: who is missing, and why. */
  | { readonly kind: "missing"; readonly what: string };

interface Heard {
  readonly place: NodePlace;
  readonly set: ConfigSet | null;
}

/**
 * Asks the nodes at `addresses`, which are config nodes or were, and those that they name. The newest set that one has
 * written down counts when a majority of it has written it down; a new cluster's (`mayForm`) is made when every one of
 * them is there. Throws CLUSTER_NODE_STRANGE when they contradict one another, CLUSTER_KEY_WRONG.
 */
export async function learnMembers(
  environment: DialEnvironment,
  key: ClusterKey,
  addresses: readonly NodeAddress[],
  mayForm: boolean,
): Promise<Learned> {
  const { heard, missing } = await askAll(environment, key, addresses);
  const known = newestOf(heard);
  if (known !== null) {
    // Of those that it names some may not have been among the addresses, because they joined later.
    const others = placesOf(known)
      .filter(({ node }) => !heard.some(({ place }) => place.node === node))
      .map(({ address }) => address)
      .filter((address) => !addresses.some((one) => addressText(one) === addressText(address)));
    const more = await askAll(environment, key, others);
    heard.push(...more.heard);
    missing.push(...more.missing);
    return counted(heard, missing, newestOf(heard) ?? known, mayForm);
  }
  if (missing.length > 0) return { kind: "missing", what: missing.join("; ") };
  if (!mayForm) return { kind: "missing", what: "the nodes have not found one another yet" };
  const config = heard.map(({ place }) => place);
  if (new Set(config.map(({ node }) => node)).size < config.length)
    throw contradiction(addresses[0]!, "two of the addresses of --cluster are the same node");
  return { kind: "known", set: firstSetOf(config) };
}

function newestOf(heard: readonly Heard[]): ConfigSet | null {
  let newest: ConfigSet | null = null;
  for (const { set } of heard) {
    if (set !== null && (newest === null || set.version > newest.version)) newest = set;
  }
  return newest;
}

function counted(
  heard: readonly Heard[],
  missing: readonly string[],
  known: ConfigSet,
  mayForm: boolean,
): Learned {
  const written = heard.filter(({ set }) => set?.version === known.version);
  const lists = new Set(written.map(({ set }) => idsOf(set!.nodes)));
  const places = placesOf(known);
  if (lists.size > 1)
    throw contradiction(heard[0]!.place.address, "nodes have written down different config nodes");
  for (const { place } of heard) refuseStranger(place, places);
  const votes = written.filter(({ place }) => isIn(known, place.node)).length;
  const isWhole = mayForm && idsOf(heard.map(({ place }) => place)) === idsOf(known.nodes);
  if (votes > known.nodes.length / 2 || isWhole) return { kind: "known", set: known };
  return { kind: "missing", what: missing.join("; ") || "a majority has to write down the config nodes" };
}

async function askAll(
  environment: DialEnvironment,
  key: ClusterKey,
  addresses: readonly NodeAddress[],
): Promise<{ readonly heard: Heard[]; readonly missing: string[] }> {
  const asked = await Promise.allSettled(addresses.map((address) => askOne(environment, key, address)));
  const missing: string[] = [];
  const heard: Heard[] = [];
  asked.forEach((outcome, i) => {
    if (outcome.status === "fulfilled") heard.push(outcome.value);
    else if (outcome.reason instanceof LaminaError && outcome.reason.code === "CONNECT_REFUSED")
      missing.push(outcome.reason.message);
    else if (outcome.reason instanceof LaminaError) throw outcome.reason;
    else missing.push(`${addressText(addresses[i]!)} cannot be understood`);
  });
  return { heard, missing };
}

async function askOne(environment: DialEnvironment, key: ClusterKey, address: NodeAddress): Promise<Heard> {
  const { node, text } = await askText(environment, key, {
    address,
    purpose: Purpose.Describe,
    expected: null,
  });
  return { place: { node, address }, set: parseDescription(text).set };
}

/** A device in place of the one that the others know: wiped, or of another data directory. */
function refuseStranger({ node, address }: NodePlace, config: readonly NodePlace[]): void {
  if (config.some((one) => one.node === node)) return;
  const there = config.find((one) => addressText(one.address) === addressText(address));
  if (there === undefined) return;
  throw contradiction(address, `the cluster knows ${shortId(there.node)} there, and it is ${shortId(node)}`);
}

function contradiction(address: NodeAddress, what: string): LaminaError {
  return new LaminaError("CLUSTER_NODE_STRANGE", { address: addressText(address), what });
}

function idsOf(nodes: readonly { readonly node: NodeId }[]): string {
  return nodes
    .map(({ node }) => node)
    .sort()
    .join(" ");
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
