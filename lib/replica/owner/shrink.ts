/**
 * Which members the next record takes out and in: the table "shrink" of docs/architecture/replica.md, as a function.
 *
 * Invariants
 *  1. The last in-sync copy of an extent is never taken out.
 *  2. A member that may be whole is taken out only while enough of those that stay are known to be: each has answered
 *     something that it was asked since. A host that has lost its power says nothing, and its connection looks as before;
 *     the one that is gone may have all that this host lacks when it comes back.
 */
import { Leaving, type Member } from "./member.js";
import { PassStage } from "./resync-pass.js";

/** Reasons that pass; others are a failed device, or people who have decided. */
const PASSING: readonly (Leaving | null)[] = [Leaving.Gone, Leaving.Silent, Leaving.Full, Leaving.NoLease];

export interface MemberChange {
  readonly kind: "change";
  readonly leaving: readonly Member[];
  readonly joining: readonly Member[];
}

export type RecordPlan =
  | { readonly kind: "none" }
  | MemberChange
  /** These have to answer first something that they are asked since then (Clock.now). */
  | { readonly kind: "ask"; readonly members: readonly Member[]; readonly since: number }
  /** Of some extent nobody is left that has everything. */
  | { readonly kind: "lost" };

/** What has to stay in sync (holders.ts): so that changes can be answered, and so that every extent has a copy. */
export interface Floor {
  readonly forChanges: number;
  readonly forAll: number;
  /** Something is left to reconcile: a LOSSY member may lack what the others have. */
  readonly isInDoubt: boolean;
}

/** `members`: those in seats that count. */
export function planRecord(members: readonly Member[], floor: Floor): RecordPlan {
  const inSync = members.filter(({ inSync: is }) => is);
  const joining = members.filter((member) => isFlushed(member));
  const wanting = inSync.filter(({ leaving }) => leaving !== null);
  const broken = inSync.filter(({ leaving }) => leaving === Leaving.Rebooted);
  const count = inSync.length + joining.length;
  if (broken.length > 0 && count - broken.length < floor.forAll) return { kind: "lost" };
  const staying = [...inSync, ...joining].filter(({ leaving }) => leaving === null);
  const since = Math.max(...wanting.map(({ leavingAt }) => leavingAt));
  const isOther = wanting.length > broken.length;
  const silent = staying.filter(({ heardAt }) => isOther && heardAt < since);
  const good = staying.filter((member) => !silent.includes(member) && !mayLack(member, wanting, floor));
  // Waiting makes those that are not whole no better.
  const leaving = good.length >= floor.forChanges ? wanting : broken;
  if (leaving.length > 0 || joining.length > 0) return { kind: "change", leaving, joining };
  if (silent.length > 0 && staying.length >= floor.forChanges) return { kind: "ask", members: silent, since };
  return { kind: "none" };
}

/** It may come back with everything, while a LOSSY one still waits for what it lacks. */
function mayLack({ lossy }: Member, wanting: readonly Member[], { isInDoubt }: Floor): boolean {
  return lossy && isInDoubt && wanting.some(({ leaving }) => PASSING.includes(leaving));
}

/** Nothing is to do for it but the record that says so. */
export function isFlushed({ inSync, pass, leaving }: Member): boolean {
  return !inSync && leaving === null && pass?.flushed === true && pass.stage === PassStage.Final;
}
