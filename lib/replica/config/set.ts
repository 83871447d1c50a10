/**
 * Who the config nodes are, as a decision with a version (docs/architecture/replica.md "Changing the config nodes").
 * Version 1 is the set with which a cluster began; each later one differs from the one before by one node, and was
 * accepted by a majority of that one, in a record of its own beside those of volumes and devices.
 *
 * Invariants
 *  1. Two majorities that decide about one thing meet in a node that knows of both. Of two successive sets, they do
 *     because a node answers for one set at a time and goes from each to the next for good, and because one that
 *     joins votes only after it has copied what a majority of the set before had when it no longer answered for it.
 *  2. Who has a set with a version has the only one with it: it was chosen before anyone was told.
 *  3. A device that is not in the set does not vote, whatever address it answers at, and neither does one in it that
 *     lost what it had written: it is another device then.
 */
import { assert } from "../../core/assert.js";
import { VOLUME_ID_MAX } from "../../core/ids.js";
import type { NodeId } from "../api.js";
import { RECORD_PAYLOAD_MAX } from "../limits.js";

/** Key of the record that says who the config nodes are; no volume and no device has this number. */
export const CONFIG_SET_KEY = VOLUME_ID_MAX + 2;
/** Most config nodes of a set. */
export const CONFIG_NODES_MAX = 5;
/** History: 1 = first. A reader refuses what it does not know. */
const FORMAT = 1;
const PLACE_CHARS_MAX = 270;

export interface ConfigNode {
  readonly node: NodeId;
  /** Where it is reached, HOST:PORT; empty where nodes are found otherwise. */
  readonly place: string;
  /** Version of the set that it joined with. */
  readonly since: number;
}

export interface ConfigSet {
  /** 1, 2, … */
  readonly version: number;
  readonly nodes: readonly ConfigNode[];
  /** The nodes of the set before, from whom one that joins copies; empty in the first. */
  readonly before: readonly ConfigNode[];
}

/** How an asker keeps to the set, and what it learns of it. */
export interface SetFollower {
  readonly set: ConfigSet;
  /** A node has named another set. */
  heard(set: ConfigSet): void;
}

export function majorityOf(count: number): number {
  return Math.floor(count / 2) + 1;
}

export function isIn({ nodes }: ConfigSet, node: NodeId): boolean {
  return nodes.some((one) => one.node === node);
}

export function firstSet(nodes: readonly { readonly node: NodeId; readonly place: string }[]): ConfigSet {
  return { version: 1, nodes: nodes.map(({ node, place }) => ({ node, place, since: 1 })), before: [] };
}

/** The set that follows when `next` takes the place of `old`. */
export function replaced(
  set: ConfigSet,
  old: NodeId,
  next: { readonly node: NodeId; readonly place: string },
): ConfigSet {
  assert(isIn(set, old) && !isIn(set, next.node), "one of the set goes, and one that is not in it comes");
  const version = set.version + 1;
  const joined: ConfigNode = { node: next.node, place: next.place, since: version };
  return {
    version,
    nodes: set.nodes.map((one) => (one.node === old ? joined : one)),
    before: set.nodes,
  };
}

/** The set as it is written, as JSON. */
export function rawConfigSet(set: ConfigSet): object {
  return { format: FORMAT, ...set };
}

export function encodeConfigSet(set: ConfigSet): Uint8Array {
  const bytes = new TextEncoder().encode(JSON.stringify(rawConfigSet(set)));
  assert(bytes.length <= RECORD_PAYLOAD_MAX, "a set fits its record");
  return bytes;
}

/** Null: the bytes are no set. */
export function decodeConfigSet(bytes: Uint8Array): ConfigSet | null {
  let raw: unknown;
  try {
    raw = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return null;
  }
  return configSetOf(raw);
}

/** Null: it is none. */
export function configSetOf(raw: unknown): ConfigSet | null {
  if (!isFields(raw) || raw["format"] !== FORMAT) return null;
  const version = raw["version"];
  const nodes = nodesOf(raw["nodes"]);
  const before = nodesOf(raw["before"]);
  if (!isVersion(version) || nodes === null || nodes.length === 0 || before === null) return null;
  return { version, nodes, before };
}

function nodesOf(raw: unknown): readonly ConfigNode[] | null {
  if (!Array.isArray(raw) || raw.length > CONFIG_NODES_MAX) return null;
  const nodes = raw.map(nodeOf).filter((one) => one !== null);
  const ids = new Set(nodes.map(({ node }) => node));
  return nodes.length === raw.length && ids.size === raw.length ? nodes : null;
}

function nodeOf(raw: unknown): ConfigNode | null {
  if (!isFields(raw)) return null;
  const { node, place, since } = raw;
  if (typeof node !== "string" || !/^[0-9a-f]{32}$/.test(node)) return null;
  if (typeof place !== "string" || place.length > PLACE_CHARS_MAX || !isVersion(since)) return null;
  return { node, place, since };
}

type Fields = Readonly<
  Record<"format" | "version" | "nodes" | "before" | "node" | "place" | "since", unknown>
>;

function isFields(raw: unknown): raw is Fields {
  return typeof raw === "object" && raw !== null && !Array.isArray(raw);
}

function isVersion(raw: unknown): raw is number {
  return typeof raw === "number" && Number.isSafeInteger(raw) && raw > 0 && raw < 2 ** 32;
}
