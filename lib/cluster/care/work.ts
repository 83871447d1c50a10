/** What is left to do for the copies of a volume that is owned here. */
import type { Member } from "../../replica/owner/member.js";
import { PassStage } from "../../replica/owner/resync-pass.js";

export interface CareWork {
  /** Every copy that can be reached is in sync and lacks nothing, and nobody has what is another's. */
  readonly isDone: boolean;
  /** Extents, and copies that are not in sync yet; null: that is being found out. */
  readonly toGo: number | null;
}

type Seen = Pick<Member, "inSync" | "lossy" | "session" | "pass" | "surplus">;

/** `reconcile`: extents that wait for it. */
export function careWorkOf(members: readonly Seen[], reconcile: number): CareWork {
  let toGo = reconcile;
  let isKnown = true;
  for (const { inSync, lossy, session, pass, surplus } of members) {
    // Nothing can be done for one that is away.
    if (session === null) continue;
    if (inSync) {
      // What is not known is at least something to do.
      toGo += (surplus?.size ?? 1) + (lossy ? 1 : 0);
      continue;
    }
    toGo += 1 + (pass?.owed.size ?? 0);
    if (pass === null || pass.stage === PassStage.Listing) isKnown = false;
  }
  return { isDone: toGo === 0, toGo: isKnown ? toGo : null };
}
