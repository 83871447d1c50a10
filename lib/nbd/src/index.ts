/** The NBD protocol without I/O: see README.md for a server and a client in a few lines. */
export { ByteQueue } from "./byte-queue.js";
export * from "./client-handshake.js";
export * from "./client-transmission.js";
export * from "./constants.js";
export { CONTEXTS_MAX } from "./contexts.js";
export * from "./export.js";
export * from "./names.js";
export {
  encodeContextRequest,
  encodeInfoRequest,
  type InfoReply,
  type ListedExport,
  parseContextReply,
  parseContextRequest,
  parseInfoReply,
  parseInfoRequest,
  parseServerReply,
  putOption,
  putOptionReply,
} from "./options.js";
export * from "./reply.js";
export * from "./reply-decoder.js";
export * from "./request.js";
export * from "./server-handshake.js";
export * from "./server-transmission.js";
export { ERROR_TEXT_BYTES_MAX, encodeErrorText, encodeText } from "./text.js";
export * from "./uri.js";
export * from "./validate.js";
export { getU64, highHalf, lowHalf, NbdUsageError, SIZE_BYTES_MAX, setU64 } from "./wire.js";
