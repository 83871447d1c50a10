/**
 * Requests on the wire, both ways. Nothing here allocates: the decoder fills an object that the caller
 * keeps, the encoder writes where it is told.
 *
 * The decoder knows framing only. What a request may say is decided by `validateRequest` (validate.ts), so
 * that there is one place where requests are refused.
 */
import {
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_WRITE,
  NBD_EXTENDED_REQUEST_BYTES,
  NBD_EXTENDED_REQUEST_MAGIC,
  NBD_REQUEST_BYTES,
  NBD_REQUEST_MAGIC,
} from "./constants.js";
import { getU64, setU64 } from "./wire.js";

/** One request. Reused for every request of a connection, or embedded in a pooled object. */
export class RequestHeader {
  /** NBD_CMD_FLAG_ bits. */
  flags = 0;
  /** NBD_CMD_ number, also an unknown one. */
  type = 0;
  /** The cookie, opaque, in two halves. */
  cookieHigh = 0;
  cookieLow = 0;
  /** The offset exactly as received; extended replies repeat it. */
  offsetHigh = 0;
  offsetLow = 0;
  /** Bytes. Exact below 2^53, otherwise at least 2^53 (wire.ts). */
  offset = 0;
  /** Bytes: effect length, or payload length where the request carries one. Exactness as `offset`. */
  length = 0;
  /** Bytes of payload that follow the header on the wire, whether the request is legal or not. */
  payloadLength = 0;
}

/** Result of `decodeRequest`: the stream does not continue with a request. Drop the connection. */
export const BAD_MAGIC = -1;

/** Bytes of a request header in a session with or without extended headers. */
export function requestBytes(extended: boolean): number {
  return extended ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
}

/**
 * Decodes the request header at `at`, of which `available` bytes have arrived, into `out`. Returns the bytes
 * it takes (28 or 32); 0 when more bytes are needed, `out` is untouched then; or BAD_MAGIC, which is seen as
 * soon as four bytes are there.
 */
export function decodeRequest(
  view: DataView,
  at: number,
  available: number,
  extended: boolean,
  out: RequestHeader,
): number {
  if (available < 4) return 0;
  const magic = view.getUint32(at);
  if (magic !== (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC)) return BAD_MAGIC;
  const size = requestBytes(extended);
  if (available < size) return 0;
  const flags = view.getUint16(at + 4);
  const type = view.getUint16(at + 6);
  out.flags = flags;
  out.type = type;
  out.cookieHigh = view.getUint32(at + 8);
  out.cookieLow = view.getUint32(at + 12);
  out.offsetHigh = view.getUint32(at + 16);
  out.offsetLow = view.getUint32(at + 20);
  out.offset = getU64(view, at + 16);
  const length = extended ? getU64(view, at + 24) : view.getUint32(at + 24);
  out.length = length;
  // Without extended headers only WRITE has a payload, and PAYLOAD_LEN means nothing.
  const carries = extended ? (flags & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0 : type === NBD_CMD_WRITE;
  out.payloadLength = carries ? length : 0;
  return size;
}

/**
 * Writes a request header at `at` and returns its length. Says whatever it is told, legal or not: `flags`
 * and `type` are 16 bits, cookie halves 32, `offset` and `length` whole numbers below 2^53 (`length` below
 * 2^32 without extended headers). The payload, if any, is the caller's to add.
 */
export function encodeRequest(
  view: DataView,
  at: number,
  extended: boolean,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): number {
  view.setUint32(at, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  setU64(view, at + 16, offset);
  if (extended) setU64(view, at + 24, length);
  else view.setUint32(at + 24, length);
  return requestBytes(extended);
}
