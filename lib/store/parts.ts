/** The parts of an open store, as they know each other. */
import type { BadBlocks } from "./bad-blocks.js";
import type { Device } from "./device.js";
import type { Directory } from "./directory.js";
import type { HotBits } from "./hot.js";
import type { Log } from "./log.js";
import type { PendingDeltas } from "./pending.js";
import type { SlotTimes } from "./slot-times.js";
import type { SyncService } from "./sync.js";
import type { TableCache } from "./table.js";
import type { TableIo } from "./table-io.js";
import type { Unsettled } from "./unsettled.js";

export interface Parts {
  readonly device: Device;
  readonly log: Log;
  readonly sync: SyncService;
  readonly hot: HotBits;
  readonly directory: Directory;
  readonly cache: TableCache;
  readonly tables: TableIo;
  readonly pending: PendingDeltas;
  readonly unsettled: Unsettled;
  readonly times: SlotTimes;
  readonly bad: BadBlocks;
}
