/** Bounds and times of a volume's owner. Each says what happens when it is reached. */
import { assert } from "../../core/assert.js";
import { EXTENT_OP_BLOCKS_MAX } from "../../core/extent-io.js";
import { LEASE_MS } from "../limits.js";

/** A member whose connection is gone has so long to come back before it is taken out, if anybody waits for it. */
export const RECONNECT_GRACE_MS = 1000;
/** A member that owes an answer and says nothing for so long is cut, and taken out. */
export const SILENCE_MAX_MS = 5000;
/** How often an owner looks at its members, its lease and what waits. */
export const SUPERVISE_MS = 250;
/** Looks between the last change of an extent and its Stable: half a second of idleness. */
export const STABLE_AFTER_LOOKS = 2;
/** Pause before a node whose promise is not known is asked again. */
export const PROMISE_RETRY_MS = 250;
/**
 * Pause before a new epoch is tried after a refusal, and as much again by chance; doubled with every further one,
 * because each try fences another that may just be waiting for leases.
 */
export const ACTIVATION_PAUSE_MS = 500;
export const ACTIVATION_PAUSE_MAX_MS = 32_000;
/** Blocks that are compared and copied at a time: one buffer of each owner. */
export const COPY_BLOCKS = 64;
/** Extents of which bad blocks wait to be repaired. More are forgotten: the next read finds them again. */
export const REPAIRS_MAX = 1024;
/** How often an in-sync member is asked which bad blocks it has found by itself; once more in each new session. */
export const ROT_ROUND_MS = 60_000;
/** An extent with blocks of which no copy was good is not looked at again before that, under the same record. */
export const ROT_RETRY_MS = 60 * 60_000;
/** Pause before resync looks again at an extent of which no in-sync copy has all blocks. */
export const UNREADABLE_RETRY_MS = 10_000;
/** Longest pause that resync makes after an extent while others use the volume. */
export const RESYNC_PAUSE_MAX_MS = 50;

/**
 * Write sequences of an epoch begin at epoch × this, or behind the highest that a node names: they rise over
 * epochs, whatever an old owner has used up.
 */
export const SEQUENCES_PER_EPOCH = 2 ** 34;

assert(COPY_BLOCKS <= EXTENT_OP_BLOCKS_MAX, "a copy is one operation");
assert(SILENCE_MAX_MS > LEASE_MS, "a lease that ends for a moment takes no member out");
