/**
 * Striping: where a block of a volume lives. Pure arithmetic on numbers of blocks.
 *
 * The address space is cut into groups of `stripeCount` extents. Inside a group, stripe units are dealt to
 * the extents in turn, so a sequential stream keeps all of them (and later their nodes) busy:
 *
 *     group of 3 extents:   unit 0 → extent 0, unit 1 → extent 1, unit 2 → extent 2,
 *                           unit 3 → extent 0 (its second unit), …
 *
 * Invariants
 *  1. locate is a bijection between volume blocks and (extent, block in extent).
 *  2. A contiguous range of volume blocks covers, in each extent of a group, one contiguous range of that
 *     extent's blocks; `coveredFrom` gives its ends.
 */
import { assert } from "../core/assert.js";
import { BLOCK_BYTES } from "../core/limits.js";

/** Locks of a group are taken as one range; the range lock's table bounds it. */
export const STRIPE_COUNT_MAX = 64;

/** How a volume lies. `stripeUnit` in bytes; longer than the device's extent (tiny ones in tests) it is the extent. */
export function layoutOf(
  extentBlocks: number,
  policy: { readonly stripeCount: number; readonly stripeUnit: number },
): Layout {
  return new Layout(
    extentBlocks,
    policy.stripeCount,
    Math.min(extentBlocks, policy.stripeUnit / BLOCK_BYTES),
  );
}

export class Layout {
  readonly extentBlocks: number;
  readonly stripeCount: number;
  readonly unitBlocks: number;
  /** Blocks of one group of extents. */
  readonly groupBlocks: number;

  /** Results of `locate`: extent, block inside it, and how many blocks lie contiguously from there on. */
  extent = 0;
  block = 0;
  run = 0;

  /** `unitBlocks` divides `extentBlocks`; with `stripeCount` 1 it does not matter. */
  constructor(extentBlocks: number, stripeCount: number, unitBlocks: number) {
    assert(stripeCount >= 1 && stripeCount <= STRIPE_COUNT_MAX, "stripe count out of range");
    assert(unitBlocks >= 1 && extentBlocks % unitBlocks === 0, "a stripe unit divides the extent");
    this.extentBlocks = extentBlocks;
    this.stripeCount = stripeCount;
    this.unitBlocks = stripeCount === 1 ? extentBlocks : unitBlocks;
    this.groupBlocks = extentBlocks * stripeCount;
  }

  /** Sets `extent`, `block` and `run` for a block of the volume. */
  locate(volumeBlock: number): void {
    const group = Math.floor(volumeBlock / this.groupBlocks);
    const inGroup = volumeBlock - group * this.groupBlocks;
    if (this.stripeCount === 1) {
      this.extent = group;
      this.block = inGroup;
      this.run = this.extentBlocks - inGroup;
      return;
    }
    const unit = Math.floor(inGroup / this.unitBlocks);
    const inUnit = inGroup - unit * this.unitBlocks;
    const row = Math.floor(unit / this.stripeCount);
    this.extent = group * this.stripeCount + (unit - row * this.stripeCount);
    this.block = row * this.unitBlocks + inUnit;
    this.run = this.unitBlocks - inUnit;
  }

  /** The inverse of `locate`: the volume's block that lies at `block` of `extent`. */
  volumeBlockOf(extent: number, block: number): number {
    if (this.stripeCount === 1) return extent * this.extentBlocks + block;
    const group = Math.floor(extent / this.stripeCount);
    const column = extent - group * this.stripeCount;
    const row = Math.floor(block / this.unitBlocks);
    const unit = row * this.stripeCount + column;
    return group * this.groupBlocks + unit * this.unitBlocks + (block - row * this.unitBlocks);
  }

  groupOf(volumeBlock: number): number {
    return Math.floor(volumeBlock / this.groupBlocks);
  }

  /**
   * For a position inside a group (0 … groupBlocks) and the group's extent number `column`: the first block
   * of that extent whose address is at or behind the position. So [from, to) covers, in this extent, the
   * blocks coveredFrom(from, column) … coveredFrom(to, column) − 1.
   */
  coveredFrom(inGroup: number, column: number): number {
    const unit = Math.floor(inGroup / this.unitBlocks);
    const row = Math.floor(unit / this.stripeCount);
    const at = unit - row * this.stripeCount;
    if (column < at) return (row + 1) * this.unitBlocks;
    if (column > at) return row * this.unitBlocks;
    return row * this.unitBlocks + (inGroup - unit * this.unitBlocks);
  }

  /** Extents that a volume of `blocks` blocks can have: whole groups. */
  extentsFor(blocks: number): number {
    return Math.ceil(blocks / this.groupBlocks) * this.stripeCount;
  }
}
