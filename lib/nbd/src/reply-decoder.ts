/**
 * Replies on the wire, read by the client: headers and the payload of chunks. Whether a reply may say what
 * it says is judged by ClientTransmission.
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
  NBD_MAX_STRING,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_SIMPLE_REPLY_BYTES,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_BYTES,
  NBD_STRUCTURED_REPLY_MAGIC,
} from "./constants.js";
import { ReplyMode } from "./reply.js";
import { BAD_MAGIC } from "./request.js";
import { decodeDisplayText } from "./text.js";
import { getU64 } from "./wire.js";

/** One reply, or one chunk of one. Reused. */
export class ReplyHeader {
  /** A simple reply; `type` and `length` mean nothing then. */
  simple = false;
  /** NBD_REPLY_FLAG_ bits; DONE for a simple reply. */
  flags = 0;
  /** NBD_REPLY_TYPE_ number of a chunk. */
  type = 0;
  /** Of a simple reply. */
  errno = 0;
  cookieHigh = 0;
  cookieLow = 0;
  /** Of an extended reply: the offset of the request. */
  offset = 0;
  /** Bytes of payload of a chunk. */
  length = 0;
}

/**
 * Decodes the reply header at `at`, of which `available` bytes have arrived. Returns the bytes it takes, 0
 * when more are needed, or BAD_MAGIC. With structured replies both forms are legal.
 */
export function decodeReply(
  view: DataView,
  at: number,
  available: number,
  mode: ReplyMode,
  out: ReplyHeader,
): number {
  if (available < 4) return 0;
  const magic = view.getUint32(at);
  const simple = magic === NBD_SIMPLE_REPLY_MAGIC && mode !== ReplyMode.Extended;
  const structured = magic === NBD_STRUCTURED_REPLY_MAGIC && mode === ReplyMode.Structured;
  const extended = magic === NBD_EXTENDED_REPLY_MAGIC && mode === ReplyMode.Extended;
  if (!simple && !structured && !extended) return BAD_MAGIC;
  const size = simple
    ? NBD_SIMPLE_REPLY_BYTES
    : structured
      ? NBD_STRUCTURED_REPLY_BYTES
      : NBD_EXTENDED_REPLY_BYTES;
  if (available < size) return 0;
  out.simple = simple;
  out.cookieHigh = view.getUint32(at + 8);
  out.cookieLow = view.getUint32(at + 12);
  out.errno = simple ? view.getUint32(at + 4) : 0;
  out.flags = simple ? NBD_REPLY_FLAG_DONE : view.getUint16(at + 4);
  out.type = simple ? 0 : view.getUint16(at + 6);
  out.offset = extended ? getU64(view, at + 16) : 0;
  out.length = simple ? 0 : extended ? getU64(view, at + 24) : view.getUint32(at + 16);
  return size;
}

export interface ErrorChunk {
  readonly errno: number;
  readonly text: string;
  /** Of an ERROR_OFFSET chunk, else −1. */
  readonly offset: number;
}

/** Longest payload that an error chunk can have. */
export const ERROR_CHUNK_BYTES_MAX = NBD_ERROR_BYTES + NBD_MAX_STRING + NBD_ERROR_OFFSET_BYTES;

/** Payload of a chunk of any error type; null when its lengths contradict one another. */
export function parseErrorChunk(payload: Uint8Array, type: number): ErrorChunk | null {
  if (payload.length < NBD_ERROR_BYTES) return null;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const errno = view.getUint32(0);
  const length = view.getUint16(4);
  const tail = type === NBD_REPLY_TYPE_ERROR_OFFSET ? NBD_ERROR_OFFSET_BYTES : 0;
  if (length > NBD_MAX_STRING || NBD_ERROR_BYTES + length + tail > payload.length) return null;
  const end = NBD_ERROR_BYTES + length;
  const text = decodeDisplayText(payload, NBD_ERROR_BYTES, end);
  return { errno, text, offset: tail === 0 ? -1 : getU64(view, end) };
}

export interface BlockStatusChunk {
  readonly contextId: number;
  /** Pairs of (length in bytes, status flags). */
  readonly runs: Float64Array;
}

/** Payload of a BLOCK_STATUS or, `extended`, BLOCK_STATUS_EXT chunk; null when it is malformed. */
export function parseBlockStatus(payload: Uint8Array, extended: boolean): BlockStatusChunk | null {
  const lead = extended ? NBD_BLOCK_STATUS_EXT_BYTES : NBD_BLOCK_STATUS_BYTES;
  const step = extended ? NBD_BLOCK_DESCRIPTOR_EXT_BYTES : NBD_BLOCK_DESCRIPTOR_BYTES;
  const count = (payload.length - lead) / step;
  if (count < 1 || !Number.isInteger(count)) return null;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (extended && view.getUint32(4) !== count) return null;
  const runs = new Float64Array(2 * count);
  for (let i = 0; i < count; i++) {
    const at = lead + i * step;
    runs[2 * i] = extended ? getU64(view, at) : view.getUint32(at);
    runs[2 * i + 1] = extended ? getU64(view, at + 8) : view.getUint32(at + 4);
    if (runs[2 * i] === 0) return null;
  }
  return { contextId: view.getUint32(0), runs };
}
