// The table of doc/proto.md, typed a second time on purpose: other projects have shipped
// NBD_REPLY_TYPE_BLOCK_STATUS as 3 and NBD_REPLY_TYPE_ERROR as 0x8000.
import * as nbd from "nbd-protocol-ts";
import t from "tap";

const SPECIFIED: Readonly<Record<string, number>> = {
  NBDMAGIC_HIGH: 0x4e42444d,
  NBDMAGIC_LOW: 0x41474943,
  IHAVEOPT_HIGH: 0x49484156,
  IHAVEOPT_LOW: 0x454f5054,
  NBD_REP_MAGIC_HIGH: 0x0003e889,
  NBD_REP_MAGIC_LOW: 0x045565a9,
  NBD_REQUEST_MAGIC: 0x25609513,
  NBD_SIMPLE_REPLY_MAGIC: 0x67446698,
  NBD_STRUCTURED_REPLY_MAGIC: 0x668e33ef,
  NBD_EXTENDED_REQUEST_MAGIC: 0x21e41c71,
  NBD_EXTENDED_REPLY_MAGIC: 0x6e8a278c,
  NBD_REQUEST_BYTES: 28,
  NBD_SIMPLE_REPLY_BYTES: 16,
  NBD_STRUCTURED_REPLY_BYTES: 20,
  NBD_EXTENDED_REQUEST_BYTES: 32,
  NBD_EXTENDED_REPLY_BYTES: 32,
  NBD_DEFAULT_PORT: 10809,
  NBD_FLAG_FIXED_NEWSTYLE: 1,
  NBD_FLAG_NO_ZEROES: 2,
  NBD_FLAG_C_FIXED_NEWSTYLE: 1,
  NBD_FLAG_C_NO_ZEROES: 2,
  NBD_FLAG_HAS_FLAGS: 1,
  NBD_FLAG_READ_ONLY: 2,
  NBD_FLAG_SEND_FLUSH: 4,
  NBD_FLAG_SEND_FUA: 8,
  NBD_FLAG_ROTATIONAL: 16,
  NBD_FLAG_SEND_TRIM: 32,
  NBD_FLAG_SEND_WRITE_ZEROES: 64,
  NBD_FLAG_SEND_DF: 128,
  NBD_FLAG_CAN_MULTI_CONN: 256,
  NBD_FLAG_SEND_RESIZE: 512,
  NBD_FLAG_SEND_CACHE: 1024,
  NBD_FLAG_SEND_FAST_ZERO: 2048,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD: 4096,
  NBD_OPT_EXPORT_NAME: 1,
  NBD_OPT_ABORT: 2,
  NBD_OPT_LIST: 3,
  NBD_OPT_PEEK_EXPORT: 4,
  NBD_OPT_STARTTLS: 5,
  NBD_OPT_INFO: 6,
  NBD_OPT_GO: 7,
  NBD_OPT_STRUCTURED_REPLY: 8,
  NBD_OPT_LIST_META_CONTEXT: 9,
  NBD_OPT_SET_META_CONTEXT: 10,
  NBD_OPT_EXTENDED_HEADERS: 11,
  NBD_REP_ACK: 1,
  NBD_REP_SERVER: 2,
  NBD_REP_INFO: 3,
  NBD_REP_META_CONTEXT: 4,
  NBD_REP_ERR_UNSUP: 0x80000001,
  NBD_REP_ERR_POLICY: 0x80000002,
  NBD_REP_ERR_INVALID: 0x80000003,
  NBD_REP_ERR_PLATFORM: 0x80000004,
  NBD_REP_ERR_TLS_REQD: 0x80000005,
  NBD_REP_ERR_UNKNOWN: 0x80000006,
  NBD_REP_ERR_SHUTDOWN: 0x80000007,
  NBD_REP_ERR_BLOCK_SIZE_REQD: 0x80000008,
  NBD_REP_ERR_TOO_BIG: 0x80000009,
  NBD_REP_ERR_EXT_HEADER_REQD: 0x8000000a,
  NBD_INFO_EXPORT: 0,
  NBD_INFO_NAME: 1,
  NBD_INFO_DESCRIPTION: 2,
  NBD_INFO_BLOCK_SIZE: 3,
  NBD_CMD_READ: 0,
  NBD_CMD_WRITE: 1,
  NBD_CMD_DISC: 2,
  NBD_CMD_FLUSH: 3,
  NBD_CMD_TRIM: 4,
  NBD_CMD_CACHE: 5,
  NBD_CMD_WRITE_ZEROES: 6,
  NBD_CMD_BLOCK_STATUS: 7,
  NBD_CMD_RESIZE: 8,
  NBD_CMD_FLAG_FUA: 1,
  NBD_CMD_FLAG_NO_HOLE: 2,
  NBD_CMD_FLAG_DF: 4,
  NBD_CMD_FLAG_REQ_ONE: 8,
  NBD_CMD_FLAG_FAST_ZERO: 16,
  NBD_CMD_FLAG_PAYLOAD_LEN: 32,
  NBD_REPLY_FLAG_DONE: 1,
  NBD_REPLY_TYPE_NONE: 0,
  NBD_REPLY_TYPE_OFFSET_DATA: 1,
  NBD_REPLY_TYPE_OFFSET_HOLE: 2,
  NBD_REPLY_TYPE_BLOCK_STATUS: 5,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT: 6,
  NBD_REPLY_TYPE_ERROR: 0x8001,
  NBD_REPLY_TYPE_ERROR_OFFSET: 0x8002,
  NBD_EPERM: 1,
  NBD_EIO: 5,
  NBD_ENOMEM: 12,
  NBD_EINVAL: 22,
  NBD_ENOSPC: 28,
  NBD_EOVERFLOW: 75,
  NBD_ENOTSUP: 95,
  NBD_ESHUTDOWN: 108,
  NBD_STATE_HOLE: 1,
  NBD_STATE_ZERO: 2,
  NBD_STATE_DIRTY: 1,
  NBD_MAX_STRING: 4096,
  NBD_DEFAULT_MINIMUM_BLOCK: 1,
  NBD_DEFAULT_PREFERRED_BLOCK: 4096,
  NBD_DEFAULT_MAXIMUM_PAYLOAD: 32 * 1024 * 1024,
  NBD_MAX_MINIMUM_BLOCK: 65536,
  NBD_MIN_DF_READ: 65536,
  NBD_MAX_DESCRIPTORS: 1048576,
};

t.test("every constant has the number of the specification", async (t) => {
  const ours: Readonly<Record<string, unknown>> = { ...nbd };
  for (const [name, value] of Object.entries(SPECIFIED)) t.equal(ours[name], value, name);
});

t.test("magics spell what they should", async (t) => {
  const ascii = (value: number): string =>
    [24, 16, 8, 0].map((shift) => String.fromCharCode((value >>> shift) & 0xff)).join("");
  t.equal(ascii(nbd.NBDMAGIC_HIGH) + ascii(nbd.NBDMAGIC_LOW), "NBDMAGIC");
  t.equal(ascii(nbd.IHAVEOPT_HIGH) + ascii(nbd.IHAVEOPT_LOW), "IHAVEOPT");
});

t.test("logs show names, never bare numbers", async (t) => {
  for (const [name, value] of Object.entries(SPECIFIED)) {
    if (/^NBD_OPT_/.test(name)) t.equal(nbd.optionName(value), name);
    else if (/^NBD_REP_(?!MAGIC)/.test(name)) t.equal(nbd.optionReplyName(value), name);
    else if (/^NBD_CMD_FLAG_/.test(name)) t.equal(nbd.commandFlagNames(value), name);
    else if (/^NBD_CMD_/.test(name)) t.equal(nbd.commandName(value), name);
    else if (/^NBD_REPLY_TYPE_/.test(name)) t.equal(nbd.chunkName(value), name);
    else if (/^NBD_INFO_/.test(name)) t.equal(nbd.infoName(value), name);
    else if (/^NBD_E[A-Z]+$/.test(name)) t.equal(nbd.errorName(value), name);
    else if (/^NBD_FLAG_(?!C_|FIXED|NO_ZER)/.test(name)) t.equal(nbd.transmissionFlagNames(value), name);
  }
  t.equal(nbd.commandName(99), "NBD_CMD_99");
  t.equal(nbd.optionName(0xdeadbeef), "NBD_OPT_0xdeadbeef");
  t.equal(nbd.errorName(0), "NBD_SUCCESS");
  t.equal(nbd.transmissionFlagNames(0x8005), "NBD_FLAG_HAS_FLAGS|NBD_FLAG_SEND_FLUSH|0x8000");
  t.equal(nbd.commandFlagNames(0), "0");
});
