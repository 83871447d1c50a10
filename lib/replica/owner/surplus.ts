/** What a member has of extents that are others' now: it is to free them. */
import type { InventoryEntry } from "../api.js";
import type { Member } from "./member.js";

export interface ListHost {
  readonly volume: number;
  readonly epoch: number;
  readonly over: boolean;
  soon(): void;
}

/**
 * Reads the member's list; `visit` adds to the surplus what is. What a node knew to be stable it has forgotten with the session
 * before, so its hot extents are to be told again. A list that ends too early is read again at the next look.
 */
export function listSurplus(
  host: ListHost,
  member: Member,
  visit: (entry: InventoryEntry, surplus: Set<number>) => void,
): void {
  const { session } = member;
  member.surplus = null;
  member.listing = null;
  if (session === null || !member.ready) return;
  const surplus = new Set<number>();
  member.listing = surplus;
  session.inventory(
    host.volume,
    host.epoch,
    (entry) => visit(entry, surplus),
    (complete) => {
      if (member.listing !== surplus || host.over) return;
      member.listing = null;
      if (complete) member.surplus = surplus;
      host.soon();
    },
  );
}
