/** Where a store's file has its metadata, of which there are two copies. */
import { closeSync, openSync, readSync } from "node:fs";
import { layoutOf, PAGE_BYTES, SUPERBLOCK_A, SUPERBLOCK_B } from "../../../lib/store/format.js";
import { decodeSuperblock } from "../../../lib/store/superblock.js";
import { addon } from "../../../lib/uring/addon.js";

/** An area that is there twice. */
export interface TwinArea {
  readonly a: number;
  readonly b: number;
  readonly bytes: number;
}

/** Of the store in the file `path`: superblock, records, hot bitmap, directory, tables. */
export function twinAreas(path: string): readonly TwinArea[] {
  const page = new Uint8Array(PAGE_BYTES);
  const file = openSync(path, "r");
  readSync(file, page, 0, PAGE_BYTES, SUPERBLOCK_A);
  closeSync(file);
  const found = decodeSuperblock(page, { checksums: NATIVE });
  if (found.kind !== "valid") throw new Error(`the first superblock of ${path} is ${found.kind}`);
  const { records, hotPages, directoryPages, slots, tableBytes, ...at } = layoutOf(found.superblock.geometry);
  return [
    { a: SUPERBLOCK_A, b: SUPERBLOCK_B, bytes: PAGE_BYTES },
    { a: at.recordsA, b: at.recordsB, bytes: records * PAGE_BYTES },
    { a: at.hotA, b: at.hotB, bytes: hotPages * PAGE_BYTES },
    { a: at.directoryA, b: at.directoryB, bytes: directoryPages * PAGE_BYTES },
    { a: at.tablesA, b: at.tablesB, bytes: slots * tableBytes },
  ];
}

/** Of bytes outside a pool; nothing else is asked for here. */
const NATIVE = {
  crc32c: () => 0,
  crc32cBytes: (bytes: Uint8Array, seed: number) => addon().checksumBytes(bytes, seed),
  blockEntries: () => undefined,
};
