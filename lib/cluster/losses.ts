/** In which volumes a node may lack what it had not flushed when it lost power: the owner of each can put it right. */
import type { ClusterRecord } from "../replica/owner/record.js";

/** Volumes of which a node tells at a time. Further ones follow when those are well. */
export const LOSSES_MAX = 256;

export interface LossyNode {
  readonly node: string;
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
  for (const { id, state, members } of records) {
    if (losses.length >= LOSSES_MAX) break;
    const isSeated = state === "live" && members.some((member) => member.node === node);
    if (isSeated && isLossyIn(id)) losses.push(id);
  }
  return losses;
}
