/**
 * The config nodes of a cluster, as every process of it writes them down once (`cluster.json` in its data directory):
 * which devices, and where they listen. Their number never changes by itself: a device that is not in the list does
 * not vote, whatever address it answers at.
 */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { LaminaError } from "../core/errors.js";
import type { NodeId } from "../replica/api.js";
import { addressText } from "../uring/address.js";
import { parseDescription, placeSchema, shortId } from "./description.js";
import type { NodeAddress, NodePlace } from "./dial.js";
import { askText, type DialEnvironment } from "./dial.js";
import type { ClusterKey } from "./key.js";
import { Purpose } from "./prelude.js";

const MEMBERS_FILE = "cluster.json";
const FORMAT = 1;

const fileSchema = z.object({
  format: z.literal(FORMAT),
  cluster: z.string(),
  config: z.array(placeSchema).min(1),
});

/** Null when nothing is written down yet. Throws CLUSTER_FILE_DAMAGED. */
export function readMembers(directory: string, key: ClusterKey): readonly NodePlace[] | null {
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
  return file.config;
}

/** Whole or not at all. */
export function writeMembers(directory: string, key: ClusterKey, config: readonly NodePlace[]): void {
  const path = join(directory, MEMBERS_FILE);
  const text = `${JSON.stringify({ format: FORMAT, cluster: hex(key.cluster), config }, null, 2)}\n`;
  writeFileSync(`${path}.new`, text, { mode: 0o600, flush: true });
  renameSync(`${path}.new`, path);
  const fd = openSync(directory, "r");
  fsyncSync(fd);
  closeSync(fd);
}

/** One attempt to learn who the config nodes are. */
export type Learned =
  | { readonly kind: "known"; readonly config: readonly NodePlace[] }
  /** Not now: who is missing, and why. */
  | { readonly kind: "missing"; readonly what: string };

/**
 * Asks the nodes at `addresses`, which are all config nodes. A list that nodes have written down counts when a
 * majority of it says the same; a new cluster's (`mayForm`) is made when every one of them is there. Throws CLUSTER_NODE_STRANGE
 * when they contradict one another, CLUSTER_KEY_WRONG.
 */
export async function learnMembers(
  environment: DialEnvironment,
  key: ClusterKey,
  addresses: readonly NodeAddress[],
  mayForm: boolean,
): Promise<Learned> {
  const asked = await Promise.allSettled(addresses.map((address) => askOne(environment, key, address)));
  const missing: string[] = [];
  const heard: { readonly place: NodePlace; readonly config: readonly NodePlace[] | null }[] = [];
  asked.forEach((outcome, i) => {
    if (outcome.status === "fulfilled") heard.push(outcome.value);
    else if (outcome.reason instanceof LaminaError && outcome.reason.code === "CONNECT_REFUSED")
      missing.push(outcome.reason.message);
    else if (outcome.reason instanceof LaminaError) throw outcome.reason;
    else missing.push(`${addressText(addresses[i]!)} cannot be understood`);
  });
  const written = heard.flatMap(({ config }) => (config === null ? [] : [config]));
  const known = written[0];
  if (known !== undefined) {
    const lists = new Set(written.map(idsOf));
    if (lists.size > 1) throw contradiction(addresses[0]!, "nodes have written down different config nodes");
    for (const { place } of heard) refuseStranger(place, known);
    const isWhole = mayForm && idsOf(heard.map(({ place }) => place)) === idsOf(known);
    if (written.length > known.length / 2 || isWhole) return { kind: "known", config: known };
    return { kind: "missing", what: missing.join("; ") };
  }
  if (missing.length > 0) return { kind: "missing", what: missing.join("; ") };
  if (!mayForm) return { kind: "missing", what: "the nodes have not found one another yet" };
  const config = heard.map(({ place }) => place);
  if (new Set(config.map(({ node }) => node)).size < config.length)
    throw contradiction(addresses[0]!, "two of the addresses of --cluster are the same node");
  return { kind: "known", config };
}

async function askOne(
  environment: DialEnvironment,
  key: ClusterKey,
  address: NodeAddress,
): Promise<{ place: NodePlace; config: readonly NodePlace[] | null }> {
  const { node, text } = await askText(environment, key, {
    address,
    purpose: Purpose.Describe,
    expected: null,
  });
  return { place: { node, address }, config: parseDescription(text).config };
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

function idsOf(config: readonly NodePlace[]): string {
  return config
    .map(({ node }: { readonly node: NodeId }) => node)
    .sort()
    .join(" ");
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
