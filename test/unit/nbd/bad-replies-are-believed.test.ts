// The client's machines against servers that break rules: each broken rule is found, none is believed.
import {
  ByteQueue,
  ClientHandshake,
  type ClientHandshakeOptions,
  ClientTransmission,
  decodeReply,
  encodeBlockStatus,
  encodeChunkHeader,
  encodeErrorChunk,
  encodeErrorOffset,
  encodeNone,
  encodeOffsetData,
  encodeOffsetHole,
  encodeSimpleReply,
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_UNKNOWN,
  NBD_REP_ERR_UNSUP,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  type Negotiated,
  putOptionReply,
  ReplyHeader,
  type ReplyListener,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import { concat, negotiate, text, u16, u32 } from "./helpers.js";

// ---- Transmission ---------------------------------------------------------------------------------------

const NOBODY: ReplyListener = {
  readData: () => undefined,
  readHole: () => undefined,
  blockStatus: () => undefined,
  requestDone: () => undefined,
};

type To = { cookieHigh: number; cookieLow: number; offsetHigh: number; offsetLow: number };
type Encode = (view: DataView, at: number, to: To) => number;

const SIMPLE = negotiate();
const STRUCTURED = negotiate([NBD_OPT_STRUCTURED_REPLY], ["base:allocation"]);
const EXTENDED = negotiate([NBD_OPT_EXTENDED_HEADERS], ["base:allocation"]);
const CONTEXT = STRUCTURED.contexts[0]!.id;

/** Asks one thing, at offset 4096 for 8192 bytes, and hears `replies`; returns how it ended. */
function hear(negotiated: Negotiated, type: number, flags: number, ...replies: readonly Encode[]): string {
  let done = "";
  const client = new ClientTransmission(
    negotiated,
    {
      ...NOBODY,
      requestDone: (request) => {
        done += `done ${request.errno}`;
      },
    },
    4,
  );
  const view = new DataView(new ArrayBuffer(1 << 16));
  const request = client.begin(view, 0, type, flags, 4096, 8192)!;
  const to = { cookieHigh: request.use, cookieLow: request.index, offsetHigh: 0, offsetLow: 4096 };
  let end = 0;
  for (const encode of replies) end += encode(view, end, to);
  const bytes = new Uint8Array(view.buffer);
  client.feed(bytes, 0, end);
  return client.dead ? `${done}${client.reason}` : done;
}

const bytesOf =
  (length: number): Encode =>
  () =>
    length;
const data = (mode: ReplyMode, offset: number, length: number, flags = 0): Encode[] => [
  (v, at, to) => encodeOffsetData(v, at, mode, to, flags, offset, length),
  bytesOf(length),
];
const hole =
  (mode: ReplyMode, offset: number, length: number, flags = 0): Encode =>
  (v, at, to) =>
    encodeOffsetHole(v, at, mode, to, flags, offset, length);
const none =
  (mode: ReplyMode): Encode =>
  (v, at, to) =>
    encodeNone(v, at, mode, to);
const simple =
  (errno: number): Encode =>
  (v, at, to) =>
    encodeSimpleReply(v, at, to, errno);
const chunk =
  (mode: ReplyMode, flags: number, type: number, ...payload: readonly Uint8Array[]): Encode =>
  (v, at, to) => {
    const bytes = concat(...payload);
    const size = encodeChunkHeader(v, at, mode, to, flags, type, bytes.length);
    new Uint8Array(v.buffer).set(bytes, at + size);
    return size + bytes.length;
  };
const status =
  (mode: ReplyMode, id: number, runs: readonly number[], flags = 1): Encode =>
  (v, at, to) => {
    const flat = Float64Array.from(runs);
    return encodeBlockStatus(v, at, 4096, mode, to, flags, id, flat, runs.length / 2, 2 ** 40, false);
  };

t.test("good replies are taken", async (t) => {
  t.equal(hear(SIMPLE, NBD_CMD_READ, 0, simple(0), bytesOf(8192)), "done 0");
  t.equal(hear(SIMPLE, NBD_CMD_READ, 0, simple(5)), "done 5");
  t.equal(hear(SIMPLE, NBD_CMD_WRITE, 0, simple(28)), "done 28");
  for (const [negotiated, mode] of [
    [STRUCTURED, ReplyMode.Structured],
    [EXTENDED, ReplyMode.Extended],
  ] as const) {
    t.equal(hear(negotiated, NBD_CMD_READ, 0, ...data(mode, 4096, 8192, 1)), "done 0");
    const parts = [...data(mode, 8192, 4096), hole(mode, 4096, 512), ...data(mode, 4608, 3584), none(mode)];
    t.equal(hear(negotiated, NBD_CMD_READ, 0, ...parts), "done 0", "C1: in any order");
    const error: Encode = (v, at, to) => encodeErrorOffset(v, at, mode, to, 0, 5, text("bad"), 5000);
    t.equal(hear(negotiated, NBD_CMD_READ, 0, ...data(mode, 4096, 4096), error, none(mode)), "done 5", "C2");
    t.equal(hear(negotiated, NBD_CMD_BLOCK_STATUS, 0, status(mode, CONTEXT, [4096, 0, 8192, 3])), "done 0");
    t.equal(hear(negotiated, NBD_CMD_FLUSH, 0, none(mode)), "done 0");
    const unknown = chunk(mode, 1, 0x8123, u32(5), u16(2), text("hm"), text("extra"));
    t.equal(hear(negotiated, NBD_CMD_FLUSH, 0, unknown), "done 5", "an unknown error type is an error");
  }
  t.equal(hear(STRUCTURED, NBD_CMD_FLUSH, 0, simple(0)), "done 0");
  t.equal(hear(STRUCTURED, NBD_CMD_BLOCK_STATUS, 0, simple(22)), "done 22");
});

t.test("X2: the form of replies is what was negotiated", async (t) => {
  t.match(hear(STRUCTURED, NBD_CMD_READ, 0, simple(5)), /^a simple reply to NBD_CMD_READ/);
  t.match(hear(EXTENDED, NBD_CMD_FLUSH, 0, simple(0)), /magic/);
  t.match(hear(SIMPLE, NBD_CMD_FLUSH, 0, none(ReplyMode.Structured)), /magic/);
  t.match(hear(STRUCTURED, NBD_CMD_FLUSH, 0, none(ReplyMode.Extended)), /magic/);
  t.match(hear(EXTENDED, NBD_CMD_FLUSH, 0, none(ReplyMode.Structured)), /magic/);
});

t.test("X1: a reply with the cookie of no request in flight", async (t) => {
  const twist =
    (high: number, low: number): Encode =>
    (v, at, to) =>
      encodeSimpleReply(v, at, { ...to, cookieHigh: to.cookieHigh + high, cookieLow: to.cookieLow + low }, 0);
  for (const encode of [twist(0, 1), twist(0, 1000), twist(1, 0)]) {
    t.match(hear(SIMPLE, NBD_CMD_FLUSH, 0, encode), /cookie/);
  }
  t.match(
    hear(SIMPLE, NBD_CMD_FLUSH, 0, simple(0), simple(0)),
    /^done 0a reply has the cookie/,
    "answered twice",
  );
});

t.test("extended replies repeat the request's offset", async (t) => {
  const wrong: Encode = (v, at, to) => encodeNone(v, at, ReplyMode.Extended, { ...to, offsetLow: 8192 });
  t.match(hear(EXTENDED, NBD_CMD_FLUSH, 0, wrong), /another offset/);
});

t.test("C1: content chunks cover the request exactly", async (t) => {
  const S = ReplyMode.Structured;
  const cases: readonly (readonly [RegExp, readonly Encode[]])[] = [
    [/without all of its content/, [none(S)]],
    [/without all of its content/, [...data(S, 4096, 4096), none(S)]],
    [/without all of its content/, [...data(S, 4096, 8191, 1)]],
    [/overlap/, [...data(S, 4096, 4096), ...data(S, 8191, 4096)]],
    [/overlap/, [...data(S, 4096, 4096), hole(S, 4096, 512)]],
    [/overlap/, [hole(S, 8192, 512), ...data(S, 4096, 8192)]],
    [/overlap/, [hole(S, 8192, 512), hole(S, 4096, 512), hole(S, 4600, 4000)]],
    [/outside/, [...data(S, 4095, 4096)]],
    [/outside/, [...data(S, 8192, 4097)]],
    [/outside/, [hole(S, 12288, 1)]],
    [/outside/, [hole(S, 4096, 0)]],
    [/empty or longer/, [...data(S, 4096, 0)]],
    [/empty or longer/, [...data(S, 4096, 8193)]],
  ];
  for (const [want, replies] of cases) t.match(hear(STRUCTURED, NBD_CMD_READ, 0, ...replies), want);
});

t.test("C3: a read with DF has one content chunk", async (t) => {
  const S = ReplyMode.Structured;
  const DF = NBD_CMD_FLAG_DF;
  t.match(hear(STRUCTURED, NBD_CMD_READ, DF, hole(S, 4096, 4096), hole(S, 8192, 4096)), /with DF/);
  t.equal(hear(STRUCTURED, NBD_CMD_READ, DF, ...data(S, 4096, 8192), none(S)), "done 0");
});

t.test(
  "C12: block status: one chunk per selected context, descriptors that do not reach too far",
  async (t) => {
    const S = ReplyMode.Structured;
    const ask = (flags: number, ...replies: readonly Encode[]): string =>
      hear(STRUCTURED, NBD_CMD_BLOCK_STATUS, flags, ...replies);
    t.match(ask(0, none(S)), /without a chunk for every context/);
    t.match(ask(0, status(S, CONTEXT + 1, [4096, 0])), /not selected/);
    t.match(
      ask(0, status(S, CONTEXT, [4096, 0], 0), status(S, CONTEXT, [4096, 0])),
      /two block status chunks/,
    );
    t.match(ask(0, status(S, CONTEXT, [8192, 0, 4096, 3])), /too far/, "the first covers the request");
    t.match(ask(NBD_CMD_FLAG_REQ_ONE, status(S, CONTEXT, [4096, 0, 4096, 3])), /too far/);
    t.match(ask(NBD_CMD_FLAG_REQ_ONE, status(S, CONTEXT, [8193, 0])), /too far/);
    t.match(ask(0, chunk(S, 1, 5, u32(CONTEXT))), /malformed/, "no descriptor");
    t.match(ask(0, chunk(S, 1, 5, u32(CONTEXT), u32(0), u32(0))), /malformed/, "an empty one");
    t.match(ask(0, chunk(S, 1, 5, u32(CONTEXT), u32(512))), /malformed/, "half of one");
    t.match(ask(0, chunk(S, 1, 6, u32(CONTEXT), u32(1), new Uint8Array(16))), /BLOCK_STATUS_EXT in reply/);
    const E = ReplyMode.Extended;
    const wrongCount = chunk(E, 1, 6, u32(CONTEXT), u32(2), u32(0), u32(512), u32(0), u32(0));
    t.match(hear(EXTENDED, NBD_CMD_BLOCK_STATUS, 0, wrongCount), /malformed/);
  },
);

t.test("chunks with lengths or types that cannot be", async (t) => {
  const S = ReplyMode.Structured;
  const flush = (...replies: readonly Encode[]): string => hear(STRUCTURED, NBD_CMD_FLUSH, 0, ...replies);
  t.match(flush(chunk(S, 1, 0, text("x"))), /NONE with a payload/);
  t.match(flush(chunk(S, 0, 0)), /NONE without DONE/);
  t.match(flush(chunk(S, 1, 3)), /NBD_REPLY_TYPE_3 in reply to NBD_CMD_FLUSH/);
  t.match(flush(chunk(S, 1, 1, new Uint8Array(16))), /OFFSET_DATA in reply to NBD_CMD_FLUSH/);
  t.match(flush(chunk(S, 1, 0x8001, u32(5))), /contradict/);
  t.match(flush(chunk(S, 1, 0x8001, u32(5), u16(9), text("12345678"))), /contradict/);
  t.match(flush(chunk(S, 1, 0x8002, u32(5), u16(1), text("1234567"))), /contradict/);
  t.match(flush(chunk(S, 1, 0x8001, u32(0), u16(0))), /error 0/);
  t.match(
    flush((v, at, to) => encodeChunkHeader(v, at, S, to, 1, 0x8001, 0xffffffff)),
    /4294967295 bytes/,
  );
  const outside: Encode = (v, at, to) => encodeErrorOffset(v, at, S, to, 1, 5, text(""), 12288);
  t.match(flush(outside), /outside its request/);
  const inside: Encode = (v, at, to) => encodeErrorChunk(v, at, S, to, 1, 5, text("why"));
  t.equal(flush(inside), "done 5");
});

t.test("an announced payload takes memory only as it arrives", async (t) => {
  const client = new ClientTransmission(STRUCTURED, NOBODY, 1);
  const view = new DataView(new ArrayBuffer(64));
  const request = client.begin(view, 0, NBD_CMD_BLOCK_STATUS, 0, 0, 8192)!;
  const to = { cookieHigh: request.use, cookieLow: request.index, offsetHigh: 0, offsetLow: 0 };
  const end = encodeChunkHeader(view, 0, ReplyMode.Structured, to, 1, 5, 8 * 2 ** 20 + 4);
  const before = process.memoryUsage().arrayBuffers;
  client.feed(new Uint8Array(view.buffer), 0, end);
  client.feed(new Uint8Array(100));
  t.ok(process.memoryUsage().arrayBuffers - before < 1 << 20);
  t.notOk(client.dead);
});

t.test("requests in flight are bounded by the depth", async (t) => {
  const client = new ClientTransmission(SIMPLE, NOBODY, 2);
  const view = new DataView(new ArrayBuffer(64));
  t.ok(client.begin(view, 0, NBD_CMD_FLUSH, 0, 0, 0));
  t.ok(client.begin(view, 0, NBD_CMD_FLUSH, 0, 0, 0));
  t.equal(client.begin(view, 0, NBD_CMD_FLUSH, 0, 0, 0), null);
  t.equal(client.inFlight, 2);
  const header = new ReplyHeader();
  t.equal(decodeReply(view, 0, 3, ReplyMode.Simple, header), 0);
});

// ---- Handshake ------------------------------------------------------------------------------------------

function greeting(flags: number): Uint8Array {
  return concat(u32(NBDMAGIC_HIGH), u32(NBDMAGIC_LOW), u32(IHAVEOPT_HIGH), u32(IHAVEOPT_LOW), u16(flags));
}

function reply(option: number, type: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const out = new ByteQueue();
  putOptionReply(out, option, type, payload);
  const bytes = new Uint8Array(out.length);
  out.moveTo(bytes, 0, bytes.length);
  return bytes;
}

function shake(options: ClientHandshakeOptions, ...said: readonly Uint8Array[]): ClientHandshake {
  const client = new ClientHandshake({ extendedHeaders: false, structuredReplies: false, ...options });
  client.feed(concat(...said));
  return client;
}

const EXPORT = concat(u16(0), u32(0), u32(4096), u16(1));

t.test("a handshake that goes well", async (t) => {
  const client = shake(
    {},
    greeting(3),
    reply(NBD_OPT_GO, NBD_REP_INFO, EXPORT),
    reply(NBD_OPT_GO, NBD_REP_ACK),
  );
  t.equal(client.state, "transmission");
  t.match(client.negotiated, { size: 4096, flags: 1, noZeroes: true });
});

t.test("greetings of something else", async (t) => {
  t.match(shake({}, text("SSH-2.0-OpenSSH_9.2p1")).reason, /no NBD server/);
  const oldstyle = concat(u32(NBDMAGIC_HIGH), u32(NBDMAGIC_LOW), u32(0x00420281), u32(0x861253), u16(0));
  t.match(shake({}, oldstyle).reason, /another protocol/);
});

t.test("replies to what was not asked, or malformed", async (t) => {
  const info = (payload: Uint8Array): string =>
    shake({}, greeting(3), reply(NBD_OPT_GO, NBD_REP_INFO, payload)).reason;
  t.match(shake({}, greeting(3), reply(NBD_OPT_INFO, NBD_REP_ACK)).reason, /answers NBD_OPT_INFO/);
  t.match(shake({}, greeting(3), text("x".repeat(20))).reason, /magic/);
  t.match(shake({}, greeting(3), reply(NBD_OPT_GO, NBD_REP_SERVER, u32(0))).reason, /out of place/);
  t.match(shake({}, greeting(3), reply(NBD_OPT_GO, NBD_REP_ACK)).reason, /without NBD_INFO_EXPORT/);
  t.match(info(u16(0)), /malformed/);
  t.match(info(new Uint8Array(1)), /malformed/);
  t.match(info(concat(u16(3), u32(1), u32(1))), /malformed/);
  t.match(info(concat(u16(1), Uint8Array.of(0xff))), /malformed/);
  t.equal(info(concat(u16(99), text("whatever"))), "", "unknown infos are ignored");
  t.match(info(new Uint8Array(9000)), /announces 9000 bytes/);
  const list = (payload: Uint8Array): string =>
    shake({ goal: "list" }, greeting(3), reply(NBD_OPT_LIST, NBD_REP_SERVER, payload)).reason;
  t.match(list(u32(1)), /malformed/);
  t.match(list(u32(0xffffffff)), /malformed/);
  t.equal(list(concat(u32(1), text("a"), text("described"))), "");
  const meta = new ClientHandshake({ extendedHeaders: false, contexts: ["base:"] });
  meta.feed(concat(greeting(3), reply(NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK)));
  meta.feed(reply(NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, u16(1)));
  t.equal(meta.state, "dead");
});

t.test("CVE-2023-5215: a size beyond 2^53 is refused, not rounded", async (t) => {
  const huge = concat(u16(0), u32(0x80000000), u32(0), u16(1));
  const client = shake(
    {},
    greeting(3),
    reply(NBD_OPT_GO, NBD_REP_INFO, huge),
    reply(NBD_OPT_GO, NBD_REP_ACK),
  );
  t.equal(client.state, "dead");
  t.match(client.reason, /larger than/);
});

t.test("improper block sizes are ignored", async (t) => {
  const sizes = (a: number, b: number, c: number): number => {
    const info = reply(NBD_OPT_GO, NBD_REP_INFO, concat(u16(3), u32(a), u32(b), u32(c)));
    const export_ = reply(NBD_OPT_GO, NBD_REP_INFO, EXPORT);
    return shake({}, greeting(3), info, export_, reply(NBD_OPT_GO, NBD_REP_ACK)).negotiated!.blockSizes
      .minimum;
  };
  t.equal(sizes(512, 4096, 1 << 20), 512);
  const improper: readonly (readonly [number, number, number])[] = [
    [0, 4096, 1 << 20],
    [3, 4096, 3 << 20],
    [512, 256, 1 << 20],
    [1 << 17, 1 << 17, 1 << 20],
    [512, 4096, 1000],
    [512, 4096, 4097],
    [512, 0, 4096],
  ];
  for (const bad of improper) {
    t.equal(sizes(...bad), 1, String(bad));
  }
});

t.test("a server without GO is asked with EXPORT_NAME", async (t) => {
  const client = shake({ exportName: "vol" }, greeting(3), reply(NBD_OPT_GO, NBD_REP_ERR_UNSUP));
  client.feed(concat(u32(0), u32(4096), u16(5)));
  t.equal(client.state, "transmission");
  t.equal(client.negotiated?.flags, 5);
  const old = shake({ exportName: "vol" }, greeting(0));
  old.feed(concat(u32(0), u32(4096), u16(5), new Uint8Array(124)));
  t.equal(old.state, "transmission", "also one without fixed newstyle, with its 124 zeroes");
});

t.test("errors close politely: ABORT is in the output", async (t) => {
  const refused = shake({}, greeting(3), reply(NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, text("no such thing")));
  t.equal(refused.state, "closed");
  t.equal(refused.reason, "NBD_OPT_GO: NBD_REP_ERR_UNKNOWN: no such thing");
  t.equal(
    Buffer.from(refused.takeOutput()).subarray(-16).toString("hex"),
    "49484156454f50540000000200000000",
  );
  const stopping = new ClientHandshake({ structuredReplies: true });
  stopping.feed(concat(greeting(3), reply(NBD_OPT_EXTENDED_HEADERS, NBD_REP_ERR_SHUTDOWN)));
  t.equal(stopping.state, "closed");
});

t.test("CVE-2019-14842: with tls require nothing but STARTTLS goes out in plaintext", async (t) => {
  const refused = shake({ tls: "require" }, greeting(3), reply(NBD_OPT_STARTTLS, NBD_REP_ERR_UNSUP));
  t.equal(refused.state, "closed");
  const none = shake({ tls: "require" }, greeting(0));
  t.equal(none.state, "closed", "nor to a server without options");
  const injected = shake({ tls: "require" }, greeting(3), reply(NBD_OPT_STARTTLS, NBD_REP_ACK), text("x"));
  t.equal(injected.state, "dead", "plaintext behind the ACK is not believed");
  const allowed = shake({ tls: "allow" }, greeting(3), reply(NBD_OPT_STARTTLS, NBD_REP_ERR_UNSUP));
  t.equal(allowed.state, "option", "with allow it goes on without");
});
