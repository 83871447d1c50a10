/** The real store as a run's subject. */

import { PAGE_BYTES, SUPERBLOCK_A, SUPERBLOCK_B } from "../../lib/store/format.js";
import { formatStore, fsck, metadataBytes, openStore, planFormat } from "../../lib/store/index.js";
import type { Subject } from "./subject.js";

export const storeSubject: Subject = {
  name: "store",
  format: formatStore,
  open: openStore,
  *fsck(environment) {
    return (yield* fsck(environment)).findings;
  },
  copyRanges(options, second) {
    const layout = planFormat(options);
    const { records, hotPages, directoryPages, slots, tableBytes } = layout;
    const superblock = second ? SUPERBLOCK_B : SUPERBLOCK_A;
    const starts = second
      ? [layout.recordsB, layout.hotB, layout.directoryB, layout.tablesB]
      : [layout.recordsA, layout.hotA, layout.directoryA, layout.tablesA];
    const lengths = [
      records * PAGE_BYTES,
      hotPages * PAGE_BYTES,
      directoryPages * PAGE_BYTES,
      slots * tableBytes,
    ];
    return [
      // The superblock and, behind it, the log anchor.
      [superblock, superblock + 2 * PAGE_BYTES],
      ...starts.map((start, i) => [start, start + lengths[i]!] as const),
    ];
  },
  provisionedBytes: (options) => metadataBytes(planFormat(options)),
};
