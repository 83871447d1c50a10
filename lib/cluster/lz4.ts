/** LZ4 blocks through lz4-napi. Its length prefix, which it believes, is never sent: who unpacks knows the length. */
import lz4 from "lz4-napi";
import type { Codec } from "../core/codec.js";

/** u32 before a block: how long its content is. */
const PREFIX_BYTES = 4;

export const LZ4: Codec = {
  pack(bytes) {
    const { buffer, byteOffset, length } = bytes;
    return lz4.compressSync(Buffer.from(buffer, byteOffset, length)).subarray(PREFIX_BYTES);
  },
  unpack(packed, length) {
    const block = Buffer.allocUnsafe(PREFIX_BYTES + packed.length);
    block.writeUInt32LE(length, 0);
    block.set(packed, PREFIX_BYTES);
    try {
      const plain = lz4.uncompressSync(block);
      return plain.length === length ? plain : null;
    } catch {
      return null;
    }
  },
};
