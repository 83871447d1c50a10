/** LZ4 blocks through lz4-napi. Its length prefix, which it believes, is never sent: who unpacks knows the length. */
import { createRequire } from "node:module";
import type { Codec } from "../core/codec.js";

type Library = typeof import("lz4-napi");

let loaded: Library | null = null;

/** Loaded when something is first packed or unpacked: a program that does neither does not need it. */
function library(): Library {
  loaded ??= createRequire(import.meta.url)("lz4-napi") as Library;
  return loaded;
}

/** u32 before a block: how long its content is. */
const PREFIX_BYTES = 4;

export const LZ4: Codec = {
  pack(bytes) {
    const { buffer, byteOffset, length } = bytes;
    return library()
      .compressSync(Buffer.from(buffer, byteOffset, length))
      .subarray(PREFIX_BYTES);
  },
  unpack(packed, length) {
    const block = Buffer.allocUnsafe(PREFIX_BYTES + packed.length);
    block.writeUInt32LE(length, 0);
    block.set(packed, PREFIX_BYTES);
    try {
      const plain = library().uncompressSync(block);
      return plain.length === length ? plain : null;
    } catch {
      return null;
    }
  },
};
