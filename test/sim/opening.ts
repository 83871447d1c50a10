/** Opening the program under test on a device, up to the front that a run's clients use. */
import { startRoutine } from "../../lib/core/routine.js";
import type { Store, StoreEnvironment } from "../../lib/store/api.js";
import { DeviceRegistry } from "../../lib/volume/registry.js";
import type { RunConfig } from "./config.js";
import { type LifeFront, StoreFront, VolumeFront } from "./fronts.js";
import { NbdFront, type NbdHost } from "./nbd-front.js";
import type { Subject } from "./subject.js";
import type { VolumeTable } from "./volume-table.js";

export interface OpenedFront {
  readonly store: Store;
  readonly front: LifeFront;
}

export interface OpeningHost {
  readonly config: RunConfig;
  readonly volumes: VolumeTable;
  /** What connections need of the run. */
  readonly nbd: Omit<NbdHost, "nameOf">;
}

export type OpenedBy = (error: unknown, opened: OpenedFront | null) => void;

export function openFront(
  subject: Subject,
  environment: StoreEnvironment,
  host: OpeningHost,
  done: OpenedBy,
): void {
  const { config, volumes } = host;
  const options = { ...config.tunables, path: "sim", soleMember: true };
  startRoutine(subject.open(environment, options), (error, store) => {
    if (error !== null) done(error, null);
    else if (config.front === "store")
      done(null, { store: store!, front: new StoreFront(config, store!, volumes.ids) });
    else
      void openVolumes(store!, environment, host).then(
        (front) => done(null, { store: store!, front }),
        (failure: unknown) => done(failure, null),
      );
  });
}

async function openVolumes(
  store: Store,
  environment: StoreEnvironment,
  host: OpeningHost,
): Promise<LifeFront> {
  const { config, volumes } = host;
  const registry = new DeviceRegistry({ ...environment, store });
  volumes.registry = registry;
  volumes.open = config.front === "volume" ? new Array<null>(config.volumes).fill(null) : null;
  for (let volume = 0; volume < config.volumes; volume++) await openVolume(registry, volumes, volume);
  if (volumes.open !== null) return new VolumeFront(config, volumes.open);
  const front = new NbdFront(config, environment, registry, {
    ...host.nbd,
    nameOf: (volume) => volumes.nameOf(volume),
  });
  volumes.beforeClose = (then) => front.close(then);
  return front;
}

/** A volume that was being replaced when the last life ended may be the old one, the new one, or neither. */
async function openVolume(registry: DeviceRegistry, volumes: VolumeTable, volume: number): Promise<void> {
  const name = volumes.nameOf(volume);
  const size = volumes.blocks(volume) * 4096;
  const exists = registry.byName(name) !== undefined;
  if (volumes.isDropping(volume)) {
    if (exists) await registry.remove(name);
    await volumes.make(registry, volume, size);
    volumes.reborn(volume);
  } else if (exists) {
    await volumes.openOne(registry, volume);
  } else {
    await volumes.make(registry, volume, size);
  }
}
