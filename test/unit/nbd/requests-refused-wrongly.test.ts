// validateRequest: every illegal request has exactly one error and one sentence. Rows X3–X9, X12, X13,
// Z3–Z6, C3, C7, C9–C12 of the conformance list, and the unadvertised commands that have crashed servers.
import fc from "fast-check";
import {
  commandName,
  ERROR_TEXT_BYTES_MAX,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_RESIZE,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_STRUCTURED_REPLY,
  PAYLOAD_DRAIN_BYTES_MAX,
  ReplyMode,
  RequestHeader,
  rulesFor,
  TransmissionRules,
  VERDICTS,
  type Verdict,
  VerdictAction,
  validateRequest,
} from "nbd-protocol-ts";
import t from "tap";
import { ALL_FLAGS, GIB, MIB, MODES, negotiate, VOL } from "./helpers.js";

const COMMANDS = [0, 1, 3, 4, 5, 6, 7];
const FUA = NBD_CMD_FLAG_FUA;

function rulesOf(change: Partial<TransmissionRules> = {}): TransmissionRules {
  const rules = new TransmissionRules();
  rules.size = GIB;
  rules.flags = ALL_FLAGS;
  rules.mode = ReplyMode.Structured;
  rules.minimumBlock = 512;
  rules.contextCount = 1;
  return Object.assign(rules, change);
}

function request(
  type: number,
  flags: number,
  offset: number,
  length: number,
  extended = false,
): RequestHeader {
  const header = new RequestHeader();
  header.type = type;
  header.flags = flags;
  header.offset = offset;
  header.length = length;
  const carries = extended ? (flags & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0 : type === NBD_CMD_WRITE;
  header.payloadLength = carries ? length : 0;
  return header;
}

function judge(
  type: number,
  flags: number,
  offset: number,
  length: number,
  change: Partial<TransmissionRules> = {},
): Verdict {
  const rules = rulesOf(change);
  return validateRequest(request(type, flags, offset, length, rules.mode === ReplyMode.Extended), rules);
}

function legalLength(type: number): number {
  return type === NBD_CMD_FLUSH ? 0 : 4096;
}

t.test("legal requests are executed, in every mode", async (t) => {
  for (const mode of MODES) {
    for (const type of COMMANDS) {
      if (mode === ReplyMode.Simple && type === NBD_CMD_BLOCK_STATUS) continue;
      const carry = mode === ReplyMode.Extended && type === NBD_CMD_WRITE ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
      const at = type === NBD_CMD_FLUSH ? 0 : GIB - 4096;
      const flags = mode === ReplyMode.Simple ? ALL_FLAGS & ~NBD_FLAG_SEND_DF : ALL_FLAGS;
      t.equal(
        judge(type, carry, at, legalLength(type), { mode, flags }),
        VERDICTS.execute,
        commandName(type),
      );
    }
  }
});

t.test("every refusal is one error number with one sentence that fits a reply", async (t) => {
  const legalErrors = [NBD_EPERM, NBD_EINVAL, NBD_ENOSPC, NBD_EOVERFLOW, NBD_ESHUTDOWN];
  for (const [name, verdict] of Object.entries(VERDICTS)) {
    if (verdict.action !== VerdictAction.Refuse) {
      t.equal(verdict.errno, 0, name);
      continue;
    }
    t.ok(legalErrors.includes(verdict.errno), name);
    t.match(verdict.text, /^[a-zA-Z].*[a-z]$/, name);
    t.ok(verdict.textBytes.length > 0 && verdict.textBytes.length < ERROR_TEXT_BYTES_MAX);
  }
});

t.test("X4: unknown commands are EINVAL", async (t) => {
  for (const type of [NBD_CMD_RESIZE, 9, 255, 256, 0x8000, 0xffff]) {
    t.equal(judge(type, 0, 0, 4096), VERDICTS.commandUnknown, String(type));
    t.equal(judge(type, 0, 0, 4096, { mode: ReplyMode.Extended }), VERDICTS.commandUnknown);
  }
});

t.test("X4: a flag that is unknown or belongs to another command is EINVAL", async (t) => {
  const legal: Readonly<Record<number, number>> = {
    [NBD_CMD_READ]: FUA | NBD_CMD_FLAG_DF,
    [NBD_CMD_WRITE]: FUA,
    [NBD_CMD_FLUSH]: FUA,
    [NBD_CMD_TRIM]: FUA,
    [NBD_CMD_CACHE]: FUA,
    [NBD_CMD_WRITE_ZEROES]: FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
    [NBD_CMD_BLOCK_STATUS]: FUA | NBD_CMD_FLAG_REQ_ONE,
  };
  for (const type of COMMANDS) {
    for (let bit = 1; bit <= 0x8000; bit *= 2) {
      const verdict = judge(type, bit, 0, legalLength(type));
      const want = (legal[type]! & bit) !== 0 ? VERDICTS.execute : VERDICTS.flagUnknown;
      t.equal(verdict, want, `${commandName(type)} with flag 0x${bit.toString(16)}`);
    }
  }
});

t.test("X4: what was not advertised is EINVAL, not a crash", async (t) => {
  const bare = { flags: NBD_FLAG_HAS_FLAGS };
  for (const [type, flag] of [
    [NBD_CMD_FLUSH, NBD_FLAG_SEND_FLUSH],
    [NBD_CMD_TRIM, NBD_FLAG_SEND_TRIM],
    [NBD_CMD_CACHE, NBD_FLAG_SEND_CACHE],
    [NBD_CMD_WRITE_ZEROES, NBD_FLAG_SEND_WRITE_ZEROES],
  ] as const) {
    t.equal(judge(type, 0, 0, legalLength(type), bare), VERDICTS.commandUnadvertised);
    t.equal(judge(type, 0, 0, legalLength(type), { flags: flag }), VERDICTS.execute);
  }
  for (const type of [NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_BLOCK_STATUS]) {
    t.equal(judge(type, FUA, 0, 4096, bare), VERDICTS.fuaUnadvertised);
  }
  t.equal(judge(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 4096, bare), VERDICTS.dfUnadvertised);
});

t.test("X5: the payload of a rejected WRITE is named, so that it can be consumed", async (t) => {
  const header = request(NBD_CMD_WRITE, 0, 0, 8192);
  t.equal(validateRequest(header, rulesOf({ flags: NBD_FLAG_READ_ONLY })).action, VerdictAction.Refuse);
  t.equal(header.payloadLength, 8192);
});

t.test("X6, X7: beyond the end is EINVAL, for writes ENOSPC, without overflow", async (t) => {
  const ranges: readonly (readonly [number, number])[] = [
    [GIB, 512],
    [GIB - 512, 1024],
    [0, GIB + 512],
    [2 ** 53, 512],
    [2 ** 64 - 512, 512],
    [2 ** 64 - 512, 1024],
    [2 ** 63, 0],
    [GIB + 512, 0],
  ];
  for (const [offset, length] of ranges) {
    for (const type of COMMANDS) {
      if (type === NBD_CMD_FLUSH || (type === NBD_CMD_WRITE && length > MIB)) continue;
      const writes = type === NBD_CMD_WRITE || type === NBD_CMD_WRITE_ZEROES;
      const want = writes ? VERDICTS.writePastEnd : VERDICTS.pastEnd;
      t.equal(judge(type, 0, offset, length), want, `${commandName(type)} ${offset}+${length}`);
    }
  }
  const extended = { mode: ReplyMode.Extended };
  for (const length of [2 ** 53 - 1, 2 ** 53, 2 ** 63, 2 ** 64 - 2 ** 11]) {
    t.equal(judge(NBD_CMD_TRIM, 0, 512, length, extended), VERDICTS.pastEnd, String(length));
    t.equal(judge(NBD_CMD_BLOCK_STATUS, 0, 512, length, extended), VERDICTS.pastEnd, String(length));
  }
  const huge = { size: Number.MAX_SAFE_INTEGER, minimumBlock: 1, mode: ReplyMode.Extended };
  t.equal(judge(NBD_CMD_TRIM, 0, 1, Number.MAX_SAFE_INTEGER - 1, huge), VERDICTS.execute);
  t.equal(judge(NBD_CMD_TRIM, 0, 2, Number.MAX_SAFE_INTEGER - 1, huge), VERDICTS.pastEnd);
  t.equal(judge(NBD_CMD_TRIM, 0, 1, Number.MAX_SAFE_INTEGER, huge), VERDICTS.pastEnd);
});

t.test("X6, X13: writing to a read-only export is EPERM", async (t) => {
  const change = { flags: ALL_FLAGS | NBD_FLAG_READ_ONLY };
  for (const type of [NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES]) {
    t.equal(judge(type, 0, 0, 4096, change), VERDICTS.readOnly);
    t.equal(judge(type, 0, GIB, 4096, change), VERDICTS.readOnly, "whatever the range");
  }
  for (const type of [NBD_CMD_READ, NBD_CMD_FLUSH, NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS]) {
    t.equal(judge(type, 0, 0, legalLength(type), change), VERDICTS.execute);
  }
});

t.test(
  "X6, Z5: unaligned to the minimum block is EINVAL, but only for those who negotiated it",
  async (t) => {
    for (const type of COMMANDS.filter((type) => type !== NBD_CMD_FLUSH)) {
      for (const [offset, length] of [
        [1, 512],
        [0, 511],
        [256, 512],
        [512, 513],
      ] as const) {
        t.equal(judge(type, 0, offset, length), VERDICTS.unaligned);
        t.equal(judge(type, 0, offset, length, { minimumBlock: 1 }), VERDICTS.execute);
      }
    }
    t.equal(rulesFor(negotiate([], [], [3])).minimumBlock, 512);
    t.equal(rulesFor(negotiate([], [], [])).minimumBlock, 1, "Z3: by default single bytes are fine");
    t.equal(rulesFor(negotiate()).maximumPayload, VOL.blockSizes.maximumPayload);
  },
);

t.test("X8: a length of zero is refused, not a reason to disconnect", async (t) => {
  for (const type of COMMANDS.filter((type) => type !== NBD_CMD_FLUSH)) {
    t.equal(judge(type, 0, 0, 0), VERDICTS.empty);
    t.equal(judge(type, 0, GIB, 0), VERDICTS.empty, "also at the very end");
  }
});

t.test("X9, C10: ENOTSUP is never a refusal, EOVERFLOW only where the specification has it", async (t) => {
  for (const verdict of Object.values(VERDICTS)) {
    t.not(verdict.errno, 95);
    if (verdict.errno === NBD_EOVERFLOW) t.match(verdict.text, /read/);
  }
  const flags = ALL_FLAGS & ~NBD_FLAG_SEND_FAST_ZERO;
  const fast = NBD_CMD_FLAG_FAST_ZERO;
  t.equal(judge(NBD_CMD_WRITE_ZEROES, fast, 0, 4096, { flags }), VERDICTS.fastZeroUnadvertised);
});

t.test("X11: DISC is never refused, whatever it carries", async (t) => {
  for (const mode of MODES) {
    for (const flags of [0, FUA, 0xffff]) {
      t.equal(judge(NBD_CMD_DISC, flags, 2 ** 63, 0xffffffff, { mode }), VERDICTS.leave);
    }
  }
});

t.test("X12: while shutting down, new requests get ESHUTDOWN and DISC still leaves", async (t) => {
  for (const type of COMMANDS) {
    t.equal(judge(type, 0, 0, legalLength(type), { shuttingDown: true }), VERDICTS.shutdown);
  }
  t.equal(judge(NBD_CMD_DISC, 0, 0, 0, { shuttingDown: true }), VERDICTS.leave);
});

t.test("Z4, Z6: lengths beyond the maximum payload", async (t) => {
  const change = { size: 2 ** 50, maximumPayload: MIB, maximumDf: MIB };
  t.equal(judge(NBD_CMD_WRITE, 0, 0, MIB, change), VERDICTS.execute);
  t.equal(judge(NBD_CMD_WRITE, 0, 0, MIB + 512, change), VERDICTS.payloadTooLong);
  t.equal(judge(NBD_CMD_WRITE, 0, 0, 32 * MIB, change), VERDICTS.payloadTooLong, "32 MiB are no attack");
  t.equal(judge(NBD_CMD_WRITE, 0, 0, PAYLOAD_DRAIN_BYTES_MAX, change), VERDICTS.payloadTooLong);
  t.equal(judge(NBD_CMD_WRITE, 0, 0, PAYLOAD_DRAIN_BYTES_MAX + 1, change), VERDICTS.payloadAttack);
  t.equal(judge(NBD_CMD_WRITE, 0, 0, 0xffffffff, change), VERDICTS.payloadAttack);
  const unlimited = { ...change, maximumPayload: 0xffffffff };
  t.equal(judge(NBD_CMD_WRITE, 0, 0, 0xfffffe00, unlimited), VERDICTS.execute);
  for (const type of [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS]) {
    t.equal(judge(type, 0, 0, 4 * GIB - 512, change), VERDICTS.execute, "no payload, no limit");
    t.equal(judge(type, 0, 0, 2 ** 50, { ...change, mode: ReplyMode.Extended }), VERDICTS.execute);
  }
  const simple = { ...change, mode: ReplyMode.Simple };
  t.equal(judge(NBD_CMD_READ, 0, 0, MIB + 512, simple), VERDICTS.readTooLong);
  t.equal(judge(NBD_CMD_READ, 0, 0, MIB + 512, change), VERDICTS.readTooLongToSplit);
});

t.test("C3: a DF read that is too long is EOVERFLOW, and 64 KiB always works", async (t) => {
  const change = { maximumDf: 65536 };
  t.equal(judge(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 65536, change), VERDICTS.execute);
  t.equal(judge(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 65536 + 512, change), VERDICTS.dfTooLong);
  t.equal(judge(NBD_CMD_READ, 0, 0, 65536 + 512, change), VERDICTS.execute);
});

t.test("C7: FUA is accepted on every command once advertised", async (t) => {
  for (const type of COMMANDS) {
    t.equal(judge(type, FUA, 0, legalLength(type), { flags: ALL_FLAGS }), VERDICTS.execute);
    const flags = ALL_FLAGS & ~NBD_FLAG_SEND_FUA;
    t.equal(judge(type, FUA, 0, legalLength(type), { flags }), VERDICTS.fuaUnadvertised);
  }
});

t.test("C9: NO_HOLE comes with WRITE_ZEROES, also without TRIM", async (t) => {
  const flags = NBD_FLAG_SEND_WRITE_ZEROES;
  t.equal(judge(NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 0, 4096, { flags }), VERDICTS.execute);
});

t.test("C12: BLOCK_STATUS without a selected context is EINVAL", async (t) => {
  t.equal(judge(NBD_CMD_BLOCK_STATUS, 0, 0, 4096, { contextCount: 0 }), VERDICTS.noContext);
  t.equal(rulesFor(negotiate([NBD_OPT_STRUCTURED_REPLY])).contextCount, 0);
});

t.test("CVE-2025-47711, CVE-2025-47712: the largest BLOCK_STATUS, aligned and not", async (t) => {
  const change = { size: 16 * GIB };
  for (const offset of [0, 512, 4 * GIB]) {
    t.equal(judge(NBD_CMD_BLOCK_STATUS, 0, offset, 2 ** 32 - 512, change), VERDICTS.execute);
    t.equal(judge(NBD_CMD_BLOCK_STATUS, 0, offset, 2 ** 32 - 1, change), VERDICTS.unaligned);
  }
  const bytes = { ...change, minimumBlock: 1 };
  t.equal(judge(NBD_CMD_BLOCK_STATUS, 0, 3, 2 ** 32 - 1, bytes), VERDICTS.execute);
});

t.test("a flush with offset or length is EINVAL", async (t) => {
  t.equal(judge(NBD_CMD_FLUSH, 0, 512, 0), VERDICTS.flushArguments);
  t.equal(judge(NBD_CMD_FLUSH, 0, 0, 512), VERDICTS.flushArguments);
});

t.test("extended headers: PAYLOAD_LEN belongs to WRITE, and to BLOCK_STATUS when advertised", async (t) => {
  const P = NBD_CMD_FLAG_PAYLOAD_LEN;
  const change = { mode: ReplyMode.Extended, contextCount: 2 };
  t.equal(judge(NBD_CMD_WRITE, 0, 0, 4096, change), VERDICTS.payloadFlagMissing);
  t.equal(judge(NBD_CMD_WRITE, P, 0, 4096, change), VERDICTS.execute);
  t.equal(judge(NBD_CMD_WRITE, P, 0, 0, change), VERDICTS.empty);
  for (const type of COMMANDS.filter((type) => type !== NBD_CMD_WRITE && type !== NBD_CMD_BLOCK_STATUS)) {
    t.equal(judge(type, P, 0, 4096, change), VERDICTS.payloadUnexpected, commandName(type));
  }
  t.equal(judge(NBD_CMD_WRITE, P, 0, 4096), VERDICTS.flagUnknown, "not without extended headers");
  t.equal(judge(99, P, 0, 4096, change), VERDICTS.commandUnknown);
  t.equal(judge(NBD_CMD_READ, P, 0, 33 * MIB, change), VERDICTS.payloadAttack);
  for (const [length, want] of [
    [0, VERDICTS.payloadMalformed],
    [8, VERDICTS.payloadMalformed],
    [11, VERDICTS.payloadMalformed],
    [12, VERDICTS.execute],
    [16, VERDICTS.execute],
    [20, VERDICTS.contextUnknown],
    [MIB, VERDICTS.contextUnknown],
  ] as const) {
    t.equal(judge(NBD_CMD_BLOCK_STATUS, P, 0, length, change), want, `payload of ${length}`);
  }
  const unadvertised = { ...change, flags: ALL_FLAGS & ~0x1000 };
  t.equal(judge(NBD_CMD_BLOCK_STATUS, P, 0, 12, unadvertised), VERDICTS.payloadUnexpected);
  t.equal(rulesFor(negotiate([NBD_OPT_EXTENDED_HEADERS])).mode, ReplyMode.Extended);
});

t.test("property: whatever is executed keeps every promise that the code behind relies on", async (t) => {
  const number = fc.oneof(
    fc.integer({ min: 0, max: 20 }),
    fc.constantFrom(
      511,
      512,
      4096,
      MIB,
      GIB - 512,
      GIB,
      GIB + 512,
      2 ** 32 - 1,
      2 ** 53 - 1,
      2 ** 53,
      2 ** 64,
    ),
    fc.integer({ min: 0, max: 2 * GIB }).map((value) => value - (value % 512)),
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 10 }),
      fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff })),
      number,
      number,
      fc.record({
        flags: fc.integer({ min: 0, max: 0xffff }),
        mode: fc.constantFrom(...MODES),
        minimumBlock: fc.constantFrom(1, 512, 4096),
        contextCount: fc.integer({ min: 0, max: 3 }),
        shuttingDown: fc.boolean(),
      }),
      (type, flags, offset, length, change) => {
        const rules = rulesOf(change);
        const header = request(type, flags, offset, length, rules.mode === ReplyMode.Extended);
        const verdict = validateRequest(header, rules);
        if (verdict.action === VerdictAction.Refuse) {
          return header.payloadLength <= PAYLOAD_DRAIN_BYTES_MAX && verdict.errno !== 0;
        }
        if (verdict.action !== VerdictAction.Execute || header.payloadLength > 0) {
          return header.payloadLength <= rules.maximumPayload || verdict.action >= VerdictAction.Leave;
        }
        if (type === NBD_CMD_FLUSH) return offset === 0 && length === 0;
        const inside = length > 0 && offset + length <= rules.size;
        const aligned = offset % rules.minimumBlock === 0 && length % rules.minimumBlock === 0;
        const writable = (rules.flags & NBD_FLAG_READ_ONLY) === 0 || ![1, 4, 6].includes(type);
        const fits = type !== NBD_CMD_READ || length <= rules.maximumPayload;
        return inside && aligned && writable && fits && type <= NBD_CMD_BLOCK_STATUS;
      },
    ),
    { numRuns: 5000 },
  );
  t.pass("5000 requests");
});
