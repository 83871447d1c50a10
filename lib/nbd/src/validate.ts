/**
 * The one place where requests are refused.
 *
 * `validateRequest` maps every request to exactly one verdict: execute it, refuse it with one error number
 * and one sentence, leave (NBD_CMD_DISC), or drop the connection. Verdicts are constants: nothing is
 * allocated, and a reply can carry their text as it is.
 *
 * Invariants
 *  1. After Execute: the command is known, its flags are legal for it and were advertised, the range lies
 *     inside the export and on the enforced block size, length > 0 (except FLUSH), and the payload fits the
 *     maximum. Code behind it may assert that.
 *  2. The verdict never changes how many bytes follow the header: after Refuse the caller consumes exactly
 *     `header.payloadLength` bytes, then replies. After Drop and Leave nothing more is read.
 *  3. A payload that is consumed is bounded by PAYLOAD_DRAIN_BYTES_MAX.
 *
 * When several rules are broken the first in the order of the function wins: framing, command, flags,
 * payload, shutdown, permission, range, block size, lengths.
 */
import {
  NBD_BLOCK_STATUS_PAYLOAD_BYTES,
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
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_CONTEXT_ID_BYTES,
  NBD_DEFAULT_MAXIMUM_PAYLOAD,
  NBD_DEFAULT_MINIMUM_BLOCK,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EOVERFLOW,
  NBD_EPERM,
  NBD_ESHUTDOWN,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_SUCCESS,
} from "./constants.js";
import { ReplyMode } from "./reply.js";
import type { RequestHeader } from "./request.js";
import { encodeErrorText } from "./text.js";
import { getU64 } from "./wire.js";

/**
 * Longest payload of a refused request that is consumed to stay in step, in bytes. A longer one is taken for
 * an attack and the connection is dropped. It is twice the largest payload that "SHOULD NOT be considered a
 * denial of service attack", so that a client that is merely wrong is told so.
 */
export const PAYLOAD_DRAIN_BYTES_MAX = 2 * NBD_DEFAULT_MAXIMUM_PAYLOAD;

export const VerdictAction = {
  /** Do what it says, then reply. */
  Execute: 0,
  /** Consume `payloadLength` bytes, then reply with `errno` and `text`. */
  Refuse: 1,
  /** NBD_CMD_DISC: finish what is in flight, then close. There is no reply. */
  Leave: 2,
  /** Drop the connection without a reply. */
  Drop: 3,
} as const;
export type VerdictAction = (typeof VerdictAction)[keyof typeof VerdictAction];

export interface Verdict {
  readonly action: VerdictAction;
  /** NBD_E… of the reply; 0 unless Refuse. */
  readonly errno: number;
  /** One sentence for a person; empty when executed. */
  readonly text: string;
  /** `text` as it goes into an error chunk. */
  readonly textBytes: Uint8Array;
}

/** What the requests of one session are held against. Mutable: a volume grows while it is open. */
export class TransmissionRules {
  /** Size of the export in bytes, at most SIZE_BYTES_MAX. */
  size = 0;
  /** Transmission flags as they were sent to this client. */
  flags = 0;
  /** Form of the replies, which decides the form of requests too. */
  mode: ReplyMode = ReplyMode.Simple;
  /** Offsets and lengths must be multiples of this power of two. 1 where the client negotiated no sizes. */
  minimumBlock = NBD_DEFAULT_MINIMUM_BLOCK;
  /** Largest payload of a WRITE, and largest READ, in bytes. */
  maximumPayload = NBD_DEFAULT_MAXIMUM_PAYLOAD;
  /** Largest READ with NBD_CMD_FLAG_DF in bytes: at least NBD_MIN_DF_READ, at most `maximumPayload`. */
  maximumDf = NBD_DEFAULT_MAXIMUM_PAYLOAD;
  /** Metadata contexts that the client selected. */
  contextCount = 0;
  /** Every further request gets NBD_ESHUTDOWN. */
  shuttingDown = false;
}

function refuse(errno: number, text: string): Verdict {
  return Object.freeze({ action: VerdictAction.Refuse, errno, text, textBytes: encodeErrorText(text) });
}

function end(action: VerdictAction, text: string): Verdict {
  return Object.freeze({ action, errno: NBD_SUCCESS, text, textBytes: encodeErrorText(text) });
}

/** Every verdict there is. */
export const VERDICTS = Object.freeze({
  execute: end(VerdictAction.Execute, ""),
  leave: end(VerdictAction.Leave, "the client disconnects"),
  payloadAttack: end(VerdictAction.Drop, "the payload is too long to be consumed"),
  commandUnknown: refuse(NBD_EINVAL, "the command is unknown"),
  commandUnadvertised: refuse(NBD_EINVAL, "the command was not advertised"),
  flagUnknown: refuse(NBD_EINVAL, "a flag does not belong to the command"),
  fuaUnadvertised: refuse(NBD_EINVAL, "FUA was not advertised"),
  dfUnadvertised: refuse(NBD_EINVAL, "DF was not advertised"),
  fastZeroUnadvertised: refuse(NBD_EINVAL, "FAST_ZERO was not advertised"),
  payloadFlagMissing: refuse(NBD_EINVAL, "a write needs PAYLOAD_LEN in a session with extended headers"),
  payloadUnexpected: refuse(NBD_EINVAL, "the command takes no payload"),
  payloadTooLong: refuse(NBD_EINVAL, "the payload is longer than the maximum"),
  payloadMalformed: refuse(
    NBD_EINVAL,
    "the payload of a block status request is not a length and context ids",
  ),
  contextUnknown: refuse(
    NBD_EINVAL,
    "the payload names a metadata context twice or one that was not selected",
  ),
  shutdown: refuse(NBD_ESHUTDOWN, "the server is shutting down"),
  readOnly: refuse(NBD_EPERM, "the export is read-only"),
  pastEnd: refuse(NBD_EINVAL, "the range ends beyond the export"),
  writePastEnd: refuse(NBD_ENOSPC, "the range to write ends beyond the export"),
  unaligned: refuse(NBD_EINVAL, "offset and length are not multiples of the minimum block size"),
  empty: refuse(NBD_EINVAL, "the length is zero"),
  readTooLong: refuse(NBD_EINVAL, "the read is longer than the maximum payload"),
  readTooLongToSplit: refuse(NBD_EOVERFLOW, "the read is longer than the maximum payload"),
  dfTooLong: refuse(NBD_EOVERFLOW, "the read is too long to be sent in one chunk"),
  flushArguments: refuse(NBD_EINVAL, "offset and length of a flush must be zero"),
  noContext: refuse(NBD_EINVAL, "no metadata context was selected"),
});

/** What a command may carry and needs; undefined for unknown commands. Indexed by NBD_CMD_ number. */
interface CommandRule {
  /** Flags besides FUA (always legal once advertised) and PAYLOAD_LEN (judged apart). */
  readonly flags: number;
  /** Transmission flag that must have been advertised; 0 when none. */
  readonly advertised: number;
  readonly changes: boolean;
}

const RULES: readonly (CommandRule | undefined)[] = (() => {
  const rules: (CommandRule | undefined)[] = [];
  const rule = (type: number, flags: number, advertised: number, changes: boolean): void => {
    rules[type] = { flags, advertised, changes };
  };
  rule(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, false);
  rule(NBD_CMD_WRITE, 0, 0, true);
  rule(NBD_CMD_DISC, 0, 0, false);
  rule(NBD_CMD_FLUSH, 0, NBD_FLAG_SEND_FLUSH, false);
  rule(NBD_CMD_TRIM, 0, NBD_FLAG_SEND_TRIM, true);
  rule(NBD_CMD_CACHE, 0, NBD_FLAG_SEND_CACHE, false);
  const zeroFlags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
  rule(NBD_CMD_WRITE_ZEROES, zeroFlags, NBD_FLAG_SEND_WRITE_ZEROES, true);
  rule(NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 0, false);
  return rules;
})();

/** The verdict on a request that `decodeRequest` returned. Allocates nothing. */
export function validateRequest(header: RequestHeader, rules: TransmissionRules): Verdict {
  const type = header.type;
  if (type === NBD_CMD_DISC) return VERDICTS.leave;
  const payload = header.payloadLength;
  if (isAttack(payload, rules)) return VERDICTS.payloadAttack;
  const rule = type < RULES.length ? RULES[type] : undefined;
  if (rule === undefined) return VERDICTS.commandUnknown;
  if (rule.advertised !== 0 && (rules.flags & rule.advertised) === 0) return VERDICTS.commandUnadvertised;

  const flags = header.flags;
  if (flags !== 0) {
    const verdict = judgeFlags(flags, rule, rules);
    if (verdict !== VERDICTS.execute) return verdict;
  }
  if (rules.mode === ReplyMode.Extended) {
    const verdict = judgePayloadFlag(header, rules);
    if (verdict !== VERDICTS.execute) return verdict;
  }
  if (payload > rules.maximumPayload) return VERDICTS.payloadTooLong;
  if (rules.shuttingDown) return VERDICTS.shutdown;
  if (rule.changes && (rules.flags & NBD_FLAG_READ_ONLY) !== 0) return VERDICTS.readOnly;

  if (type === NBD_CMD_FLUSH) {
    return header.offset === 0 && header.length === 0 ? VERDICTS.execute : VERDICTS.flushArguments;
  }
  if (type === NBD_CMD_BLOCK_STATUS) {
    if (rules.contextCount === 0 || rules.mode === ReplyMode.Simple) return VERDICTS.noContext;
    // The effect length is in the payload: parseBlockStatusPayload judges the range.
    if (payload > 0) return VERDICTS.execute;
  }
  const verdict = judgeRange(header.offset, header.length, type, rules);
  if (verdict !== VERDICTS.execute || type !== NBD_CMD_READ) return verdict;
  return judgeRead(header, rules);
}

/**
 * Whether a payload is too long to be consumed. With extended headers the client announces a payload on
 * purpose, and one beyond the advertised or default maximum SHOULD end the connection.
 */
function isAttack(payload: number, rules: TransmissionRules): boolean {
  const bound = rules.mode === ReplyMode.Extended ? NBD_DEFAULT_MAXIMUM_PAYLOAD : PAYLOAD_DRAIN_BYTES_MAX;
  return payload > bound && payload > rules.maximumPayload;
}

function judgeFlags(flags: number, rule: CommandRule, rules: TransmissionRules): Verdict {
  const advertised = rules.flags;
  if ((flags & NBD_CMD_FLAG_FUA) !== 0 && (advertised & NBD_FLAG_SEND_FUA) === 0) {
    return VERDICTS.fuaUnadvertised;
  }
  const always =
    rules.mode === ReplyMode.Extended ? NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_PAYLOAD_LEN : NBD_CMD_FLAG_FUA;
  if ((flags & ~(rule.flags | always)) !== 0) return VERDICTS.flagUnknown;
  if ((flags & NBD_CMD_FLAG_DF) !== 0 && (advertised & NBD_FLAG_SEND_DF) === 0) {
    return VERDICTS.dfUnadvertised;
  }
  if ((flags & NBD_CMD_FLAG_FAST_ZERO) !== 0 && (advertised & NBD_FLAG_SEND_FAST_ZERO) === 0) {
    return VERDICTS.fastZeroUnadvertised;
  }
  return VERDICTS.execute;
}

function judgePayloadFlag(header: RequestHeader, rules: TransmissionRules): Verdict {
  const carries = (header.flags & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0;
  if (header.type === NBD_CMD_WRITE) return carries ? VERDICTS.execute : VERDICTS.payloadFlagMissing;
  if (!carries) return VERDICTS.execute;
  const filters = header.type === NBD_CMD_BLOCK_STATUS && (rules.flags & NBD_FLAG_BLOCK_STATUS_PAYLOAD) !== 0;
  if (!filters) return VERDICTS.payloadUnexpected;
  const ids = header.payloadLength - NBD_BLOCK_STATUS_PAYLOAD_BYTES;
  const wellFormed = ids >= NBD_CONTEXT_ID_BYTES && ids % NBD_CONTEXT_ID_BYTES === 0;
  if (!wellFormed) return VERDICTS.payloadMalformed;
  // More ids than there are contexts: one is unknown or there twice. So an executed payload is small.
  if (ids > rules.contextCount * NBD_CONTEXT_ID_BYTES) return VERDICTS.contextUnknown;
  return VERDICTS.execute;
}

function judgeRange(offset: number, length: number, type: number, rules: TransmissionRules): Verdict {
  // Both below 2^54 when they are accepted, and rounding is monotonic: the sum cannot come out too small.
  if (offset + length > rules.size) {
    const writes = type === NBD_CMD_WRITE || type === NBD_CMD_WRITE_ZEROES;
    return writes ? VERDICTS.writePastEnd : VERDICTS.pastEnd;
  }
  if (length === 0) return VERDICTS.empty;
  const block = rules.minimumBlock;
  if (block !== 1 && (offset % block !== 0 || length % block !== 0)) return VERDICTS.unaligned;
  return VERDICTS.execute;
}

function judgeRead(header: RequestHeader, rules: TransmissionRules): Verdict {
  if (header.length > rules.maximumPayload) {
    return rules.mode === ReplyMode.Simple ? VERDICTS.readTooLong : VERDICTS.readTooLongToSplit;
  }
  if ((header.flags & NBD_CMD_FLAG_DF) !== 0 && header.length > rules.maximumDf) return VERDICTS.dfTooLong;
  return VERDICTS.execute;
}

/** Result of `parseBlockStatusPayload`; reused. */
export class BlockStatusPayload {
  /** Effect length in bytes; inside the export when the verdict is Execute. */
  length = 0;
  /** Context ids to answer, `count` of them. */
  readonly ids: Uint32Array;
  count = 0;

  /** `contexts`: how many contexts the session selected, so how many ids a legal payload can have. */
  constructor(contexts: number) {
    this.ids = new Uint32Array(contexts);
  }
}

/**
 * Second half of the verdict on a BLOCK_STATUS request with PAYLOAD_LEN, once its payload is at `at`.
 * `selected` are the ids of the session's contexts. Execute fills `out`; Refuse needs nothing more consumed.
 */
export function parseBlockStatusPayload(
  view: DataView,
  at: number,
  header: RequestHeader,
  rules: TransmissionRules,
  selected: readonly number[],
  out: BlockStatusPayload,
): Verdict {
  const count = (header.payloadLength - NBD_BLOCK_STATUS_PAYLOAD_BYTES) / NBD_CONTEXT_ID_BYTES;
  out.length = getU64(view, at);
  out.count = 0;
  for (let i = 0; i < count; i++) {
    const id = view.getUint32(at + NBD_BLOCK_STATUS_PAYLOAD_BYTES + i * NBD_CONTEXT_ID_BYTES);
    if (!selected.includes(id) || hasId(out, id)) return VERDICTS.contextUnknown;
    out.ids[out.count] = id;
    out.count++;
  }
  return judgeRange(header.offset, out.length, NBD_CMD_BLOCK_STATUS, rules);
}

function hasId(payload: BlockStatusPayload, id: number): boolean {
  for (let i = 0; i < payload.count; i++) if (payload.ids[i] === id) return true;
  return false;
}
