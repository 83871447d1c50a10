/** The store of a device that is served: its events are told, and it is closed in order. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import type { EventLog } from "../../catalog/index.js";
import { type MemberStore, type OpenStoreOptions, openStore } from "../../store/index.js";
import type { Engine } from "../../uring/api.js";
import { runRoutine } from "../routine.js";
import { bootIdOf } from "./boot-id.js";
import { type ReadyDevice, storeEnvironment } from "./device.js";
import type { Parts } from "./parts.js";
import { followStore, type Later } from "./story.js";

/** How often it is looked whether what keeps a volume busy waits for space. */
const SPACE_LOOKED_FOR_MS = 100;

export interface StoreHost {
  readonly engine: Engine;
  readonly events: EventLog;
  readonly later: Later;
  readonly log: Logger;
  readonly parts: Parts;
}

export interface ServedStore {
  readonly store: MemberStore;
  /** Makes everything durable and marks the device clean. Never fails: a failure is logged. Once, however often called. */
  close(): Promise<void>;
}

/** Throws LaminaError. When the parts are taken down everything is made durable, and the device marked clean. */
export async function openServed(
  { engine, events, later, log, parts }: StoreHost,
  { path, opened, deviceId }: ReadyDevice,
  options: Omit<OpenStoreOptions, "path">,
): Promise<ServedStore> {
  const follow = followStore(deviceId, path, events, later, log);
  const environment = storeEnvironment(engine, opened, bootIdOf(deviceId, opened.instanceTag), follow);
  const store = await runRoutine(openStore(environment, { ...options, path }));
  let closed: Promise<void> | null = null;
  const close = (): Promise<void> => {
    closed ??= new Promise<void>((resolve) => {
      store.close((error) => {
        if (error !== null) log.error({ err: error }, "the device could not be closed in order");
        resolve();
      });
    });
    return closed;
  };
  parts.add(close);
  return { store, close };
}

/**
 * Closes the volumes of a store when nobody hears their answers any more. A write that waits for space would keep its
 * volume, and so the server, from ever ending: where there is one, the store is closed first, which gives it back.
 */
export async function closeVolumes(
  registry: { close(): Promise<void> },
  { store, close }: ServedStore,
): Promise<void> {
  let closed = false;
  const closing = registry.close().then(() => {
    closed = true;
  });
  while (!closed) {
    if (store.stats().waitingForSpace > 0) void close();
    await Promise.race([closing, sleep(SPACE_LOOKED_FOR_MS)]);
  }
}
