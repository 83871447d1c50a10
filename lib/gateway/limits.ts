/**
 * Bounds of the gateway that no other room relies on. Each says what happens when it is reached; relations
 * between them are asserted when this module loads.
 */
import { assert } from "../core/assert.js";
import { BLOCK_BYTES, KIB, MIB, PIECE_BYTES, REQUESTS_PER_CONNECTION_MAX } from "../core/limits.js";

/**
 * Pool memory that a connection owns from its first to its last byte: one page each for receiving, reply
 * headers, one piece of a write and one piece of a read. With it alone every request can be carried out,
 * 4 KiB at a time, whatever other connections hold. Without room for it a connection is refused.
 */
export const HOME_BYTES = 4 * BLOCK_BYTES;
export const HOME_RECEIVE = 0;
export const HOME_HEADERS = BLOCK_BYTES;
export const HOME_WRITE_PIECE = 2 * BLOCK_BYTES;
export const HOME_READ_PIECE = 3 * BLOCK_BYTES;

/** Part of the pool that the gateway may hold; the rest is for the rooms behind it. */
export const POOL_SHARE = 3 / 4;
/** Part of the gateway's memory that may be homes. A connection beyond it is closed at once. */
export const HOMES_SHARE = 1 / 2;

/** Largest receive buffer. A receive that fills the buffer makes the next one four times as large. */
export const RECEIVE_BYTES_MAX = 256 * KIB;
/** This many receives in a row that used less than a quarter of the buffer give it back. */
export const RECEIVE_SHRINK_AFTER = 256;
/** From here on the rest of a payload is received straight into its piece instead of being copied. */
export const DIRECT_RECEIVE_MIN = 32 * KIB;

/**
 * Bytes that one connection's reads may have in pieces, in the volume and not yet sent. At the bound no
 * further read is started: a slow reader keeps no more than this from others.
 */
export const UNSENT_BYTES_MAX = 32 * MIB;
/**
 * Requests of all connections in flight. A connection may have as many as are left over (and always one), so
 * the last are never taken by one; at the bound its socket is not read.
 */
export const REQUESTS_MAX = 32_768;
/** Answers to BLOCK_STATUS in the making, of all connections; further ones wait in their turn. */
export const MAPS_MAX = 8;

/**
 * A reply of one header for many pieces needs memory for all of them before the header. If that is not to
 * be had within this time, the reply is begun without: an error found later ends the connection (proto.md,
 * NBD_CMD_READ).
 */
export const WHOLE_REPLY_WAIT_MS = 1_000;
/**
 * A new connection of a volume waits so long for what older, dead ones have in the volume; it may wait for space
 * for ever. Then it goes on: the volume executes overlapping requests in the order of their submission anyway.
 */
export const ADMISSION_WAIT_MS = 5_000;
/**
 * Patience with others (an admission's, a handshake's) is counted in this many parts: one is all that a process which
 * was stopped meanwhile can miss.
 */
export const PATIENCE_STEPS = 10;
/** On shutdown, connections whose replies have not been taken by then are cut off. */
export const SHUTDOWN_GRACE_MS = 10_000;
/** When its right to the volume is withdrawn, a connection that does not take its replies by then is cut off. */
export const WITHDRAWAL_GRACE_MS = 10_000;
/** After its last reply a connection waits this long for the peer's end of stream before it is closed. */
export const LINGER_MS = 1_000;

/** Pieces of one `send`. */
export const GATHER_MAX = 512;
/** Zero bytes that stand in for holes in replies that cannot name holes. */
export const ZEROS_BYTES = 64 * KIB;
/** At most this many holes are named inside one piece; shorter ones are sent as zeros. */
export const HOLES_PER_PIECE_MAX = 16;

assert(RECEIVE_BYTES_MAX <= PIECE_BYTES, "a receive buffer is one pool buffer");
assert(DIRECT_RECEIVE_MIN <= RECEIVE_BYTES_MAX, "a direct receive saves a copy of a whole buffer");
assert(UNSENT_BYTES_MAX >= PIECE_BYTES, "one piece is always below the bound");
assert(REQUESTS_MAX > 4 * REQUESTS_PER_CONNECTION_MAX, "several connections reach their own bound");
// A piece without holes needs two entries; with them, one per data chunk and one per header between.
assert(2 * (2 * HOLES_PER_PIECE_MAX + 1) < GATHER_MAX, "the chunks of one piece fit one send");
