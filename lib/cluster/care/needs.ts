/**
 * Whether a volume that nobody has open needs somebody to open it for the sake of its copies, and whether that can do any
 * good now.
 *
 * Invariants
 *  1. What somebody owns who may live needs nobody.
 *  2. Nothing is a reason that opening the volume cannot put right: a copy whose node is away waits for its node.
 *  3. No copy that is in sync is given up for it: that is waited for, by name.
 */
import type { NodeId, PeerId } from "../../replica/api.js";
import { membersForChanges } from "../../replica/owner/holders.js";
import { type ClusterRecord, inSyncOf, isJoining } from "../../replica/owner/record.js";

/** What a node has said of its copy of a volume. */
export interface CopyReport {
  /** Extents with bad blocks. */
  readonly rotten: number;
  /** It may lack what it had not flushed when it lost power. */
  readonly lossy: boolean;
  /** Clock.now at which it was asked. */
  readonly heardAt: number;
}

export interface Surroundings {
  /** There is a session to the node. */
  isLinked(node: NodeId): boolean;
  /** No process of this id lives, or it is this one and does not have the volume open. */
  isGone(owner: PeerId, volume: number): boolean;
  /** Null: it has said nothing, or that all is well. */
  reportOf(node: NodeId, volume: number): CopyReport | null;
  nameOf(node: NodeId): string;
}

export interface Need {
  /** Why, for people; one or more. */
  readonly why: readonly string[];
  /** In-sync copies whose nodes are away: opening the volume now would make them stale. */
  readonly away: readonly string[];
  /** Without those there are enough copies to open it. */
  readonly isEnough: boolean;
  /** In-sync copies beyond those that changes need, of those that can be reached: the fewer, the more urgent. */
  readonly margin: number;
}

/** Null: nothing. `since`: what nodes have said before is not heeded. */
export function needOf(record: ClusterRecord, around: Surroundings, since: number): Need | null {
  const { owner } = record;
  if (record.state !== "live") return null;
  if (!owner.released && !around.isGone(owner.peer, record.id)) return null;
  const why = owner.released ? [] : ["its last gateway died with it"];
  why.push(...copiesToMend(record, around), ...ailmentsOf(record, around, since));
  if (why.length === 0) return null;
  const inSync = inSyncOf(record);
  const away = inSync.filter(({ node }) => !around.isLinked(node));
  const margin = inSync.length - away.length - membersForChanges(record);
  return { why, away: away.map(({ node }) => around.nameOf(node)), isEnough: margin >= 0, margin };
}

function copiesToMend(record: ClusterRecord, { isLinked, nameOf }: Surroundings): string[] {
  const joining = isJoining(record) ? record.members.at(-1) : undefined;
  return record.members.flatMap((member) => {
    if (member.state === "insync" || !isLinked(member.node)) return [];
    const node = nameOf(member.node);
    return [member === joining ? `a further seat on ${node} joins` : `the copy on ${node} is stale`];
  });
}

function ailmentsOf(record: ClusterRecord, around: Surroundings, since: number): string[] {
  return inSyncOf(record).flatMap(({ node }) => {
    const report = around.reportOf(node, record.id);
    if (report === null || report.heardAt < since) return [];
    const name = around.nameOf(node);
    return [
      ...(report.rotten > 0 ? [`${report.rotten} extent(s) on ${name} have bad blocks`] : []),
      ...(report.lossy ? [`${name} lost power`] : []),
    ];
  });
}
