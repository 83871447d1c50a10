// The request stream: framing, payloads of refused requests, and independence of how bytes arrive.
// Rows X3, X5, X11 and the extended forms.
import fc from "fast-check";
import {
  BAD_MAGIC,
  type BlockStatusPayload,
  decodeRequest,
  encodeRequest,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_FLAG_READ_ONLY,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_STRUCTURED_REPLY,
  type Negotiated,
  ReplyMode,
  RequestHeader,
  type RequestListener,
  requestBytes,
  rulesFor,
  ServerTransmission,
  type Verdict,
} from "nbd-protocol-ts";
import t from "tap";
import { concat, MIB, negotiate, text, u32 } from "./helpers.js";

const P = NBD_CMD_FLAG_PAYLOAD_LEN;
const CONTEXTS = ["base:allocation", "lamina:snapshot/a"];

/** Writes down what a stream reports, as lines of text. */
class Recorder implements RequestListener {
  readonly lines: string[] = [];
  #payload = "";

  writeBegins(header: RequestHeader): void {
    this.lines.push(`begin ${describe(header)}`);
    this.#payload = "";
  }

  payload(bytes: Uint8Array, start: number, end: number): void {
    this.#payload += Buffer.from(bytes.subarray(start, end)).toString("hex");
  }

  requestDone(header: RequestHeader, filter: BlockStatusPayload | null): void {
    const ids = filter === null ? "" : ` length ${filter.length} ids ${filter.ids.slice(0, filter.count)}`;
    this.lines.push(`done ${describe(header)} ${this.#payload}${ids}`);
    this.#payload = "";
  }

  requestRefused(header: RequestHeader, verdict: Verdict): void {
    this.lines.push(`refused ${describe(header)} ${verdict.text}`);
  }
}

function describe(header: RequestHeader): string {
  return `${header.type}/${header.flags} #${header.cookieHigh}.${header.cookieLow} ${header.offset}+${header.length}`;
}

function request(
  extended: boolean,
  type: number,
  flags: number,
  offset: number,
  length: number,
  payload: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const header = new Uint8Array(requestBytes(extended));
  encodeRequest(
    new DataView(header.buffer),
    0,
    extended,
    flags,
    type,
    0xfedcba98,
    0x76543210,
    offset,
    length,
  );
  return concat(header, payload);
}

function run(negotiated: Negotiated, bytes: Uint8Array, cuts: readonly number[], flags?: number): string[] {
  const recorder = new Recorder();
  const rules = rulesFor(negotiated);
  if (flags !== undefined) rules.flags = flags;
  const stream = new ServerTransmission(negotiated, rules, recorder);
  let at = 0;
  for (const cut of [...cuts, bytes.length]) at += stream.feed(bytes, at, Math.max(at, cut));
  recorder.lines.push(`${stream.state} ${stream.reason}, ${bytes.length - at} bytes left`);
  return recorder.lines;
}

const SIMPLE = negotiate();
const EXTENDED = negotiate([NBD_OPT_EXTENDED_HEADERS], CONTEXTS);

const u64 = (value: number): Uint8Array => concat(u32(Math.floor(value / 2 ** 32)), u32(value % 2 ** 32));

const STREAMS: readonly (readonly [string, Negotiated, Uint8Array])[] = [
  [
    "simple",
    SIMPLE,
    concat(
      request(false, NBD_CMD_WRITE, 0, 4096, 5, text("hello")),
      request(false, NBD_CMD_READ, 0, 0, 4096),
      request(false, NBD_CMD_WRITE, 0x8000, 0, 7, text("refused")),
      request(false, NBD_CMD_WRITE, 0, 2 ** 40, 3, text("abc")),
      request(false, 77, 0, 0, 4096),
      request(false, NBD_CMD_FLUSH, 0, 0, 0),
      request(false, NBD_CMD_DISC, 0, 0, 0),
      text("nothing may follow"),
    ),
  ],
  [
    "extended",
    EXTENDED,
    concat(
      request(true, NBD_CMD_WRITE, P, 8192, 6, text("world!")),
      request(true, NBD_CMD_TRIM, 0, 0, 2 ** 30),
      request(true, NBD_CMD_READ, P, 0, 9, text("unwelcome")),
      request(true, NBD_CMD_BLOCK_STATUS, P, 512, 16, concat(u64(8192), u32(2), u32(1))),
      request(true, NBD_CMD_BLOCK_STATUS, P, 512, 16, concat(u64(8192), u32(1), u32(1))),
      request(true, NBD_CMD_BLOCK_STATUS, P, 512, 12, concat(u64(2 ** 40), u32(1))),
      request(true, NBD_CMD_BLOCK_STATUS, P, 512, 12, concat(u64(512), u32(9))),
      request(true, NBD_CMD_BLOCK_STATUS, P, 512, 20, new Uint8Array(20)),
      request(true, NBD_CMD_BLOCK_STATUS, 0, 0, 2 ** 30),
      request(true, NBD_CMD_WRITE, 0, 0, 4096),
      text("GET / HTTP/1.1"),
    ),
  ],
];

t.test("requests and payloads come out as they were sent", async (t) => {
  t.matchOnly(run(SIMPLE, STREAMS[0]![2], []), [
    /^begin 1\/0 #4275878552.1985229328 4096\+5$/,
    /^done 1\/0 .* 68656c6c6f$/,
    /^done 0\/0 .* 0\+4096 $/,
    /^refused 1\/32768 .* a flag does not belong to the command$/,
    /^refused 1\/0 .* the range to write ends beyond the export$/,
    /^refused 77\/0 .* the command is unknown$/,
    /^done 3\/0/,
    /^left , 18 bytes left$/,
  ]);
  t.matchOnly(run(EXTENDED, STREAMS[1]![2], []), [
    /^begin 1\/32/,
    /^done 1\/32 .* 776f726c6421$/,
    /^done 4\/0 .* 0\+1073741824 $/,
    /^refused 0\/32 .* takes no payload$/,
    /^done 7\/32 .* length 8192 ids 2,1$/,
    /^refused 7\/32 .* names a metadata context twice/,
    /^refused 7\/32 .* the range ends beyond the export$/,
    /^refused 7\/32 .* names a metadata context/,
    /^refused 7\/32 .* names a metadata context/,
    /^done 7\/0 .* 0\+1073741824 $/,
    /^refused 1\/0 .* needs PAYLOAD_LEN/,
    /^dead a request does not begin with its magic/,
  ]);
});

t.test("cut at every offset, and byte by byte, the stream reports the same", async (t) => {
  for (const [name, negotiated, bytes] of STREAMS) {
    // What is left over after a death depends on where the input was cut; all else must not.
    const plain = (lines: readonly string[]): string[] =>
      lines.map((line) => line.replace(/, \d+ bytes left/, ""));
    const whole = plain(run(negotiated, bytes, []));
    for (let cut = 0; cut <= bytes.length; cut++) {
      const parts = plain(run(negotiated, bytes, [cut]));
      if (parts.join("\n") !== whole.join("\n")) t.same(parts, whole, `${name} cut at ${cut}`);
    }
    const everywhere = Array.from({ length: bytes.length }, (_, i) => i);
    t.same(plain(run(negotiated, bytes, everywhere)), whole, `${name} byte by byte`);
  }
});

t.test("X3: a wrong magic is seen with its fourth byte", async (t) => {
  const header = new RequestHeader();
  const view = new DataView(text("GET / HTTP/1.1\r\nHost: example\r\n").buffer);
  t.equal(decodeRequest(view, 0, 3, false, header), 0);
  t.equal(decodeRequest(view, 0, 4, false, header), BAD_MAGIC);
  const other = new DataView(request(true, 0, 0, 0, 0).buffer);
  t.equal(
    decodeRequest(other, 0, 32, false, header),
    BAD_MAGIC,
    "an extended request where none was agreed on",
  );
  t.equal(decodeRequest(new DataView(request(false, 0, 0, 0, 0).buffer), 0, 28, true, header), BAD_MAGIC);
});

t.test("X5: after a refused WRITE of any size the next request is understood", async (t) => {
  for (const length of [1, 511, 512, 65536, MIB + 1, 33 * MIB]) {
    const bytes = concat(
      request(false, NBD_CMD_WRITE, 0, 0, length, new Uint8Array(length).fill(0x25)),
      request(false, NBD_CMD_FLUSH, 0, 0, 0),
    );
    const lines = run(SIMPLE, bytes, [], SIMPLE.flags | NBD_FLAG_READ_ONLY);
    t.match(lines, [/^refused 1\/0/, /^done 3\/0/, /^header/], `${length} bytes`);
  }
});

t.test("a WRITE of 4 GiB − 1 is dropped at its header", async (t) => {
  t.match(run(SIMPLE, request(false, NBD_CMD_WRITE, 0, 0, 0xffffffff), []), [
    /^dead the payload is too long/,
  ]);
});

t.test("X1: cookies and offsets come back bit by bit", async (t) => {
  const u32s = fc.integer({ min: 0, max: 0xffffffff });
  fc.assert(
    fc.property(fc.boolean(), u32s, u32s, u32s, u32s, u32s, (extended, ch, cl, oh, ol, length) => {
      const view = new DataView(new ArrayBuffer(40));
      encodeRequest(view, 3, extended, 0, NBD_CMD_TRIM, ch, cl, 0, length);
      view.setUint32(3 + 16, oh);
      view.setUint32(3 + 20, ol);
      const header = new RequestHeader();
      const size = requestBytes(extended);
      for (let have = 0; have < size; have++) {
        if (decodeRequest(view, 3, have, extended, header) !== 0) return false;
      }
      if (decodeRequest(view, 3, size, extended, header) !== size) return false;
      const exact = header.offset === Number((BigInt(oh) << 32n) | BigInt(ol));
      const same = header.cookieHigh === ch && header.cookieLow === cl && header.length === length;
      return exact && same && header.offsetHigh === oh && header.offsetLow === ol;
    }),
  );
  t.pass("for any halves");
});

t.test("the stream sees a grown export at once", async (t) => {
  const recorder = new Recorder();
  const rules = rulesFor(SIMPLE);
  const stream = new ServerTransmission(SIMPLE, rules, recorder);
  const read = request(false, NBD_CMD_READ, 0, rules.size, 512);
  stream.feed(read);
  rules.size += 4096;
  stream.feed(read);
  t.match(recorder.lines, [/^refused/, /^done/]);
});

t.test("modes decide the form of requests", async (t) => {
  t.equal(negotiate([NBD_OPT_STRUCTURED_REPLY]).mode, ReplyMode.Structured);
  const lines = run(negotiate([NBD_OPT_STRUCTURED_REPLY]), request(true, NBD_CMD_READ, 0, 0, 512), []);
  t.match(lines, [/^dead/], "structured sessions keep compact requests");
});
