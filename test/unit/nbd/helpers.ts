/** What the tests of lib/nbd share: exports to serve, bytes a client might say, and a reader of answers. */
import {
  ByteQueue,
  type ExportDirectory,
  type ExportInfo,
  encodeInfoRequest,
  encodeText,
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_OPT_GO,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_MAGIC_HIGH,
  NBD_REP_MAGIC_LOW,
  type Negotiated,
  optionReplyName,
  putOption,
  ReplyMode,
  ServerHandshake,
  type ServerHandshakeOptions,
} from "nbd-protocol-ts";

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;

export const ALL_FLAGS =
  NBD_FLAG_HAS_FLAGS |
  NBD_FLAG_SEND_FLUSH |
  NBD_FLAG_SEND_FUA |
  NBD_FLAG_SEND_TRIM |
  NBD_FLAG_SEND_WRITE_ZEROES |
  NBD_FLAG_SEND_DF |
  NBD_FLAG_CAN_MULTI_CONN |
  NBD_FLAG_SEND_CACHE |
  NBD_FLAG_SEND_FAST_ZERO |
  NBD_FLAG_BLOCK_STATUS_PAYLOAD;

export const VOL: ExportInfo = {
  name: "vol",
  description: "the volume",
  size: GIB,
  flags: ALL_FLAGS,
  blockSizes: { minimum: 512, preferred: 4096, maximumPayload: 32 * MIB },
  contexts: ["base:allocation", "lamina:snapshot/a", "lamina:snapshot/b"],
};

export const OTHER: ExportInfo = { ...VOL, name: "other", size: 64 * MIB };
export const SECRET: ExportInfo = { ...VOL, name: "secret", tlsOnly: true };

/** Exports by name; the first is the default one. */
export function directoryOf(...exports: readonly ExportInfo[]): ExportDirectory {
  return {
    list: () => exports,
    find: (name) => exports.find((info) => info.name === (name === "" ? exports[0]?.name : name)),
  };
}

export function serverOf(options: Partial<ServerHandshakeOptions> = {}): ServerHandshake {
  return new ServerHandshake({ directory: directoryOf(VOL, OTHER, SECRET), tlsMode: "notls", ...options });
}

/** A server that has sent its greeting and got client flags. */
export function haggling(options: Partial<ServerHandshakeOptions> = {}, flags = 3): ServerHandshake {
  const server = serverOf(options);
  server.feed(clientFlags(flags));
  server.takeOutput();
  return server;
}

export function clientFlags(flags: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, flags);
  return bytes;
}

export function option(number: number, data?: Uint8Array, claimed?: number): Uint8Array {
  const out = new ByteQueue();
  putOption(out, number, data, claimed);
  const bytes = new Uint8Array(out.length);
  out.moveTo(bytes, 0, bytes.length);
  return bytes;
}

export function go(name = "vol", infos: readonly number[] = []): Uint8Array {
  return option(NBD_OPT_GO, encodeInfoRequest(name, infos));
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

export function u16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value & 0xff);
}

export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

export function text(value: string): Uint8Array {
  return encodeText(value);
}

export interface Answer {
  readonly option: number;
  /** Name of the reply type. */
  readonly type: string;
  readonly data: Uint8Array;
}

/** Splits a server's output into option replies. Throws on anything else. */
export function answersIn(bytes: Uint8Array): Answer[] {
  const answers: Answer[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (at < bytes.length) {
    if (view.getUint32(at) !== NBD_REP_MAGIC_HIGH || view.getUint32(at + 4) !== NBD_REP_MAGIC_LOW) {
      throw new Error(`no option reply at ${at}`);
    }
    const length = view.getUint32(at + 16);
    const data = bytes.slice(at + 20, at + 20 + length);
    if (data.length !== length) throw new Error("a reply is cut short");
    answers.push({
      option: view.getUint32(at + 8),
      type: optionReplyName(view.getUint32(at + 12)),
      data,
    });
    at += 20 + length;
  }
  return answers;
}

/** Offers bytes until the server takes no more, collecting what it says. */
export function say(server: ServerHandshake, bytes: Uint8Array): Uint8Array {
  const said: Uint8Array[] = [];
  let at = 0;
  for (;;) {
    const taken = server.feed(bytes, at, bytes.length);
    at += taken;
    const output = server.takeOutput();
    said.push(output);
    if (taken === 0 && output.length === 0) break;
  }
  return concat(...said);
}

/** The answers to one option (or several). */
export function ask(server: ServerHandshake, bytes: Uint8Array): Answer[] {
  return answersIn(say(server, bytes));
}

export function typesOf(answers: readonly Answer[]): string[] {
  return answers.map(({ type }) => type);
}

/** A handshake that went through; `options` are sent before GO. */
export function negotiate(
  options: readonly number[] = [],
  contexts: readonly string[] = [],
  infos: readonly number[] = [],
  info: ExportInfo = VOL,
): Negotiated {
  const server = haggling({ directory: directoryOf(info) });
  for (const number of options) say(server, option(number));
  if (contexts.length > 0) say(server, option(NBD_OPT_SET_META_CONTEXT, contextQuery(info.name, contexts)));
  say(server, go(info.name, infos));
  server.opened(info);
  return server.negotiated!;
}

export function contextQuery(name: string, queries: readonly string[]): Uint8Array {
  return concat(
    u32(text(name).length),
    text(name),
    u32(queries.length),
    ...queries.map((query) => concat(u32(text(query).length), text(query))),
  );
}

export function structuredServer(options: Partial<ServerHandshakeOptions> = {}): ServerHandshake {
  const server = haggling(options);
  say(server, option(NBD_OPT_STRUCTURED_REPLY));
  return server;
}

export const MODES: readonly ReplyMode[] = [ReplyMode.Simple, ReplyMode.Structured, ReplyMode.Extended];

export { IHAVEOPT_HIGH, IHAVEOPT_LOW };
