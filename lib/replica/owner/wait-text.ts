/** Why a volume waits, in words for people: "volume v1 waits: 1 of 3 copies answers and 2 are needed; n2 down since 12:03:11". */
import type { FlightDeck } from "./flight-deck.js";
import { membersForChanges } from "./holders.js";
import type { Member } from "./member.js";
import { type ClusterRecord, seatsOf } from "./record.js";

export interface WaitView {
  readonly members: readonly Member[];
  readonly deck: FlightDeck;
  readonly enough: boolean;
  readonly over: boolean;
}

export function waitText(
  view: WaitView,
  record: ClusterRecord,
  hasLease: boolean,
  isProposing: boolean,
): string | null {
  const waits = view.deck.open > 0;
  if (view.over || !waits) return null;
  const reasons = reasonsOf(view, record, hasLease, isProposing);
  return reasons.length === 0 ? null : `volume ${record.name} waits: ${reasons.join("; ")}`;
}

function reasonsOf(
  view: WaitView,
  record: ClusterRecord,
  hasLease: boolean,
  isProposing: boolean,
): readonly string[] {
  const { members } = view;
  const reasons: string[] = [];
  if (!hasLease) reasons.push("no majority of the config nodes renews its lease");
  if (isProposing) reasons.push("a majority of the config nodes has to accept the member list");
  const answering = members.filter(({ inSync, usable }) => inSync && usable).length;
  const needed = membersForChanges(record);
  if (answering < needed)
    reasons.push(`${answering} of ${seatsOf(record)} copies can be used and ${needed} are needed`);
  for (const member of members) {
    const why = stateOf(member);
    if (why !== null) reasons.push(`${member.name} ${why}`);
  }
  return reasons;
}

function stateOf(member: Member): string | null {
  if (member.session === null) {
    const since = timeOf(member.goneWall);
    // Nothing waits for a copy that is stale: it is what the volume could go on with.
    return member.inSync ? `down since ${since}` : `stale and away since ${since}, resynced when it is back`;
  }
  if (member.leaving !== null) return `is to be taken out: ${member.leaving}`;
  if (member.pass !== null) return `is resynced, ${member.pass.owed.size} extents to go`;
  if (!member.ready) return "has not promised the epoch yet";
  if (member.inSync && member.lossy) return "has lost power, and may lack what the others have";
  return null;
}

function timeOf(wall: number): string {
  return new Date(wall).toISOString().slice(11, 19);
}
