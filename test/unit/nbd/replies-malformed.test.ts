// What the server's encoders write, read back byte by byte: rows X1, X2, C1–C4, C12, Z7 and the extended
// forms, and QEMU's limit of 1000 bytes for error chunks.
import fc from "fast-check";
import {
  blockStatusBytes,
  chunkHeaderBytes,
  DATA_HEADER_BYTES_MAX,
  decodeReply,
  ERROR_TEXT_BYTES_MAX,
  encodeBlockStatus,
  encodeError,
  encodeErrorChunk,
  encodeErrorOffset,
  encodeErrorText,
  encodeNone,
  encodeOffsetData,
  encodeOffsetHole,
  encodeSimpleReply,
  encodeSuccess,
  NBD_EIO,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  parseBlockStatus,
  parseErrorChunk,
  REPLY_BYTES_MAX,
  ReplyHeader,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import { GIB, text } from "./helpers.js";

const TO = { cookieHigh: 0xdeadbeef, cookieLow: 0xfeedface, offsetHigh: 0xffffffff, offsetLow: 0x80000001 };
const CHUNKED = [ReplyMode.Structured, ReplyMode.Extended];
const ROOM = 1 << 20;

/** Runs an encoder at an odd place and returns what it wrote; fails when it wrote anything else. */
function written(encode: (view: DataView, at: number) => number): Uint8Array {
  const AT = 7;
  const bytes = new Uint8Array(ROOM).fill(0xa5);
  const length = encode(new DataView(bytes.buffer), AT);
  const outside =
    bytes.subarray(0, AT).every((b) => b === 0xa5) && bytes.subarray(AT + length).every((b) => b === 0xa5);
  if (!outside) throw new Error("the encoder wrote outside the bytes it reported");
  return bytes.slice(AT, AT + length);
}

function headerOf(bytes: Uint8Array, mode: ReplyMode): ReplyHeader {
  const header = new ReplyHeader();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = decodeReply(view, 0, bytes.length, mode, header);
  if (size <= 0) throw new Error("no reply header");
  return header;
}

t.test("X1: simple replies, byte by byte", async (t) => {
  const bytes = written((view, at) => encodeSimpleReply(view, at, TO, NBD_EIO));
  t.equal(Buffer.from(bytes).toString("hex"), "6744669800000005deadbeeffeedface");
});

t.test("X1: structured and extended chunks, byte by byte", async (t) => {
  const hex = (encode: (view: DataView, at: number) => number): string =>
    Buffer.from(written(encode)).toString("hex");
  const cookie = "deadbeeffeedface";
  t.equal(
    hex((v, at) => encodeNone(v, at, 1, TO)),
    `668e33ef00010000${cookie}00000000`,
  );
  t.equal(
    hex((v, at) => encodeNone(v, at, 2, TO)),
    `6e8a278c00010000${cookie}ffffffff800000010000000000000000`,
    "an extended reply repeats the offset of the request, all 64 bits",
  );
  t.equal(
    hex((v, at) => encodeOffsetData(v, at, 1, TO, 0, 2 ** 40 + 512, 4096)),
    `668e33ef00000001${cookie}000010080000010000000200`,
  );
  t.equal(
    hex((v, at) => encodeOffsetHole(v, at, 1, TO, 1, 4096, 0xffffffff)),
    `668e33ef00010002${cookie}0000000c0000000000001000ffffffff`,
  );
  t.equal(
    hex((v, at) => encodeErrorChunk(v, at, 1, TO, 1, NBD_EIO, text("bad"))),
    `668e33ef00018001${cookie}00000009000000050003626164`,
  );
  t.equal(
    hex((v, at) => encodeErrorOffset(v, at, 1, TO, 0, NBD_EIO, text("bad"), 8192)),
    `668e33ef00008002${cookie}000000110000000500036261640000000000002000`,
  );
});

t.test("X2: success without payload is simple, or NONE with extended headers", async (t) => {
  const magic = (mode: ReplyMode): number =>
    new DataView(written((v, at) => encodeSuccess(v, at, mode, TO)).buffer).getUint32(0);
  t.equal(magic(ReplyMode.Simple), NBD_SIMPLE_REPLY_MAGIC);
  t.equal(magic(ReplyMode.Structured), NBD_SIMPLE_REPLY_MAGIC);
  t.equal(magic(ReplyMode.Extended), NBD_EXTENDED_REPLY_MAGIC);
});

t.test("X2: errors are simple only where nothing else was negotiated", async (t) => {
  const magic = (mode: ReplyMode): number =>
    new DataView(written((v, at) => encodeError(v, at, mode, TO, 5, text("x"))).buffer).getUint32(0);
  t.equal(magic(ReplyMode.Simple), NBD_SIMPLE_REPLY_MAGIC);
  t.equal(magic(ReplyMode.Structured), NBD_STRUCTURED_REPLY_MAGIC);
  t.equal(magic(ReplyMode.Extended), NBD_EXTENDED_REPLY_MAGIC);
});

t.test("error chunks: DONE, lengths that add up, and no more than QEMU takes", async (t) => {
  for (const mode of CHUNKED) {
    for (const message of ["", "disk on fire", "ü".repeat(4096)]) {
      const bytes = written((v, at) => encodeError(v, at, mode, TO, NBD_EIO, text(message)));
      const header = headerOf(bytes, mode);
      t.equal(header.flags, NBD_REPLY_FLAG_DONE);
      t.equal(header.length, bytes.length - chunkHeaderBytes(mode));
      t.ok(header.length < 1000, "QEMU drops a connection at 1000 bytes");
      t.ok(bytes.length <= REPLY_BYTES_MAX);
      const error = parseErrorChunk(bytes.slice(chunkHeaderBytes(mode)), NBD_REPLY_TYPE_ERROR);
      t.equal(error?.errno, NBD_EIO);
      t.ok(message.startsWith(error?.text.replace(/\ufffd+$/, "") ?? "?"));
    }
    const far = written((v, at) => encodeErrorOffset(v, at, mode, TO, 1, 5, text("x".repeat(5000)), 2 ** 52));
    t.ok(far.length <= REPLY_BYTES_MAX);
    const error = parseErrorChunk(far.slice(chunkHeaderBytes(mode)), NBD_REPLY_TYPE_ERROR_OFFSET);
    t.equal(error?.offset, 2 ** 52);
  }
});

t.test("error text is cut between characters", async (t) => {
  for (const message of ["x", "é", "€", "𝄞"]) {
    const bytes = encodeErrorText(message.repeat(2000));
    t.ok(bytes.length <= ERROR_TEXT_BYTES_MAX && bytes.length > ERROR_TEXT_BYTES_MAX - 4);
    t.doesNotThrow(() => new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  }
});

t.test("C1: the header of a data chunk has a bound that callers may rely on", async (t) => {
  for (const mode of CHUNKED) {
    const bytes = written((v, at) => encodeOffsetData(v, at, mode, TO, 0, 2 ** 52, 32 * 1024 * 1024));
    t.ok(bytes.length <= DATA_HEADER_BYTES_MAX);
    t.equal(headerOf(bytes, mode).length, 32 * 1024 * 1024 + 8, "Z7: payload plus the fixed 8 bytes");
  }
});

t.test("C4: a hole is 12 bytes of payload, whatever its size", async (t) => {
  for (const mode of CHUNKED) {
    for (const length of [1, 512, 32 * 1024 * 1024, 0xffffffff]) {
      const bytes = written((v, at) => encodeOffsetHole(v, at, mode, TO, 0, 2 ** 44, length));
      t.equal(headerOf(bytes, mode).length, 12);
      const view = new DataView(bytes.buffer);
      t.equal(view.getBigUint64(chunkHeaderBytes(mode)), 2n ** 44n);
      t.equal(view.getUint32(chunkHeaderBytes(mode) + 8), length);
    }
  }
});

interface Status {
  readonly count: number;
  readonly runs: readonly (readonly [number, number])[];
}

function status(
  mode: ReplyMode,
  runs: readonly (readonly [number, number])[],
  requested: number,
  reqOne = false,
  room = ROOM - 7,
): Status {
  const flat = Float64Array.from(runs.flat());
  const bytes = written((v, at) =>
    encodeBlockStatus(v, at, room, mode, TO, 1, 77, flat, runs.length, requested, reqOne),
  );
  if (bytes.length > room) throw new Error("the chunk is larger than its room");
  const header = headerOf(bytes, mode);
  const chunk = parseBlockStatus(bytes.slice(chunkHeaderBytes(mode)), mode === ReplyMode.Extended);
  if (chunk === null || chunk.contextId !== 77 || header.length !== bytes.length - chunkHeaderBytes(mode)) {
    throw new Error("malformed block status");
  }
  const pairs: [number, number][] = [];
  for (let i = 0; i < chunk.runs.length; i += 2) pairs.push([chunk.runs[i]!, chunk.runs[i + 1]!]);
  return { count: pairs.length, runs: pairs };
}

t.test("C12: block status merges, stops behind the request, and obeys REQ_ONE", async (t) => {
  for (const mode of CHUNKED) {
    const runs = [
      [4096, 0],
      [4096, 0],
      [8192, 3],
      [4096, 0],
    ] as const;
    t.same(status(mode, runs, 20480).runs, [
      [8192, 0],
      [8192, 3],
      [4096, 0],
    ]);
    t.same(status(mode, runs, 8192).runs, [[8192, 0]], "nothing begins at the end of the request");
    t.same(
      status(mode, runs, 8193).runs,
      [
        [8192, 0],
        [8192, 3],
      ],
      "the last may reach beyond it",
    );
    t.same(status(mode, runs, 20480, true).runs, [[8192, 0]], "REQ_ONE: one, whole");
    t.same(status(mode, runs, 6144, true).runs, [[6144, 0]], "REQ_ONE: no longer than the request");
    const room = blockStatusBytes(mode, 2);
    t.equal(status(mode, runs, 20480, false, room).count, 2, "no more than fit");
  }
});

t.test("CVE-2025-47711: extents of 4 GiB and more in 32-bit descriptors", async (t) => {
  for (const length of [2 ** 32 - 65536, 2 ** 32 - 512, 2 ** 32, 2 ** 32 + 512, 2 ** 45]) {
    for (const requested of [512, 2 ** 32 - 512, 2 ** 32 - 1]) {
      const { runs } = status(
        ReplyMode.Structured,
        [
          [length, 3],
          [4096, 0],
        ],
        requested,
      );
      t.ok(runs[0]![0] > 0 && runs[0]![0] % 512 === 0, `${length} for ${requested}: whole sectors`);
      t.ok(runs[0]![0] === length || runs.length === 1, "nothing behind an extent that was cut");
      const one = status(ReplyMode.Structured, [[length, 3]], requested, true).runs[0]![0];
      t.ok(one > 0 && one <= requested);
      const wide = status(ReplyMode.Extended, [[length, 3]], requested).runs[0]![0];
      t.equal(wide, length, "64-bit descriptors say it whole");
    }
  }
});

t.test("property: block status descriptors keep the rules, whatever the map", async (t) => {
  const run = fc.tuple(
    fc.oneof(fc.integer({ min: 1, max: 1 << 20 }), fc.constantFrom(GIB, 4 * GIB, 2 ** 40)),
    fc.constantFrom(0, 3),
  );
  fc.assert(
    fc.property(
      fc.constantFrom(...CHUNKED),
      fc.array(run, { minLength: 1, maxLength: 30 }),
      fc.oneof(fc.integer({ min: 1, max: 1 << 22 }), fc.constant(2 ** 32 - 1)),
      fc.boolean(),
      fc.integer({ min: 1, max: 40 }),
      (mode, runs, requested, reqOne, descriptors) => {
        const said = status(mode, runs, requested, reqOne, blockStatusBytes(mode, descriptors)).runs;
        const before = said.slice(0, -1).reduce((sum, [length]) => sum + length, 0);
        if (said.length < 1 || said.length > descriptors || before >= requested) return false;
        if (reqOne && (said.length !== 1 || said[0]![0] > requested)) return false;
        // What is said of each byte is what the map says of it.
        let at = 0;
        for (const [length, flags] of said) {
          if (statusAt(runs, at) !== flags || statusAt(runs, at + length - 1) !== flags) return false;
          at += length;
        }
        return said.every(([, flags], i) => i === 0 || flags !== said[i - 1]![1]);
      },
    ),
  );
  t.pass("100 maps");
});

function statusAt(runs: readonly (readonly [number, number])[], at: number): number | undefined {
  let end = 0;
  for (const [length, flags] of runs) {
    end += length;
    if (at < end) return flags;
  }
  return undefined;
}
