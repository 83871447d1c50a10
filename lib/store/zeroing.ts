/**
 * Which part of a stretch of the device is given back, and which is overwritten with zeros. Giving back has a
 * grain (a file-system block, a device's discard unit) and a price, so short runs are overwritten.
 */

/** Called for each part, in order. */
export interface ZeroParts {
  punch(offset: number, length: number): void;
  overwrite(offset: number, length: number): void;
}

/**
 * Cuts [offset, offset + length), multiples of 4096, into whole grains to give back and the rest to
 * overwrite, in pieces of at most `pieceMax` bytes. Runs shorter than `punchMin` are overwritten.
 */
export function cutZeroes(
  offset: number,
  length: number,
  grain: number,
  punchMin: number,
  pieceMax: number,
  parts: ZeroParts,
): void {
  const end = offset + length;
  const from = Math.ceil(offset / grain) * grain;
  const to = Math.floor(end / grain) * grain;
  if (to - from < Math.max(punchMin, grain)) {
    overwrite(offset, end, pieceMax, parts);
    return;
  }
  overwrite(offset, from, pieceMax, parts);
  parts.punch(from, to - from);
  overwrite(to, end, pieceMax, parts);
}

function overwrite(from: number, to: number, pieceMax: number, parts: ZeroParts): void {
  for (let at = from; at < to; at += pieceMax) parts.overwrite(at, Math.min(pieceMax, to - at));
}
