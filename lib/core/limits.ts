/**
 * Bounds and sizes that more than one room relies on. Each says what happens when it is reached. Relations
 * between them are asserted when this module loads.
 */
import { assert } from "./assert.js";

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
export const TIB = 1024 * GIB;

/** Grain of checksum, presence and discard, in bytes. Smaller writes are read-modify-write under a lock. */
export const BLOCK_BYTES = 4 * KIB;
export const BLOCK_SHIFT = 12;

/** Blocks of an extent on a real device. A format-time constant; the simulator formats with 16. */
export const EXTENT_BLOCKS = 1024;

/** Longest piece of a request that travels as one buffer. Longer requests are cut into pieces. */
export const PIECE_BYTES = MIB;
export const PIECE_BLOCKS = PIECE_BYTES / BLOCK_BYTES;

/** Largest payload of one NBD request. Advertised as the maximum block size; longer ones get EINVAL. */
export const PAYLOAD_BYTES_MAX = 32 * MIB;

/** Default size of the buffer pool. When it is empty, sockets are not read (backpressure). */
export const POOL_BYTES_DEFAULT = 256 * MIB;
/** Offsets into the pool are u32. */
export const POOL_BYTES_MAX = 4 * GIB - MIB;
/** Smallest pool that can always finish an admitted request. */
export const POOL_BYTES_MIN = 16 * MIB;

/** Largest volume: 4 PiB. Byte offsets, and sums of two of them, stay exact in a double. */
export const VOLUME_BYTES_MAX = 4 * 1024 * TIB;
/** Sizes of volumes are multiples of this. */
export const VOLUME_SIZE_GRAIN = BLOCK_BYTES;

/** Longest volume name in bytes; names match VOLUME_NAME. */
export const VOLUME_NAME_BYTES_MAX = 63;
export const VOLUME_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** Connections of one server. A further one is closed at once. */
export const CONNECTIONS_MAX = 2048;
/** Of these, connections that have not finished their handshake. A further one takes the oldest one's place. */
export const HANDSHAKES_MAX = 256;
/** A handshake that has not finished by then is closed (CVE-2024-7409). */
export const HANDSHAKE_DEADLINE_MS = 10_000;
/**
 * A peer that leaves sent bytes, or the probes of an idle connection, unacknowledged for so long has vanished, and
 * the kernel ends its connection (TCP_USER_TIMEOUT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT). Longer than any hiccup of a network; shorter than what a client waits before it
 * gives up a request and sends it again on a new connection.
 */
export const PEER_SILENCE_MAX_MS = 30_000;
/** Requests of one connection that may be in flight. At the bound the socket is not read. */
export const REQUESTS_PER_CONNECTION_MAX = 256;

assert(BLOCK_BYTES === 1 << BLOCK_SHIFT, "block shift");
assert(PIECE_BYTES % BLOCK_BYTES === 0, "pieces are whole blocks");
assert(PAYLOAD_BYTES_MAX % PIECE_BYTES === 0, "payloads are whole pieces");
// A request that was admitted must be able to finish with the smallest pool: one payload may be waiting in
// pieces while one piece is on its way to the disk.
assert(POOL_BYTES_MIN >= 4 * PIECE_BYTES, "the smallest pool holds several pieces");
assert(2 * VOLUME_BYTES_MAX <= Number.MAX_SAFE_INTEGER + 1, "byte offsets are exact");
assert(POOL_BYTES_MAX < 2 ** 32, "pool offsets are u32");
assert(REQUESTS_PER_CONNECTION_MAX >= 128, "the kernel sends 128 requests per connection");
assert(HANDSHAKES_MAX < CONNECTIONS_MAX, "finished handshakes always find room");
