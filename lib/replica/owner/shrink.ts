/** Which members the next record takes out and in: the table "shrink" of docs/architecture/replica.md, as a function. */
import { Leaving, type Member } from "./member.js";
import { PassStage } from "./resync-pass.js";

export type RecordPlan =
  | { readonly kind: "none" }
  | { readonly kind: "change"; readonly leaving: readonly Member[]; readonly joining: readonly Member[] }
  /** Of some extent nobody is left that has everything. */
  | { readonly kind: "lost" };

/** What has to stay in sync (holders.ts): so that changes can be answered, and so that every extent has a copy. */
export interface Floor {
  readonly forChanges: number;
  readonly forAll: number;
}

/** `members`: those in seats that count. */
export function planRecord(members: readonly Member[], floor: Floor): RecordPlan {
  const inSync = members.filter(({ inSync: is }) => is);
  const joining = members.filter((member) => isFlushed(member));
  const wanting = inSync.filter(({ leaving }) => leaving !== null);
  const broken = inSync.filter(({ leaving }) => leaving === Leaving.Rebooted);
  const count = inSync.length + joining.length;
  if (broken.length > 0 && count - broken.length < floor.forAll) return { kind: "lost" };
  const leaving = leaversOf(count, wanting, broken, floor);
  if (leaving.length === 0 && joining.length === 0) return { kind: "none" };
  return { kind: "change", leaving, joining };
}

/**
 * All that want to go if enough stay; otherwise those that are not whole, because waiting does not make them so.
 * Never the last copy of any extent.
 */
function leaversOf(
  count: number,
  wanting: readonly Member[],
  broken: readonly Member[],
  floor: Floor,
): readonly Member[] {
  if (count - wanting.length >= floor.forChanges) return wanting;
  return count - broken.length >= floor.forAll ? broken : [];
}

/** Nothing is to do for it but the record that says so. */
export function isFlushed({ inSync, pass, leaving }: Member): boolean {
  return !inSync && leaving === null && pass?.flushed === true && pass.stage === PassStage.Final;
}
