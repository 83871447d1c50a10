/**
 * Whether a volume's record leaves room. It is one page at each config node, and grows: numbers get longer, members are
 * added. One that fitted no more could not be changed at all then, not even to leave out a copy that has failed or to name
 * the gateway that takes the volume over.
 *
 * Invariant: what is let in fits its page whatever its numbers become, with as many members as there may be.
 */
import { RECORD_PAYLOAD_MAX } from "../replica/limits.js";
import {
  type ClusterRecord,
  encodeClusterRecord,
  MEMBERS_MAX,
  type MemberEntry,
} from "../replica/owner/record.js";
import { LONGEST_NUMBER as LONGEST, longestOf, refuseLonger } from "../volume/record-room.js";

const SOME_NODE = "f".repeat(32);
const LONGEST_MEMBER: MemberEntry = { node: SOME_NODE, state: "insync", since: LONGEST };

/** What people have put into the record, beside the longest that may be in it otherwise. */
function longest(record: ClusterRecord): ClusterRecord {
  return {
    ...longestOf(record),
    owner: { peer: LONGEST, node: SOME_NODE, incarnation: LONGEST, released: false, settled: false },
    members: Array.from({ length: MEMBERS_MAX }, () => LONGEST_MEMBER),
    seats: MEMBERS_MAX - 1,
  };
}

/** Throws RECORD_TOO_LARGE. */
export function refuseTooLarge(record: ClusterRecord): void {
  refuseLonger(record.name, encodeClusterRecord(longest(record)).length, RECORD_PAYLOAD_MAX);
}
