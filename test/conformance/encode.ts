/** Bytes that a client might say, legal or not. */
import {
  ByteQueue,
  encodeContextRequest,
  encodeInfoRequest,
  encodeRequest,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_WRITE,
  NBD_OPT_GO,
  putOption,
  requestBytes,
} from "nbd-protocol-ts";

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

/** An option; `claimed` is the length that its header announces, which may lie. */
export function option(number: number, data: Uint8Array = Buffer.alloc(0), claimed = data.length): Buffer {
  const out = new ByteQueue();
  putOption(out, number, data, claimed);
  const bytes = Buffer.alloc(out.length);
  out.moveTo(bytes, 0, bytes.length);
  return bytes;
}

/** Data of NBD_OPT_INFO and NBD_OPT_GO. */
export function infoData(name: string, infos: readonly number[] = []): Buffer {
  return Buffer.from(encodeInfoRequest(name, infos));
}

/** Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export function contextData(name: string, queries: readonly string[]): Buffer {
  return Buffer.from(encodeContextRequest(name, queries));
}

export function go(name: string, infos: readonly number[] = []): Buffer {
  return option(NBD_OPT_GO, infoData(name, infos));
}

export interface RawRequest {
  readonly flags?: number;
  readonly cookie?: number;
  readonly offset?: number;
  readonly length?: number;
  readonly payload?: Uint8Array;
  readonly extended?: boolean;
}

/** One request with whatever was asked for; the payload behind it as it is. */
export function request(type: number, said: RawRequest = {}): Buffer {
  const { flags = 0, cookie = 1, offset = 0, payload = Buffer.alloc(0), extended = false } = said;
  const length = said.length ?? payload.length;
  const header = Buffer.alloc(requestBytes(extended));
  const view = new DataView(header.buffer, header.byteOffset, header.length);
  encodeRequest(view, 0, extended, flags, type, 0, cookie, offset, length);
  return Buffer.concat([header, payload]);
}

/** Flags of a WRITE in a session, which has to name its payload when headers are extended. */
export function writeFlags(extended: boolean): number {
  return extended ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
}

export function write(offset: number, payload: Uint8Array, said: RawRequest = {}): Buffer {
  return request(NBD_CMD_WRITE, {
    ...said,
    offset,
    payload,
    flags: (said.flags ?? 0) | writeFlags(said.extended ?? false),
  });
}
