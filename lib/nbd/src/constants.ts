/**
 * Every number of the NBD protocol, under the name that the specification (doc/proto.md, uri.md) gives it.
 * This is the only place where wire constants are written down; a test compares them with the published
 * table. Everything on the wire is big-endian. 64-bit magics are given as two halves, so that no BigInt is
 * ever needed.
 *
 * "(ext)" marks the EXTENDED_HEADERS extension, branch extension-ext-header of the specification.
 */

/** Port assigned by IANA. */
export const NBD_DEFAULT_PORT = 10809;

// ---- Handshake: magics ----------------------------------------------------------------------------------

/** "NBDMAGIC", first 8 bytes of the server's greeting. */
export const NBDMAGIC_HIGH = 0x4e42444d;
export const NBDMAGIC_LOW = 0x41474943;
/** "IHAVEOPT", next 8 bytes of the greeting, and first 8 of every option. */
export const IHAVEOPT_HIGH = 0x49484156;
export const IHAVEOPT_LOW = 0x454f5054;
/** First 8 bytes of every reply to an option. */
export const NBD_REP_MAGIC_HIGH = 0x0003e889;
export const NBD_REP_MAGIC_LOW = 0x045565a9;

/** Greeting: magic 8, IHAVEOPT 8, handshake flags 2. */
export const GREETING_BYTES = 18;
/** Client flags: 4. */
export const CLIENT_FLAGS_BYTES = 4;
/** Option header: IHAVEOPT 8, option 4, length of data 4. */
export const OPTION_HEADER_BYTES = 16;
/** Header of a reply to an option: magic 8, option 4, reply type 4, length of data 4. */
export const OPTION_REPLY_HEADER_BYTES = 20;
/** Answer to NBD_OPT_EXPORT_NAME: size 8, transmission flags 2, then zeroes unless NO_ZEROES. */
export const EXPORT_NAME_REPLY_BYTES = 10;
export const EXPORT_NAME_ZEROES_BYTES = 124;

// ---- Handshake: flags -----------------------------------------------------------------------------------

export const NBD_FLAG_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_NO_ZEROES = 1 << 1;

export const NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0;
export const NBD_FLAG_C_NO_ZEROES = 1 << 1;

// ---- Transmission flags (of an export) ------------------------------------------------------------------

export const NBD_FLAG_HAS_FLAGS = 1 << 0;
export const NBD_FLAG_READ_ONLY = 1 << 1;
export const NBD_FLAG_SEND_FLUSH = 1 << 2;
export const NBD_FLAG_SEND_FUA = 1 << 3;
export const NBD_FLAG_ROTATIONAL = 1 << 4;
export const NBD_FLAG_SEND_TRIM = 1 << 5;
export const NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6;
export const NBD_FLAG_SEND_DF = 1 << 7;
export const NBD_FLAG_CAN_MULTI_CONN = 1 << 8;
/** Experimental RESIZE extension; nobody implements it. */
export const NBD_FLAG_SEND_RESIZE = 1 << 9;
export const NBD_FLAG_SEND_CACHE = 1 << 10;
export const NBD_FLAG_SEND_FAST_ZERO = 1 << 11;
/** (ext) */
export const NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12;

// ---- Options --------------------------------------------------------------------------------------------

export const NBD_OPT_EXPORT_NAME = 1;
export const NBD_OPT_ABORT = 2;
export const NBD_OPT_LIST = 3;
/** Withdrawn. */
export const NBD_OPT_PEEK_EXPORT = 4;
export const NBD_OPT_STARTTLS = 5;
export const NBD_OPT_INFO = 6;
export const NBD_OPT_GO = 7;
export const NBD_OPT_STRUCTURED_REPLY = 8;
export const NBD_OPT_LIST_META_CONTEXT = 9;
export const NBD_OPT_SET_META_CONTEXT = 10;
/** (ext) */
export const NBD_OPT_EXTENDED_HEADERS = 11;

// ---- Replies to options ---------------------------------------------------------------------------------

export const NBD_REP_ACK = 1;
export const NBD_REP_SERVER = 2;
export const NBD_REP_INFO = 3;
export const NBD_REP_META_CONTEXT = 4;

/** Set in every error reply. */
export const NBD_REP_FLAG_ERROR = 0x80000000;
export const NBD_REP_ERR_UNSUP = 0x80000001;
export const NBD_REP_ERR_POLICY = 0x80000002;
export const NBD_REP_ERR_INVALID = 0x80000003;
export const NBD_REP_ERR_PLATFORM = 0x80000004;
export const NBD_REP_ERR_TLS_REQD = 0x80000005;
export const NBD_REP_ERR_UNKNOWN = 0x80000006;
export const NBD_REP_ERR_SHUTDOWN = 0x80000007;
export const NBD_REP_ERR_BLOCK_SIZE_REQD = 0x80000008;
export const NBD_REP_ERR_TOO_BIG = 0x80000009;
/** (ext) */
export const NBD_REP_ERR_EXT_HEADER_REQD = 0x8000000a;

// ---- Information types of NBD_OPT_INFO and NBD_OPT_GO ----------------------------------------------------

export const NBD_INFO_EXPORT = 0;
export const NBD_INFO_NAME = 1;
export const NBD_INFO_DESCRIPTION = 2;
export const NBD_INFO_BLOCK_SIZE = 3;

/** Lengths of the data of NBD_REP_INFO, type designator included. */
export const NBD_INFO_EXPORT_BYTES = 12;
export const NBD_INFO_BLOCK_SIZE_BYTES = 14;

// ---- Transmission: magics and sizes of headers ----------------------------------------------------------

export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;
/** (ext) */
export const NBD_EXTENDED_REQUEST_MAGIC = 0x21e41c71;
/** (ext) */
export const NBD_EXTENDED_REPLY_MAGIC = 0x6e8a278c;

/** magic 4, flags 2, type 2, cookie 8, offset 8, length 4. */
export const NBD_REQUEST_BYTES = 28;
/** magic 4, flags 2, type 2, cookie 8, offset 8, length 8. */
export const NBD_EXTENDED_REQUEST_BYTES = 32;
/** magic 4, error 4, cookie 8. */
export const NBD_SIMPLE_REPLY_BYTES = 16;
/** magic 4, flags 2, type 2, cookie 8, length 4. */
export const NBD_STRUCTURED_REPLY_BYTES = 20;
/** magic 4, flags 2, type 2, cookie 8, offset 8, length 8. */
export const NBD_EXTENDED_REPLY_BYTES = 32;

// ---- Commands -------------------------------------------------------------------------------------------

export const NBD_CMD_READ = 0;
export const NBD_CMD_WRITE = 1;
export const NBD_CMD_DISC = 2;
export const NBD_CMD_FLUSH = 3;
export const NBD_CMD_TRIM = 4;
export const NBD_CMD_CACHE = 5;
export const NBD_CMD_WRITE_ZEROES = 6;
export const NBD_CMD_BLOCK_STATUS = 7;
/** Experimental RESIZE extension; nobody implements it. */
export const NBD_CMD_RESIZE = 8;

export const NBD_CMD_FLAG_FUA = 1 << 0;
export const NBD_CMD_FLAG_NO_HOLE = 1 << 1;
export const NBD_CMD_FLAG_DF = 1 << 2;
export const NBD_CMD_FLAG_REQ_ONE = 1 << 3;
export const NBD_CMD_FLAG_FAST_ZERO = 1 << 4;
/** (ext) */
export const NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5;

// ---- Reply chunks ---------------------------------------------------------------------------------------

export const NBD_REPLY_FLAG_DONE = 1 << 0;

export const NBD_REPLY_TYPE_NONE = 0;
export const NBD_REPLY_TYPE_OFFSET_DATA = 1;
export const NBD_REPLY_TYPE_OFFSET_HOLE = 2;
export const NBD_REPLY_TYPE_BLOCK_STATUS = 5;
/** (ext) */
export const NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6;
/** Set in the type of every error chunk. */
export const NBD_REPLY_TYPE_ERROR_BIT = 1 << 15;
export const NBD_REPLY_TYPE_ERROR = 0x8001;
export const NBD_REPLY_TYPE_ERROR_OFFSET = 0x8002;

/** OFFSET_DATA: offset 8, then the data. */
export const NBD_OFFSET_DATA_BYTES = 8;
/** OFFSET_HOLE: offset 8, size 4. */
export const NBD_OFFSET_HOLE_BYTES = 12;
/** ERROR: error 4, length of message 2, then the message. */
export const NBD_ERROR_BYTES = 6;
/** What ERROR_OFFSET has behind its message: offset 8. */
export const NBD_ERROR_OFFSET_BYTES = 8;
/** BLOCK_STATUS: context id 4, then descriptors of length 4, status 4. */
export const NBD_BLOCK_STATUS_BYTES = 4;
export const NBD_BLOCK_DESCRIPTOR_BYTES = 8;
/** BLOCK_STATUS_EXT: context id 4, count 4, then descriptors of length 8, status 8. */
export const NBD_BLOCK_STATUS_EXT_BYTES = 8;
export const NBD_BLOCK_DESCRIPTOR_EXT_BYTES = 16;
/** Payload of a BLOCK_STATUS request with PAYLOAD_LEN: effect length 8, then context ids of 4. (ext) */
export const NBD_BLOCK_STATUS_PAYLOAD_BYTES = 8;
export const NBD_CONTEXT_ID_BYTES = 4;

// ---- Metadata contexts ----------------------------------------------------------------------------------

export const NBD_META_NAMESPACE_BASE = "base";
export const NBD_META_BASE_ALLOCATION = "base:allocation";
export const NBD_STATE_HOLE = 1 << 0;
export const NBD_STATE_ZERO = 1 << 1;
/** Flag of the contexts "qemu:dirty-bitmap:NAME". */
export const NBD_STATE_DIRTY = 1 << 0;

// ---- Errors ---------------------------------------------------------------------------------------------

export const NBD_SUCCESS = 0;
export const NBD_EPERM = 1;
export const NBD_EIO = 5;
export const NBD_ENOMEM = 12;
export const NBD_EINVAL = 22;
export const NBD_ENOSPC = 28;
export const NBD_EOVERFLOW = 75;
export const NBD_ENOTSUP = 95;
export const NBD_ESHUTDOWN = 108;

// ---- Limits of the specification ------------------------------------------------------------------------

/** A string (export name, context query, error text, description) MUST NOT be longer, in bytes of UTF-8. */
export const NBD_MAX_STRING = 4096;
/** Size constraints that hold when none were advertised ("Size constraints"). */
export const NBD_DEFAULT_MINIMUM_BLOCK = 1;
export const NBD_DEFAULT_PREFERRED_BLOCK = 4096;
export const NBD_DEFAULT_MAXIMUM_PAYLOAD = 32 * 1024 * 1024;
/** An advertised minimum block size MUST NOT be larger. */
export const NBD_MAX_MINIMUM_BLOCK = 65536;
/** An advertised preferred block size MUST NOT be smaller. */
export const NBD_MIN_PREFERRED_BLOCK = 512;
/** Advertised maximum payload that means "no limit". */
export const NBD_UNLIMITED_PAYLOAD = 0xffffffff;
/** Reads with NBD_CMD_FLAG_DF up to this length MUST work. */
export const NBD_MIN_DF_READ = 65536;
/** A BLOCK_STATUS chunk SHOULD NOT have more descriptors. */
export const NBD_MAX_DESCRIPTORS = 1 << 20;
