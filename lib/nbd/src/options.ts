/**
 * Data of options and of the replies to them, as both sides write and read it.
 *
 * Parsers take exactly the bytes of one message and return null for anything the specification forbids.
 * Every length in the data is compared with what is really there before it is believed
 * (CVE-2022-26495); nothing is allocated by a length that a peer names.
 */

import type { ByteQueue } from "./byte-queue.js";
import {
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_BLOCK_SIZE_BYTES,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_EXPORT_BYTES,
  NBD_INFO_NAME,
  NBD_MAX_STRING,
  NBD_REP_INFO,
  NBD_REP_MAGIC_HIGH,
  NBD_REP_MAGIC_LOW,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
  OPTION_HEADER_BYTES,
  OPTION_REPLY_HEADER_BYTES,
} from "./constants.js";
import type { BlockSizes, SelectedContext } from "./export.js";
import { decodeDisplayText, decodeString, encodeText, NO_BYTES } from "./text.js";
import { getU64, setU64 } from "./wire.js";

function viewOf(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

// ---- Headers --------------------------------------------------------------------------------------------

/** An option with its data, legal or not. `claimedLength` is what the header says. */
export function putOption(
  out: ByteQueue,
  option: number,
  data: Uint8Array = NO_BYTES,
  claimedLength: number = data.length,
): void {
  const at = out.extend(OPTION_HEADER_BYTES);
  out.view.setUint32(at, IHAVEOPT_HIGH);
  out.view.setUint32(at + 4, IHAVEOPT_LOW);
  out.view.setUint32(at + 8, option);
  out.view.setUint32(at + 12, claimedLength);
  out.put(data);
}

export function putOptionReply(
  out: ByteQueue,
  option: number,
  type: number,
  data: Uint8Array = NO_BYTES,
): void {
  putOptionReplyHeader(out, option, type, data.length);
  out.put(data);
}

function putOptionReplyHeader(out: ByteQueue, option: number, type: number, length: number): void {
  const at = out.extend(OPTION_REPLY_HEADER_BYTES);
  out.view.setUint32(at, NBD_REP_MAGIC_HIGH);
  out.view.setUint32(at + 4, NBD_REP_MAGIC_LOW);
  out.view.setUint32(at + 8, option);
  out.view.setUint32(at + 12, type);
  out.view.setUint32(at + 16, length);
}

// ---- NBD_OPT_INFO, NBD_OPT_GO ---------------------------------------------------------------------------

export interface InfoRequest {
  readonly name: string;
  /** NBD_INFO_ types asked for, each once, unknown ones included. */
  readonly infos: ReadonlySet<number>;
}

/** u32 length of name, name, u16 count, count × u16; nothing behind. */
export function parseInfoRequest(data: Uint8Array): InfoRequest | null {
  if (data.length < 6) return null;
  const view = viewOf(data);
  const nameLength = view.getUint32(0);
  if (nameLength > data.length - 6 || nameLength > NBD_MAX_STRING) return null;
  const name = decodeString(data, 4, 4 + nameLength);
  const count = view.getUint16(4 + nameLength);
  if (name === null || data.length !== 6 + nameLength + 2 * count) return null;
  const infos = new Set<number>();
  for (let i = 0; i < count; i++) infos.add(view.getUint16(6 + nameLength + 2 * i));
  return { name, infos };
}

export function encodeInfoRequest(name: string, infos: readonly number[]): Uint8Array {
  const bytes = encodeText(name);
  const data = new Uint8Array(6 + bytes.length + 2 * infos.length);
  const view = viewOf(data);
  view.setUint32(0, bytes.length);
  data.set(bytes, 4);
  view.setUint16(4 + bytes.length, infos.length);
  infos.forEach((info, i) => {
    view.setUint16(6 + bytes.length + 2 * i, info);
  });
  return data;
}

// ---- NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT ------------------------------------------------

export interface ContextRequest {
  readonly name: string;
  readonly queries: readonly string[];
}

/** u32 length of name, name, u32 count, count × (u32 length, query); nothing behind. */
export function parseContextRequest(data: Uint8Array): ContextRequest | null {
  if (data.length < 8) return null;
  const view = viewOf(data);
  const nameLength = view.getUint32(0);
  if (nameLength > data.length - 8 || nameLength > NBD_MAX_STRING) return null;
  const name = decodeString(data, 4, 4 + nameLength);
  if (name === null) return null;
  const count = view.getUint32(4 + nameLength);
  const queries: string[] = [];
  let at = 8 + nameLength;
  // Each query takes at least four bytes of the data, so a hostile count ends the loop early.
  for (let i = 0; i < count; i++) {
    if (data.length - at < 4) return null;
    const length = view.getUint32(at);
    at += 4;
    if (length > data.length - at) return null;
    const query = decodeString(data, at, at + length);
    if (query === null) return null;
    queries.push(query);
    at += length;
  }
  return at === data.length ? { name, queries } : null;
}

export function encodeContextRequest(name: string, queries: readonly string[]): Uint8Array {
  const nameBytes = encodeText(name);
  const encoded = queries.map(encodeText);
  const total = encoded.reduce((sum, query) => sum + 4 + query.length, 8 + nameBytes.length);
  const data = new Uint8Array(total);
  const view = viewOf(data);
  view.setUint32(0, nameBytes.length);
  data.set(nameBytes, 4);
  let at = 4 + nameBytes.length;
  view.setUint32(at, encoded.length);
  at += 4;
  for (const query of encoded) {
    view.setUint32(at, query.length);
    data.set(query, at + 4);
    at += 4 + query.length;
  }
  return data;
}

/** NBD_REP_META_CONTEXT: u32 id, name. */
export function putContextReply(out: ByteQueue, option: number, id: number, name: string): void {
  const bytes = encodeText(name);
  putOptionReplyHeader(out, option, NBD_REP_META_CONTEXT, 4 + bytes.length);
  const at = out.extend(4);
  out.view.setUint32(at, id);
  out.put(bytes);
}

export function parseContextReply(data: Uint8Array): SelectedContext | null {
  if (data.length < 4) return null;
  const name = decodeString(data, 4, data.length);
  return name === null ? null : { id: viewOf(data).getUint32(0), name };
}

// ---- NBD_REP_SERVER -------------------------------------------------------------------------------------

export interface ListedExport {
  readonly name: string;
  readonly description: string;
}

/** NBD_REP_SERVER: u32 length of name, name, the rest is a description. */
export function putServerReply(out: ByteQueue, option: number, name: string, description: string): void {
  const nameBytes = encodeText(name);
  const rest = encodeText(description);
  putOptionReplyHeader(out, option, NBD_REP_SERVER, 4 + nameBytes.length + rest.length);
  const at = out.extend(4);
  out.view.setUint32(at, nameBytes.length);
  out.put(nameBytes);
  out.put(rest);
}

export function parseServerReply(data: Uint8Array): ListedExport | null {
  if (data.length < 4) return null;
  const length = viewOf(data).getUint32(0);
  if (length > data.length - 4) return null;
  const name = decodeString(data, 4, 4 + length);
  return name === null ? null : { name, description: decodeDisplayText(data, 4 + length, data.length) };
}

// ---- NBD_REP_INFO ---------------------------------------------------------------------------------------

export function putInfoExport(out: ByteQueue, option: number, size: number, flags: number): void {
  putOptionReplyHeader(out, option, NBD_REP_INFO, NBD_INFO_EXPORT_BYTES);
  const at = out.extend(NBD_INFO_EXPORT_BYTES);
  out.view.setUint16(at, NBD_INFO_EXPORT);
  setU64(out.view, at + 2, size);
  out.view.setUint16(at + 10, flags);
}

export function putInfoBlockSize(out: ByteQueue, option: number, sizes: BlockSizes): void {
  putOptionReplyHeader(out, option, NBD_REP_INFO, NBD_INFO_BLOCK_SIZE_BYTES);
  const at = out.extend(NBD_INFO_BLOCK_SIZE_BYTES);
  out.view.setUint16(at, NBD_INFO_BLOCK_SIZE);
  out.view.setUint32(at + 2, sizes.minimum);
  out.view.setUint32(at + 6, sizes.preferred);
  out.view.setUint32(at + 10, sizes.maximumPayload);
}

/** NBD_INFO_NAME or NBD_INFO_DESCRIPTION. */
export function putInfoText(out: ByteQueue, option: number, info: number, text: string): void {
  const bytes = encodeText(text);
  putOptionReplyHeader(out, option, NBD_REP_INFO, 2 + bytes.length);
  const at = out.extend(2);
  out.view.setUint16(at, info);
  out.put(bytes);
}

/** One NBD_REP_INFO; `null` when malformed. Unknown types are to be ignored by the receiver. */
export type InfoReply =
  | { readonly info: typeof NBD_INFO_EXPORT; readonly size: number; readonly flags: number }
  | { readonly info: typeof NBD_INFO_NAME | typeof NBD_INFO_DESCRIPTION; readonly text: string }
  | { readonly info: typeof NBD_INFO_BLOCK_SIZE; readonly blockSizes: BlockSizes }
  | { readonly info: "unknown" };

export function parseInfoReply(data: Uint8Array): InfoReply | null {
  if (data.length < 2) return null;
  const view = viewOf(data);
  const info = view.getUint16(0);
  switch (info) {
    case NBD_INFO_EXPORT:
      if (data.length !== NBD_INFO_EXPORT_BYTES) return null;
      return { info, size: getU64(view, 2), flags: view.getUint16(10) };
    case NBD_INFO_NAME:
    case NBD_INFO_DESCRIPTION: {
      const text = decodeString(data, 2, data.length);
      return text === null ? null : { info, text };
    }
    case NBD_INFO_BLOCK_SIZE: {
      if (data.length !== NBD_INFO_BLOCK_SIZE_BYTES) return null;
      const minimum = view.getUint32(2);
      const preferred = view.getUint32(6);
      return { info, blockSizes: { minimum, preferred, maximumPayload: view.getUint32(10) } };
    }
    default:
      return { info: "unknown" };
  }
}
