/**
 * What registries of volumes have in common, whether the records lie on one device or on a majority of config nodes.
 *
 * Invariant: control operations run one after another, so each sees the outcome of the one before.
 */
import type { Random } from "../core/clock.js";
import { LaminaError } from "../core/errors.js";
import { epoch, generation, type VolumeId, volumeId } from "../core/ids.js";
import type { VolumePolicy, VolumeRecord } from "../replica/record.js";
import type { CreateVolume, RegistryEvent, VolumePatch } from "./registry-api.js";
import { checkAccess, checkDescription, checkName, checkSize } from "./validate.js";

export abstract class RegistryBase {
  readonly #listeners: ((event: RegistryEvent) => void)[] = [];
  /** The control operation that runs last; the next one waits for it. */
  #last: Promise<unknown> = Promise.resolve();

  onEvent(listener: (event: RegistryEvent) => void): void {
    this.#listeners.push(listener);
  }

  protected tell(event: RegistryEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  protected serially<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}

/** Throws LaminaError. Policies are completed where the number of nodes is known. */
export function checkCreate(spec: CreateVolume): void {
  checkName(spec.name);
  checkSize(spec.size);
  checkDescription(spec.description ?? "");
  checkAccess(spec.access ?? []);
}

/** The first record of a volume; nothing is checked. `createdAt`: wall clock. */
export function firstRecord(
  spec: CreateVolume,
  id: VolumeId,
  policy: VolumePolicy,
  createdAt: number,
): VolumeRecord {
  return {
    id,
    name: spec.name,
    size: spec.size,
    description: spec.description ?? "",
    readOnly: spec.readOnly ?? false,
    policy,
    access: spec.access ?? [],
    epoch: epoch(1),
    generation: generation(1),
    version: 1,
    createdAt,
    state: "live",
  };
}

/** A random number that no volume has. */
export function drawVolumeId(random: Random, isTaken: (id: number) => boolean): VolumeId {
  for (;;) {
    const id = (random.u32() & 0xffff) * 2 ** 32 + random.u32();
    if (id !== 0 && !isTaken(id)) return volumeId(id);
  }
}

/** Throws LaminaError. */
export function checkPatch(patch: VolumePatch): void {
  if (patch.description !== undefined) checkDescription(patch.description);
  if (patch.access !== undefined) checkAccess(patch.access);
}

export function patched<Record extends VolumeRecord>(record: Record, patch: VolumePatch): Record {
  return {
    ...record,
    description: patch.description ?? record.description,
    readOnly: patch.readOnly ?? record.readOnly,
    access: patch.access ?? record.access,
    policy: { ...record.policy, onFull: patch.onFull ?? record.policy.onFull },
  };
}

/** Throws LaminaError, VOLUME_SHRINK among them. */
export function resized<Record extends VolumeRecord>(record: Record, size: number): Record {
  checkSize(size);
  if (size < record.size)
    throw new LaminaError("VOLUME_SHRINK", { name: record.name, size: record.size, wanted: size });
  return { ...record, size };
}
