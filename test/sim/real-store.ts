/** The real store as a run's subject. */

import type { Routine } from "../../lib/core/routine.js";
import type { StoreEnvironment } from "../../lib/store/api.js";
import { Device } from "../../lib/store/device.js";
import { layoutOf, PAGE_BYTES, SUPERBLOCK_A, SUPERBLOCK_B } from "../../lib/store/format.js";
import { formatStore, fsck, metadataBytes, openStore, planFormat } from "../../lib/store/index.js";
import { readAnchor, scanLog } from "../../lib/store/log-scan.js";
import { currentSuperblock } from "../../lib/store/open-store.js";
import { tunablesOf } from "../../lib/store/options.js";
import { RECOVERY_BUFFER_BYTES } from "../../lib/store/recovery.js";
import { isOlder, OLD_STEPS, takeBack } from "./old-format.js";
import type { LogFrame, Subject } from "./subject.js";

/** Where the frames lie that the next opening would replay, and which of them a later one knows to be synced. */
function* logFrames(env: StoreEnvironment): Routine<LogFrame[]> {
  if (yield* isOlder(env)) return [];
  const memory = env.pool.allocate(RECOVERY_BUFFER_BYTES);
  const { found } = yield* currentSuperblock(env, "sim", memory);
  const layout = layoutOf(found.geometry);
  const device = new Device(env, layout, tunablesOf({}), found.deviceId, found.incarnation, () => undefined);
  const anchor = yield* readAnchor(device.io, layout, device.words, memory);
  const log =
    anchor === null
      ? null
      : yield* scanLog(env, device.io, layout, found.deviceId, anchor, memory, RECOVERY_BUFFER_BYTES);
  env.pool.free(memory);
  if (log === null) return [];
  let synced = 0;
  const frames: LogFrame[] = [];
  for (const { at, header } of [...log.frames].reverse()) {
    frames.push({ offset: layout.log + at, length: header.length, saidSynced: synced >= header.first });
    synced = Math.max(synced, header.synced);
  }
  return frames;
}

export const storeSubject: Subject = {
  name: "store",
  format: formatStore,
  *open(environment, options) {
    return yield* openStore(environment, { ...options, upgradeSteps: OLD_STEPS });
  },
  takeBack,
  *fsck(environment) {
    // Half upgraded: nothing is believed before it has been opened once.
    if (yield* isOlder(environment)) return [];
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
  logFrames,
  provisionedBytes: (options) => metadataBytes(planFormat(options)),
};
