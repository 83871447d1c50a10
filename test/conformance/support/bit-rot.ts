/** Rot in a store's file: one byte of a block that is found by its content. */
import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";

const PIECE_BYTES = 4 << 20;

/** Flips one byte of every copy of `block` in the file; false when there is none. `block` is 4 KiB. */
export function flipOneByteOf(path: string, block: Buffer): boolean {
  const file = openSync(path, "r+");
  const piece = Buffer.alloc(PIECE_BYTES);
  let found = false;
  try {
    for (let at = 0; at < fstatSync(file).size; at += PIECE_BYTES) {
      const length = readSync(file, piece, 0, PIECE_BYTES, at);
      const place = piece.subarray(0, length).indexOf(block);
      if (place < 0) continue;
      writeSync(file, Uint8Array.of(block[100]! ^ 0x20), 0, 1, at + place + 100);
      found = true;
    }
    return found;
  } finally {
    closeSync(file);
  }
}
