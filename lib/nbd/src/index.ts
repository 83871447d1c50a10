/** The NBD protocol without I/O: see README.md for a server and a client in a few lines. */
export * from "./constants.js";
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
} from "./options.js";
export * from "./reply.js";
export * from "./request.js";
export * from "./server-handshake.js";
export { ERROR_TEXT_BYTES_MAX, encodeErrorText, encodeText } from "./text.js";
export * from "./validate.js";
export { getU64, highHalf, lowHalf, NbdUsageError, SIZE_BYTES_MAX, setU64 } from "./wire.js";
