/**
 * crc32c (Castagnoli) as the rooms see it: implemented by the addon (hardware, with a portable fallback), so
 * that a whole request is one call.
 */
export interface Checksums {
  /**
   * crc32c of `length` bytes of the pool at `memory`, continued from `seed` (0 to begin). The usual
   * reflected, inverted form: crc32c("123456789") = 0xe3069283.
   */
  crc32c(memory: number, length: number, seed: number): number;
  /** The same over any bytes outside the pool; for small control structures. */
  crc32cBytes(bytes: Uint8Array, seed: number): number;
  /**
   * Entries of `count` consecutive blocks in the pool at `memory`, written to `out[at …]`. The entry of a
   * block is the crc32c of its 4096 bytes begun with blockSeed(extentSeed, firstBlock + i), mapped away from
   * 0 and 1 (those two become 2 and 3).
   */
  blockEntries(
    memory: number,
    count: number,
    extentSeed: number,
    firstBlock: number,
    out: Uint32Array,
    at: number,
  ): void;
}

/** Multiplier that spreads block numbers over seeds; odd, so that no two blocks of an extent share one. */
export const BLOCK_SEED_STEP = 0x9e3779b1;

/** Seed of a block's checksum: two blocks of one extent never share it. The addon computes the same. */
export function blockSeed(extentSeed: number, block: number): number {
  return (extentSeed + Math.imul(block, BLOCK_SEED_STEP)) >>> 0;
}

/** Seed of a volume's checksums, from its id (its lineage: clones will keep their parent's). */
export function volumeSeed(volume: number): number {
  return mix32(mix32(volume >>> 0) ^ Math.floor(volume / 2 ** 32));
}

/** Seed of an extent's checksums: `mix32` is a bijection, so no two extents of a volume share one. */
export function extentSeed(seedOfVolume: number, extent: number): number {
  return mix32((seedOfVolume ^ extent) >>> 0);
}

/** A bijection of u32 that spreads neighbouring inputs over all bits (the finalizer of MurmurHash3). */
export function mix32(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Entry of a block without bytes: zeros at the bottom layer. */
export const ENTRY_ABSENT = 0;
/** Entry of a block reserved for zeros over a lower layer. Not used while volumes have one layer. */
export const ENTRY_ZERO = 1;

/** Maps a checksum away from the two entries that mean something else. The addon does the same. */
export function entryOfCrc(crc: number): number {
  return crc < 2 ? crc + 2 : crc;
}
