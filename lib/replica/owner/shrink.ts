/** Which members the next record takes out and in: the table "shrink" of docs/architecture/replica.md, as a function. */
import { Leaving, type Member } from "./member.js";
import { PassStage } from "./resync-pass.js";

export type RecordPlan =
  | { readonly kind: "none" }
  | { readonly kind: "change"; readonly leaving: readonly Member[]; readonly joining: readonly Member[] }
  /** Nobody is left that has everything. */
  | { readonly kind: "lost" };

export function planRecord(members: readonly Member[], minReplicas: number): RecordPlan {
  const inSync = members.filter(({ inSync: is }) => is);
  const joining = members.filter((member) => isFlushed(member));
  const wanting = inSync.filter(({ leaving }) => leaving !== null);
  const broken = inSync.filter(({ leaving }) => leaving === Leaving.Rebooted);
  if (broken.length === inSync.length && joining.length === 0) return { kind: "lost" };
  const leaving = leaversOf(inSync.length + joining.length, wanting, broken, minReplicas);
  if (leaving.length === 0 && joining.length === 0) return { kind: "none" };
  return { kind: "change", leaving, joining };
}

/**
 * All that want to go if enough stay; otherwise those that are not whole, because waiting does not make them so.
 * Never the last.
 */
function leaversOf(
  count: number,
  wanting: readonly Member[],
  broken: readonly Member[],
  minReplicas: number,
): readonly Member[] {
  if (count - wanting.length >= Math.max(1, minReplicas)) return wanting;
  return count - broken.length >= 1 ? broken : [];
}

function isFlushed({ inSync, pass, leaving }: Member): boolean {
  return !inSync && leaving === null && pass?.flushed === true && pass.stage === PassStage.Final;
}
