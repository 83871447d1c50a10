/**
 * LZ4 blocks through lz4-napi. Its length prefix, which it believes, is never sent: who unpacks knows the length.
 *
 * Its native part may be missing from a machine, or lack a library there. Nothing depends on it: a process that cannot
 * pack says so in its greetings (replica/greeting.ts), sends copies as they are and is sent none that is packed.
 */
import { createRequire } from "node:module";
import type { Codec } from "../core/codec.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { Packing } from "../replica/packing.js";

export type Library = Pick<typeof import("lz4-napi"), "compressSync" | "uncompressSync">;

/** u32 before a block: how long its content is. */
const PREFIX_BYTES = 4;

/** `load` is called when something is first packed or unpacked: a program that does neither does not need it. */
export function lz4Through(load: () => Library): Codec {
  let loaded: Library | null = null;
  const library = (): Library => {
    loaded ??= load();
    return loaded;
  };
  return {
    pack({ buffer, byteOffset, length }) {
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
}

export const LZ4: Codec = lz4Through(() => createRequire(import.meta.url)("lz4-napi") as Library);

/** Why the codec cannot be used in this process; null: it can. Packs and unpacks a block. */
export function codecFault(codec: Codec): string | null {
  const plain = new Uint8Array(BLOCK_BYTES).fill(1);
  try {
    const again = codec.unpack(codec.pack(plain), BLOCK_BYTES);
    const isSame = again?.every((byte, i) => byte === plain[i]) ?? false;
    return isSame ? null : "a block that was packed and unpacked is another one";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** What background copies are packed with; null, and `cannot` is told why: nothing is. */
export function packingWith(codec: Codec, cannot: (why: string) => void): Packing | null {
  const fault = codecFault(codec);
  if (fault === null) return new Packing(codec);
  cannot(fault);
  return null;
}
