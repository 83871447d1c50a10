/** Bounds of the node protocol. Each says what happens when it is reached. */
import { assert } from "../core/assert.js";
import { KIB, MIB, PIECE_BYTES } from "../core/limits.js";
import { RECORD_BYTES_MAX } from "../store/index.js";

/** Longest body of a message. A longer one ends the connection. */
export const BODY_BYTES_MAX = 32 * KIB;
/** Longest payload of a message: one piece. A longer one ends the connection. */
export const PAYLOAD_BYTES_MAX = PIECE_BYTES;

/** A payload is sent compressed when it, and a block of it before, shrinks to this share of its length or less. */
export const PACKED_SHARE_MAX = 7 / 8;

/** Buffer of a link for what it receives, and one for headers and bodies that it sends. */
export const LINK_BUFFER_BYTES = 64 * KIB;

/** Requests of a session that may be unanswered. At it operations wait at the asker; beyond, the session is cut. */
export const WINDOW_REQUESTS = 128;
/** Bytes of payload, in both directions, of unanswered requests; never below one piece. */
export const WINDOW_BYTES = 8 * MIB;
/** Control requests of a session that may be unanswered, beside the window. Beyond, the session is cut. */
export const CONTROL_REQUESTS_MAX = 64;

/** Sessions of a node. A further connection is closed at once. */
export const NODE_SESSIONS_MAX = 64;
/** A session that is not open by then ends. */
export const HELLO_DEADLINE_MS = 10_000;

/** Volumes of one Renew. Who serves more asks about the others with further ones. */
export const RENEW_VOLUMES_MAX = 1024;
/** Extents of one Stable. */
export const STABLE_MAX = 1024;
/** Extents of one page of an inventory. */
export const INVENTORY_PAGE = 500;
/** Extents with bad blocks that one answer names. Those behind them are asked for with the next question. */
export const ROTTEN_PAGE = 1024;
/** Extents of a volume whose stability a node keeps in mind before it forgets those that are cool. */
export const STABILITY_ENTRIES_MAX = 65_536;

/** Serving lease, counted from the sending of a renewal. */
export const LEASE_MS = 3000;
/** Time between two renewals. */
export const LEASE_RENEW_MS = 1000;
/** What a new owner waits, on its own clock, for every lease that an older one may have: LEASE_MS × 1.15. */
export const LEASE_WAIT_MS = 3450;
/** Most by which the rate of a clock may differ from true time, either way. */
export const CLOCK_DRIFT_MAX = 0.05;

/** Pause before the register asks a config node again. */
export const REGISTER_RETRY_MS = 250;
/** Pause before a device that is quarantined asks again what is registered. Each time the other copy has to say so. */
export const QUARANTINE_RETRY_MS = 30_000;
/** Pause before a lost node is dialled again. */
export const REDIAL_MS = 100;
/** A control session whose node owes an answer for so long is cut and dialled anew. */
export const SILENCE_MAX_MS = 2000;
/** Renewals to one config node that may be unanswered; no further ones are sent. */
export const RENEWALS_OPEN_MAX = 4;

/** Acceptor's own part of a record page; the rest is the record. */
export const ACCEPTOR_HEADER_BYTES = 64;
/** Longest volume record. */
export const RECORD_PAYLOAD_MAX = RECORD_BYTES_MAX - ACCEPTOR_HEADER_BYTES;

assert(WINDOW_BYTES >= PAYLOAD_BYTES_MAX, "the longest request fits an empty window");
assert(LINK_BUFFER_BYTES >= BODY_BYTES_MAX + 128, "a message without payload fits a link's buffer");
assert(RENEW_VOLUMES_MAX * 8 <= BODY_BYTES_MAX && STABLE_MAX * 12 <= BODY_BYTES_MAX, "lists fit a body");
assert(INVENTORY_PAGE * 32 <= BODY_BYTES_MAX, "a page of an inventory fits a body");
assert(ROTTEN_PAGE * 4 <= BODY_BYTES_MAX, "a page of extents fits a body");
assert(RECORD_PAYLOAD_MAX > 0 && RECORD_BYTES_MAX <= BODY_BYTES_MAX, "a record fits a body");
// A lease that was renewed at T on a slow clock has ended before the wait that began at T on a fast one.
assert(
  LEASE_MS / (1 - CLOCK_DRIFT_MAX) < LEASE_WAIT_MS / (1 + CLOCK_DRIFT_MAX),
  "the wait outlasts every lease",
);
