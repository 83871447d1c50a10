/**
 * 64-bit numbers without BigInt.
 *
 * A u64 becomes `high · 2^32 + low` in a double. Below 2^53 that is exact. From 2^53 on it is rounded, but
 * rounding is monotonic, so such a value stays ≥ 2^53 and every comparison with a size (≤ SIZE_BYTES_MAX)
 * comes out right: an offset or a sum that is too large is still too large. Code that must repeat a u64
 * exactly (cookies, the offset in extended replies) keeps the two halves.
 */

const HIGH = 0x1_0000_0000;

/** Largest size of an export in bytes: the largest number that arithmetic keeps exact. */
export const SIZE_BYTES_MAX = Number.MAX_SAFE_INTEGER;

/** The u64 at `at`; exact below 2^53, at least 2^53 otherwise. */
export function getU64(view: DataView, at: number): number {
  return view.getUint32(at) * HIGH + view.getUint32(at + 4);
}

/** Writes a whole number from 0 to 2^53 − 1 as u64. */
export function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / HIGH));
  view.setUint32(at + 4, value >>> 0);
}

export function highHalf(value: number): number {
  return Math.floor(value / HIGH);
}

export function lowHalf(value: number): number {
  return value >>> 0;
}

/** Whether `value` is 1, 2, 4 … 2^31. */
export function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(value) && value > 0 && value < HIGH && (value & (value - 1)) === 0;
}

/** A mistake of the program that uses this package, never of its peer. */
export class NbdUsageError extends Error {
  override readonly name = "NbdUsageError";
}

export function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new NbdUsageError(message);
}
