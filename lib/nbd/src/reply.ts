/**
 * Replies on the wire, written by the server. Each encoder writes at `at` and returns the bytes written;
 * none allocates. Payload data of a read is never copied here: it follows its header on the wire.
 *
 * Which form a reply has (proto.md, "Simple reply message", "Structured reply chunk message"):
 *
 *   mode        READ                     BLOCK_STATUS   everything else     errors
 *   Simple      simple, data behind it   (illegal)      simple              simple
 *   Structured  chunks only              chunks only    simple when it succeeds, else an error chunk
 *   Extended    extended chunks for everything; a simple reply never appears
 */
import {
  NBD_BLOCK_DESCRIPTOR_BYTES,
  NBD_BLOCK_DESCRIPTOR_EXT_BYTES,
  NBD_BLOCK_STATUS_BYTES,
  NBD_BLOCK_STATUS_EXT_BYTES,
  NBD_ERROR_BYTES,
  NBD_ERROR_OFFSET_BYTES,
  NBD_EXTENDED_REPLY_BYTES,
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_MAX_DESCRIPTORS,
  NBD_MAX_MINIMUM_BLOCK,
  NBD_OFFSET_DATA_BYTES,
  NBD_OFFSET_HOLE_BYTES,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_BYTES,
  NBD_STRUCTURED_REPLY_MAGIC,
  NBD_SUCCESS,
} from "./constants.js";
import { ERROR_TEXT_BYTES_MAX } from "./text.js";
import { setU64 } from "./wire.js";

/** Form of the replies of a session. Extended also means extended requests. */
export const ReplyMode = { Simple: 0, Structured: 1, Extended: 2 } as const;
export type ReplyMode = (typeof ReplyMode)[keyof typeof ReplyMode];

/** The request that is answered: its cookie, and its offset as received. A RequestHeader is one. */
export interface ReplyTo {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetHigh: number;
  readonly offsetLow: number;
}

/** Room that is enough for any one header, hole, success or error with its text. */
export const REPLY_BYTES_MAX =
  NBD_EXTENDED_REPLY_BYTES + NBD_ERROR_BYTES + ERROR_TEXT_BYTES_MAX + NBD_ERROR_OFFSET_BYTES;
/** Room for the header of a data chunk in any mode. */
export const DATA_HEADER_BYTES_MAX = NBD_EXTENDED_REPLY_BYTES + NBD_OFFSET_DATA_BYTES;
/** Longest extent that a BLOCK_STATUS descriptor of 32 bits can have and still be a multiple of any block size. */
const COMPACT_EXTENT_MAX = 2 ** 32 - NBD_MAX_MINIMUM_BLOCK;

export function encodeSimpleReply(view: DataView, at: number, to: ReplyTo, errno: number): number {
  view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC);
  view.setUint32(at + 4, errno);
  view.setUint32(at + 8, to.cookieHigh);
  view.setUint32(at + 12, to.cookieLow);
  return NBD_SIMPLE_REPLY_BYTES;
}

/** Bytes of a chunk's header in `mode`, which is not Simple. */
export function chunkHeaderBytes(mode: ReplyMode): number {
  return mode === ReplyMode.Extended ? NBD_EXTENDED_REPLY_BYTES : NBD_STRUCTURED_REPLY_BYTES;
}

/** Header of a chunk with `length` bytes of payload; `mode` is not Simple. */
export function encodeChunkHeader(
  view: DataView,
  at: number,
  mode: ReplyMode,
  to: ReplyTo,
  flags: number,
  type: number,
  length: number,
): number {
  const extended = mode === ReplyMode.Extended;
  view.setUint32(at, extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, to.cookieHigh);
  view.setUint32(at + 12, to.cookieLow);
  if (!extended) {
    view.setUint32(at + 16, length);
    return NBD_STRUCTURED_REPLY_BYTES;
  }
  view.setUint32(at + 16, to.offsetHigh);
  view.setUint32(at + 20, to.offsetLow);
  setU64(view, at + 24, length);
  return NBD_EXTENDED_REPLY_BYTES;
}

/** Chunk of type NONE: the request is done, successfully unless an error chunk came before. */
export function encodeNone(view: DataView, at: number, mode: ReplyMode, to: ReplyTo): number {
  return encodeChunkHeader(view, at, mode, to, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0);
}

/** Success of a request whose reply has no payload (every one but READ and BLOCK_STATUS), in any mode. */
export function encodeSuccess(view: DataView, at: number, mode: ReplyMode, to: ReplyTo): number {
  // Structured sessions may answer these with the simple form too, which is shorter.
  if (mode !== ReplyMode.Extended) return encodeSimpleReply(view, at, to, NBD_SUCCESS);
  return encodeNone(view, at, mode, to);
}

/**
 * Head of an OFFSET_DATA chunk; `length` bytes of data (at least 1) from `offset` of the export follow on
 * the wire. `flags`: NBD_REPLY_FLAG_DONE only when no error can happen any more and nothing else follows.
 */
export function encodeOffsetData(
  view: DataView,
  at: number,
  mode: ReplyMode,
  to: ReplyTo,
  flags: number,
  offset: number,
  length: number,
): number {
  const payload = NBD_OFFSET_DATA_BYTES + length;
  const size = encodeChunkHeader(view, at, mode, to, flags, NBD_REPLY_TYPE_OFFSET_DATA, payload);
  setU64(view, at + size, offset);
  return size + NBD_OFFSET_DATA_BYTES;
}

/** OFFSET_HOLE: `length` bytes (1 … 2^32 − 1) from `offset` read as zeroes. */
export function encodeOffsetHole(
  view: DataView,
  at: number,
  mode: ReplyMode,
  to: ReplyTo,
  flags: number,
  offset: number,
  length: number,
): number {
  const type = NBD_REPLY_TYPE_OFFSET_HOLE;
  const size = encodeChunkHeader(view, at, mode, to, flags, type, NBD_OFFSET_HOLE_BYTES);
  setU64(view, at + size, offset);
  view.setUint32(at + size + 8, length);
  return size + NBD_OFFSET_HOLE_BYTES;
}

/**
 * The final error reply in the form that `mode` asks for, to any command. `text` is for a person, at most
 * ERROR_TEXT_BYTES_MAX bytes (encodeErrorText cuts it; a longer one is cut here without regard for
 * characters), and not sent in simple replies.
 */
export function encodeError(
  view: DataView,
  at: number,
  mode: ReplyMode,
  to: ReplyTo,
  errno: number,
  text: Uint8Array,
): number {
  if (mode === ReplyMode.Simple) return encodeSimpleReply(view, at, to, errno);
  return encodeErrorChunk(view, at, mode, to, NBD_REPLY_FLAG_DONE, errno, text);
}

/** ERROR chunk. `flags` without DONE where more chunks follow. */
export function encodeErrorChunk(
  view: DataView,
  at: number,
  mode: ReplyMode,
  to: ReplyTo,
  flags: number,
  errno: number,
  text: Uint8Array,
): number {
  const length = Math.min(text.length, ERROR_TEXT_BYTES_MAX);
  const payload = NBD_ERROR_BYTES + length;
  const size = encodeChunkHeader(view, at, mode, to, flags, NBD_REPLY_TYPE_ERROR, payload);
  return size + encodeErrorPayload(view, at + size, errno, text, length);
}

/** ERROR_OFFSET chunk: the error happened at `offset` of the export, inside the request. */
export function encodeErrorOffset(
  view: DataView,
  at: number,
  mode: ReplyMode,
  to: ReplyTo,
  flags: number,
  errno: number,
  text: Uint8Array,
  offset: number,
): number {
  const length = Math.min(text.length, ERROR_TEXT_BYTES_MAX);
  const payload = NBD_ERROR_BYTES + length + NBD_ERROR_OFFSET_BYTES;
  const type = NBD_REPLY_TYPE_ERROR_OFFSET;
  let end = at + encodeChunkHeader(view, at, mode, to, flags, type, payload);
  end += encodeErrorPayload(view, end, errno, text, length);
  setU64(view, end, offset);
  return end + NBD_ERROR_OFFSET_BYTES - at;
}

function encodeErrorPayload(
  view: DataView,
  at: number,
  errno: number,
  text: Uint8Array,
  length: number,
): number {
  view.setUint32(at, errno);
  view.setUint16(at + 4, length);
  for (let i = 0; i < length; i++) view.setUint8(at + NBD_ERROR_BYTES + i, text[i]!);
  return NBD_ERROR_BYTES + length;
}

/** Room that a BLOCK_STATUS chunk with up to `descriptors` descriptors takes. */
export function blockStatusBytes(mode: ReplyMode, descriptors: number): number {
  if (mode === ReplyMode.Extended) {
    return (
      NBD_EXTENDED_REPLY_BYTES + NBD_BLOCK_STATUS_EXT_BYTES + descriptors * NBD_BLOCK_DESCRIPTOR_EXT_BYTES
    );
  }
  return NBD_STRUCTURED_REPLY_BYTES + NBD_BLOCK_STATUS_BYTES + descriptors * NBD_BLOCK_DESCRIPTOR_BYTES;
}

/**
 * BLOCK_STATUS or BLOCK_STATUS_EXT chunk for one context.
 *
 * `runs` holds `runCount` (at least 1) pairs of (length in bytes, status flags), lengths > 0, consecutive
 * from the offset of the request. The encoder keeps the rules of the descriptors whatever the runs are:
 * equal neighbours are merged; nothing begins at or behind the end of the request; with REQ_ONE there is one
 * descriptor, no longer than the request; and in the 32-bit form an extent of 4 GiB or more is cut short,
 * with nothing behind it. At most `room` bytes (for at least one descriptor) and NBD_MAX_DESCRIPTORS are
 * written; a client asks again for the rest.
 *
 * `requested` is the effect length of the request, `reqOne` whether it had NBD_CMD_FLAG_REQ_ONE.
 */
export function encodeBlockStatus(
  view: DataView,
  at: number,
  room: number,
  mode: ReplyMode,
  to: ReplyTo,
  flags: number,
  contextId: number,
  runs: Float64Array,
  runCount: number,
  requested: number,
  reqOne: boolean,
): number {
  const extended = mode === ReplyMode.Extended;
  const step = extended ? NBD_BLOCK_DESCRIPTOR_EXT_BYTES : NBD_BLOCK_DESCRIPTOR_BYTES;
  const lead = blockStatusBytes(mode, 0);
  const fitting = Math.floor((room - lead) / step);
  const limit = reqOne ? 1 : Math.min(fitting, NBD_MAX_DESCRIPTORS);
  const extentMax = extended ? Number.MAX_SAFE_INTEGER : COMPACT_EXTENT_MAX;

  let count = 0;
  let covered = 0;
  let end = at + lead;
  let i = 0;
  while (i < runCount && count < limit && covered < requested) {
    const status = runs[2 * i + 1]!;
    let length = runs[2 * i]!;
    i++;
    while (i < runCount && runs[2 * i + 1] === status && covered + length < requested) {
      length += runs[2 * i]!;
      i++;
    }
    if (reqOne) length = Math.min(length, requested);
    const cut = length > extentMax;
    if (cut) length = extentMax;
    if (extended) {
      setU64(view, end, length);
      setU64(view, end + 8, status);
    } else {
      view.setUint32(end, length);
      view.setUint32(end + 4, status);
    }
    end += step;
    covered += length;
    count++;
    if (cut) break;
  }

  const type = extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS;
  const header = chunkHeaderBytes(mode);
  encodeChunkHeader(view, at, mode, to, flags, type, end - at - header);
  view.setUint32(at + header, contextId);
  if (extended) view.setUint32(at + header + 4, count);
  return end - at;
}
