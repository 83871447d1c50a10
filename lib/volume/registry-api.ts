/**
 * Control operations on volumes: what the admin API, the CLI and the catalogue mirror build on. Each commits
 * its record on the device before it answers; Redis follows afterwards and is never asked.
 */
import type { AccessRule, VolumePolicy, VolumeRecord } from "../replica/record.js";
import type { Volume } from "./api.js";

export interface CreateVolume {
  readonly name: string;
  /** Bytes. Refused with SIZE_UNALIGNED, SIZE_INVALID or SIZE_TOO_LARGE. */
  readonly size: number;
  readonly description?: string;
  readonly readOnly?: boolean;
  readonly policy?: Partial<VolumePolicy>;
  readonly access?: readonly AccessRule[];
}

export interface VolumePatch {
  readonly description?: string;
  readonly readOnly?: boolean;
  readonly access?: readonly AccessRule[];
  readonly onFull?: VolumePolicy["onFull"];
}

export interface VolumeUsage {
  /** Extents that exist, and the bytes of their slots. */
  readonly extents: number;
  readonly slotBytes: number;
  /** Sessions that have it open. */
  readonly connections: number;
  readonly badBlocks: number;
}

/** A volume held open; the same Volume for everyone who holds it. Closing the last one closes the volume. */
export interface OpenVolume {
  readonly volume: Volume;
  readonly record: VolumeRecord;
  /** Called once, after the holder's last request was answered. */
  release(): void;
}

export type RegistryEvent =
  | { readonly kind: "created" | "changed"; readonly record: VolumeRecord }
  | { readonly kind: "removed"; readonly record: VolumeRecord }
  | { readonly kind: "opened" | "closed"; readonly record: VolumeRecord }
  /** It is open no more: somebody else has it. Nothing is answered; who holds it open lets go of it. */
  | { readonly kind: "lost"; readonly record: VolumeRecord; readonly reason: string };

/** Every rejected promise carries a LaminaError; nothing was changed then. */
export interface VolumeRegistry {
  /** Live records, by name. */
  list(): readonly VolumeRecord[];
  byName(name: string): VolumeRecord | undefined;
  byId(id: number): VolumeRecord | undefined;
  usage(id: number): VolumeUsage;

  create(spec: CreateVolume): Promise<VolumeRecord>;
  update(name: string, patch: VolumePatch): Promise<VolumeRecord>;
  rename(name: string, newName: string): Promise<VolumeRecord>;
  /** Growing is seen by open connections at once. Shrinking is refused: VOLUME_SHRINK. */
  resize(name: string, size: number): Promise<VolumeRecord>;
  /** Refused while open: VOLUME_IN_USE. */
  remove(name: string): Promise<void>;

  /** Rejected with VOLUME_UNKNOWN. Nothing is read from the device before this. */
  open(name: string): Promise<OpenVolume>;
  onEvent(listener: (event: RegistryEvent) => void): void;
  /** Closes what is open once its requests are answered. */
  close(): Promise<void>;
}
