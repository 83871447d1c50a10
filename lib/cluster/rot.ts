/** What a device knows of its bad blocks, by volume. */
import { type MemberStore, WHOLE_EXTENT } from "../store/index.js";

export interface VolumeRot {
  readonly volume: number;
  /** Blocks that fail their checksum, and the extents that they are of. */
  readonly blocks: number;
  readonly extents: number;
}

/** Volumes of which blocks are known to be bad: no more than the store remembers blocks (BAD_BLOCKS_MAX). */
export function rotOf(
  store: Pick<MemberStore, "extentBlocks" | "stats" | "volumesWithSlots" | "badBlocks">,
): VolumeRot[] {
  // Most devices have never had any.
  if (store.stats().bitRotBlocks === 0) return [];
  return store.volumesWithSlots().flatMap((volume) => {
    const bad = new Map<number, number>();
    for (const { extent, block } of store.badBlocks(volume)) {
      const known = bad.get(extent) ?? 0;
      bad.set(extent, block === WHOLE_EXTENT ? store.extentBlocks : Math.min(known + 1, store.extentBlocks));
    }
    const blocks = [...bad.values()].reduce((sum, count) => sum + count, 0);
    return bad.size === 0 ? [] : [{ volume, blocks, extents: bad.size }];
  });
}

/** Of all volumes. */
export function blocksOf(rot: readonly VolumeRot[]): number {
  return rot.reduce((sum, { blocks }) => sum + blocks, 0);
}
