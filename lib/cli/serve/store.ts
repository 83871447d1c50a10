/** The store of a device that is served: its events are told, and it is closed in order. */
import type { Logger } from "pino";
import type { EventLog } from "../../catalog/index.js";
import { type MemberStore, type OpenStoreOptions, openStore } from "../../store/index.js";
import type { Engine } from "../../uring/api.js";
import { runRoutine } from "../routine.js";
import { bootIdOf } from "./boot-id.js";
import { type ReadyDevice, storeEnvironment } from "./device.js";
import type { Parts } from "./parts.js";
import { followStore, type Later } from "./story.js";

export interface StoreHost {
  readonly engine: Engine;
  readonly events: EventLog;
  readonly later: Later;
  readonly log: Logger;
  readonly parts: Parts;
}

/** Throws LaminaError. When the parts are taken down everything is made durable, and the device marked clean. */
export async function openServed(
  { engine, events, later, log, parts }: StoreHost,
  { path, opened, deviceId }: ReadyDevice,
  options: Omit<OpenStoreOptions, "path">,
): Promise<MemberStore> {
  const follow = followStore(deviceId, path, events, later, log);
  const environment = storeEnvironment(engine, opened, bootIdOf(deviceId, opened.instanceTag), follow);
  const store = await runRoutine(openStore(environment, { ...options, path }));
  parts.add(
    () =>
      new Promise<void>((resolve) => {
        store.close((error) => {
          if (error !== null) log.error({ err: error }, "the device could not be closed in order");
          resolve();
        });
      }),
  );
  return store;
}
