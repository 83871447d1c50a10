/**
 * Hot bits in advance for who writes through extents that are there and cool, one after another: without it he waits at
 * each for a sync of its bit.
 *
 * Invariants
 *  1. What is heated here is written with a page of the bitmap that is written anyway: no write and no sync are for it alone.
 *  2. A hot slot that was not written is as good as before; it cools when it has been idle, and costs a comparison when
 *     power is lost before. So this may guess wrong, at most `heatAheadExtents` at a time.
 *  3. Only live slots are heated here, so the pool of free ones knows nothing of it and nothing has to be given back: one
 *     that is freed meanwhile is zeroed first, and `Freeing` waits for its bit before that, whoever asked for it.
 *  4. Only alone on a device (`StoreTunables.heatAheadExtents`): elsewhere an extent cools when the others call it stable,
 *     and of one that nobody writes nobody says so.
 */
import { type ExtentOp, ExtentOpKind } from "../core/extent-io.js";
import { HotBits } from "./hot.js";
import type { Parts } from "./parts.js";

/** Part of an extent at its beginning in which a sequential writer's first write into it lies. */
const BEGINNING = 1 / 8;

/** A bit for `slot`, the operation's extent's, was asked for just now: its page has not been written since. */
export function heatAhead(
  { device, directory, hot, times }: Parts,
  op: ExtentOp,
  slot: number,
  now: number,
): void {
  const { heatAheadExtents } = device.tunables;
  const isAtBeginning = op.block < device.layout.extentBlocks * BEGINNING;
  if (heatAheadExtents === 0 || op.kind !== ExtentOpKind.Write || !isAtBeginning) return;
  const { volume, layer, extent } = op;
  const { index } = directory;
  const before = extent === 0 ? -1 : index.find(volume, layer, extent - 1);
  if (before < 0 || !hot.isHot(before)) return;
  const page = HotBits.pageOf(slot);
  for (let next = extent + 1; next <= extent + heatAheadExtents; next++) {
    const ahead = index.find(volume, layer, next);
    if (ahead < 0 || HotBits.pageOf(ahead) !== page || !hot.isCool(ahead)) continue;
    hot.request(ahead);
    times.heated(ahead, now);
  }
}
