/** The scrub of a device that is served, by a server of its own or a node: on schedule, and told. */
import { join } from "node:path";
import type { Logger } from "pino";
import { SCRUB_PACE_DEFAULT } from "../../admin/index.js";
import type { EventLog } from "../../catalog/index.js";
import type { Store } from "../../store/index.js";
import type { Engine } from "../../uring/api.js";
import { SCRUB_FILE } from "./data-directory.js";
import type { ReadyDevice } from "./device.js";
import { ScrubSchedule } from "./scrub-schedule.js";

export interface ScrubHost {
  readonly engine: Engine;
  readonly device: ReadyDevice;
  /** Data directory. */
  readonly data: string;
  readonly store: Store;
  readonly events: EventLog;
  readonly log: Logger;
}

export function startScrubs({ engine, device, data, store, events, log }: ScrubHost): Promise<ScrubSchedule> {
  return ScrubSchedule.open({
    clock: engine.clock,
    store,
    deviceId: device.deviceId,
    path: join(data, SCRUB_FILE),
    pace: SCRUB_PACE_DEFAULT,
    onStarted: () => void events.record("scrub-started", null, `scrub: ${device.path} is read and verified`),
    onEnded: () => void events.record("scrub-ended", null, `scrub: ${device.path} was read to its end`),
    onUnsaved: (reason) => log.warn(`when the next scrub is due cannot be written down: ${reason}`),
  });
}
