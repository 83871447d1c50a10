/** Which blocks of an extent have bytes, as operations are told. */
import { ENTRY_ABSENT } from "../core/checksum.js";
import { ExtentFlag, type ExtentOp } from "../core/extent-io.js";

export function clearPresent(op: ExtentOp): void {
  op.present.fill(0, 0, (op.blocks + 31) >>> 5);
  if ((op.flags & ExtentFlag.Entries) !== 0) op.entries.fill(ENTRY_ABSENT, 0, op.blocks);
  op.presentCount = 0;
}

export function fillPresent(op: ExtentOp, entries: Uint32Array): void {
  clearPresent(op);
  const withEntries = (op.flags & ExtentFlag.Entries) !== 0;
  let count = 0;
  for (let i = 0; i < op.blocks; i++) {
    const entry = entries[op.block + i]!;
    if (entry === ENTRY_ABSENT) continue;
    if (withEntries) op.entries[i] = entry;
    op.present[i >>> 5]! |= 1 << (i & 31);
    count++;
  }
  op.presentCount = count;
}

export function hasPresent(op: ExtentOp, entries: Uint32Array): boolean {
  for (let i = op.block; i < op.block + op.blocks; i++) if (entries[i] !== ENTRY_ABSENT) return true;
  return false;
}
