/** What store and registry tell, as events, log lines and news for the mirror. */
import type { Logger } from "pino";
import type { EventKind, EventLog, Mirror } from "../../catalog/index.js";
import type { StoreEvents } from "../../store/index.js";
import type { VolumeRegistry } from "../../volume/registry-api.js";
import { recordFailure } from "./boot-id.js";

/** Rooms that come after the store, filled in when they exist: what the store tells while it is opened finds none. */
export interface Later {
  mirror: Mirror | null;
  registry: Pick<VolumeRegistry, "byId"> | null;
}

const REGISTRY_KINDS = {
  created: "volume-created",
  changed: "volume-changed",
  removed: "volume-removed",
  opened: "volume-opened",
  closed: "volume-closed",
  lost: "volume-lost",
} as const satisfies Record<string, EventKind>;

export function followRegistry(registry: VolumeRegistry, events: EventLog, later: Later): void {
  registry.onEvent((event) => {
    const { kind, record } = event;
    const verb = kind === "opened" || kind === "closed" ? `was ${kind} by its clients` : `was ${kind}`;
    const why = kind === "lost" ? `: ${event.reason}` : "";
    events.record(REGISTRY_KINDS[kind], record.name, `volume ${record.name} ${verb}${why}`);
    later.mirror?.recordsChanged();
  });
}

export function followStore(
  deviceId: string,
  path: string,
  events: EventLog,
  later: Later,
  log: Logger,
): StoreEvents {
  const tell = (
    level: "info" | "warn" | "error",
    kind: EventKind,
    volume: string | null,
    text: string,
  ): void => {
    log[level](volume === null ? {} : { volume }, text);
    events.record(kind, volume, text);
  };
  const nameOf = (volume: number): string => later.registry?.byId(volume)?.name ?? `#${volume}`;
  return {
    bitRot({ volume, extent, block }) {
      const name = nameOf(volume);
      const where = `block ${block} of extent ${extent} of volume ${name}`;
      tell("error", "bit-rot", name, `bit rot: ${where} fails its checksum and is not served`);
    },
    full(full) {
      if (full) tell("warn", "store-full", null, `${path} is full: writes to new blocks wait for space`);
      else tell("info", "store-has-room", null, `${path} has room again`);
    },
    failed(reason) {
      recordFailure(deviceId);
      tell("error", "store-failed", null, `${path} has failed and answers nothing any more: ${reason}`);
    },
    lossy(lossy) {
      if (lossy)
        tell("warn", "store-lossy", null, `${path} lost power without a clean shutdown; settling it`);
      else tell("info", "store-settled", null, `${path} is settled after the power loss`);
    },
    adopted(volume, extent, blocks) {
      const name = nameOf(volume);
      const text = `${blocks} block(s) of extent ${extent} of volume ${name} were taken over as found`;
      tell("warn", "blocks-adopted", name, text);
    },
    extentChanged(volume, layer, extent, exists) {
      later.mirror?.extentChanged(volume, layer, extent, exists);
    },
  };
}
