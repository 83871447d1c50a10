/**
 * Sectors that say which write made them. A sector holds the write's number and its own address, and the rest is
 * a pattern of both: a torn, stale or misplaced sector is recognised without knowing what should be there.
 */
export const SECTOR_BYTES = 512;
const SECTOR_WORDS = SECTOR_BYTES / 4;
const MAGIC = 0x1a317a00;
const SPREAD = 0x9e3779b1;

/** All zeros: never written, trimmed or zeroed. */
export const ZEROS = 0;
/** Neither zeros nor a whole sector of one write at its address. */
export const GARBAGE = -1;

/** Bytes of a write `id` (1 … 2^31 − 1) over `count` sectors from `sector` on. */
export function encodeSectors(id: number, sector: number, count: number): Buffer {
  const words = new Uint32Array(count * SECTOR_WORDS);
  for (let i = 0; i < count; i++) {
    const at = i * SECTOR_WORDS;
    words[at] = MAGIC;
    words[at + 1] = id;
    words[at + 2] = sector + i;
    const seed = Math.imul(id, SPREAD) + sector + i;
    for (let word = 3; word < SECTOR_WORDS; word++) words[at + word] = Math.imul(seed + word, SPREAD);
  }
  return Buffer.from(words.buffer);
}

/** Number of the write that made sector `sector`, whose bytes begin at word `at`; or ZEROS, or GARBAGE. */
export function decodeSector(words: Uint32Array, at: number, sector: number): number {
  const id = words[at + 1]!;
  if (words[at] === 0) return allZero(words, at) ? ZEROS : GARBAGE;
  if (words[at] !== MAGIC || words[at + 2] !== sector) return GARBAGE;
  const seed = Math.imul(id, SPREAD) + sector;
  for (let word = 3; word < SECTOR_WORDS; word++) {
    if (words[at + word] !== Math.imul(seed + word, SPREAD) >>> 0) return GARBAGE;
  }
  return id;
}

function allZero(words: Uint32Array, at: number): boolean {
  for (let word = 0; word < SECTOR_WORDS; word++) if (words[at + word] !== 0) return false;
  return true;
}

/** The sector of the volume that the first one of `bytes` says to be, if it is one of a load. */
export function sectorNamedBy(bytes: Buffer): number | null {
  if (bytes.readUInt32LE(0) !== MAGIC) return null;
  const sector = bytes.readUInt32LE(8);
  return decodeSectors(bytes.subarray(0, SECTOR_BYTES), sector)[0] === GARBAGE ? null : sector;
}

/** The numbers of all sectors of `bytes`, which begin at sector `sector`. */
export function decodeSectors(bytes: Buffer, sector: number): Int32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : Buffer.from(bytes);
  const words = new Uint32Array(aligned.buffer, aligned.byteOffset, aligned.length / 4);
  const out = new Int32Array(aligned.length / SECTOR_BYTES);
  for (let i = 0; i < out.length; i++) out[i] = decodeSector(words, i * SECTOR_WORDS, sector + i);
  return out;
}
