/** Finding what need not be stored. */

/** Runs of zeros shorter than this are written as data. */
export const ZERO_GRAIN = 4096;
const ZEROS = Buffer.alloc(ZERO_GRAIN);

export interface Stretch {
  readonly start: number;
  readonly end: number;
  readonly zero: boolean;
}

/** Cuts a buffer into stretches of zeros (whole grains) and data; neighbours differ. */
export function stretches(bytes: Buffer): Stretch[] {
  const found: { start: number; end: number; zero: boolean }[] = [];
  for (let start = 0; start < bytes.length; start += ZERO_GRAIN) {
    const end = Math.min(start + ZERO_GRAIN, bytes.length);
    const zero = ZEROS.compare(bytes, start, end, 0, end - start) === 0;
    const last = found.at(-1);
    if (last !== undefined && last.zero === zero) last.end = end;
    else found.push({ start, end, zero });
  }
  return found;
}
