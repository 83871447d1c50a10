/** In which volumes a node may lack what it had not flushed when it lost power: the owner of each can put it right. */
import type { NodeId } from "../replica/api.js";
import type { ClusterRecord } from "../replica/owner/record.js";
import type { KnownVolume } from "./catalogue.js";

/** Volumes of which a node tells at a time. Further ones follow when those are well. */
export const LOSSES_MAX = 256;

export interface LossyNode {
  readonly node: NodeId;
  /** The device lost power, and not everything was put right yet. */
  readonly isLossy: boolean;
  isLossyIn(volume: number): boolean;
}

/** `records`: of the volumes that there are. Those without a seat on the node have no owner who would tell it. */
export function lossesOf(
  { node, isLossy, isLossyIn }: LossyNode,
  records: Iterable<ClusterRecord>,
): number[] {
  const losses: number[] = [];
  // Most devices have lost no power.
  if (!isLossy) return losses;
  for (const record of records) {
    if (losses.length >= LOSSES_MAX) break;
    if (isSeated(node, record) && isLossyIn(record.id)) losses.push(record.id);
  }
  return losses;
}

/**
 * Volumes of which nobody will ever ask the node what it may lack: a majority's record gives them no seat here, or calls them
 * removed. `known` was asked for in this life of the node, so a seat that one of them gives it later begins as stale since 0:
 * nothing that is here is believed.
 */
export function lossesOfNobody(
  { node, isLossy, isLossyIn }: LossyNode,
  known: Iterable<Pick<KnownVolume, "record" | "chosen">>,
): number[] {
  if (!isLossy) return [];
  return [...known].flatMap(({ record, chosen }) =>
    chosen && !isSeated(node, record) && isLossyIn(record.id) ? [record.id] : [],
  );
}

function isSeated(node: NodeId, { state, members }: ClusterRecord): boolean {
  return state === "live" && members.some((member) => member.node === node);
}
