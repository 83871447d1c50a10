/**
 * Which nodes hold an extent: weighted rendezvous hashing (highest random weight) over failure domains. A pure
 * function of the extent, the nodes and their weights; what it says is recorded where extents are created, so a
 * different answer later moves nothing by itself.
 *
 * Invariants
 *  1. The full replica count or nothing, and never one node twice.
 *  2. Two replicas share a domain of some level only when that level has fewer domains than replicas; then the
 *     replicas are spread over its domains as evenly as the inner levels allow.
 *  3. A node that was not chosen can go, and a node that is not chosen can come, without any change.
 */
import { mix32 } from "../../core/checksum.js";
import type { NodeId } from "../api.js";

/** Levels of failure domains, from the outermost. */
export const DOMAIN_LEVELS = ["zone", "rack", "host"] as const;
export type DomainLevel = (typeof DOMAIN_LEVELS)[number];

export interface PlacementNode {
  readonly node: NodeId;
  /** Share that it should get, for example its free bytes. Nothing is placed where it is not above 0. */
  readonly weight: number;
  /** Labels by level. Nodes that share a label of a level fail together. */
  readonly domains: Readonly<Record<DomainLevel, string>>;
}

export interface Placement {
  readonly nodes: readonly NodeId[];
  /** Outermost level at which two replicas share a domain, because there are not enough; null: none do. */
  readonly shared: DomainLevel | null;
}

/** Null: fewer nodes than replicas can take an extent. */
export function place(
  volume: number,
  extent: number,
  replicas: number,
  nodes: readonly PlacementNode[],
): Placement | null {
  const left = nodes
    .filter(({ weight }) => weight > 0)
    .map((node) => ({ node, score: scoreOf(volume, extent, node) }));
  if (left.length < replicas) return null;
  const chosen: PlacementNode[] = [];
  while (chosen.length < replicas) {
    let best = 0;
    for (let i = 1; i < left.length; i++) {
      if (isBetter(left[i]!, left[best]!, chosen)) best = i;
    }
    chosen.push(left.splice(best, 1)[0]!.node);
  }
  return { nodes: chosen.map(({ node }) => node), shared: sharedLevel(chosen) };
}

interface Candidate {
  readonly node: PlacementNode;
  readonly score: number;
}

/** Fewest replicas in its zone so far, then in its rack, then on its host; then the higher score. */
function isBetter(a: Candidate, b: Candidate, chosen: readonly PlacementNode[]): boolean {
  const crowdA = crowdOf(a.node, chosen);
  const crowdB = crowdOf(b.node, chosen);
  for (let i = 0; i < DOMAIN_LEVELS.length; i++) {
    if (crowdA[i] !== crowdB[i]) return crowdA[i]! < crowdB[i]!;
  }
  if (a.score !== b.score) return a.score > b.score;
  return a.node.node < b.node.node;
}

/** By level: chosen nodes that share this node's domain. */
function crowdOf(node: PlacementNode, chosen: readonly PlacementNode[]): readonly number[] {
  return DOMAIN_LEVELS.map((_, depth) => chosen.filter((other) => sameDomain(node, other, depth)).length);
}

/** A domain is named by its labels from the outermost level on: two racks "1" of different zones are two. */
function sameDomain(a: PlacementNode, b: PlacementNode, depth: number): boolean {
  for (let i = 0; i <= depth; i++) {
    const level = DOMAIN_LEVELS[i]!;
    if (a.domains[level] !== b.domains[level]) return false;
  }
  return true;
}

function sharedLevel(chosen: readonly PlacementNode[]): DomainLevel | null {
  for (let depth = 0; depth < DOMAIN_LEVELS.length; depth++) {
    const crowded = chosen.some((a, i) => chosen.some((b, j) => i < j && sameDomain(a, b, depth)));
    if (crowded) return DOMAIN_LEVELS[depth]!;
  }
  return null;
}

/** w / −ln(u) with u uniform in (0, 1): the highest of them is a node's with probability w / Σw. */
function scoreOf(volume: number, extent: number, { node, weight }: PlacementNode): number {
  let hash = mix32(volume >>> 0) ^ Math.floor(volume / 2 ** 32);
  hash = mix32(hash ^ mix32(extent));
  for (let i = 0; i < node.length; i++) hash = mix32(hash + node.charCodeAt(i));
  const uniform = (hash + 0.5) / 2 ** 32;
  return weight / -Math.log(uniform);
}
