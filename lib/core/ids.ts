/**
 * Branded ids: numbers and strings that must not be swapped for one another. Constructors check the range,
 * so a value of the type is a value in range.
 */
import { assert } from "./assert.js";

declare const brand: unique symbol;
type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** Number of a 4 KiB block inside its extent: 0 … blocksPerExtent − 1. */
export type BlockIndex = Branded<number, "BlockIndex">;
/** Number of an extent inside one volume layer: 0 … 2^32 − 1 (16 PiB of 4 MiB extents). */
export type ExtentIndex = Branded<number, "ExtentIndex">;
/** Number of a slot on one device. */
export type SlotIndex = Branded<number, "SlotIndex">;
/**
 * Permanent number of a volume: 1 … 2^48 − 1, chosen at random when the volume is created and never used
 * again. Names can change; this cannot.
 */
export type VolumeId = Branded<number, "VolumeId">;
/** Number of a layer of a volume. Every volume has layer 0; nothing is built on the others yet. */
export type LayerId = Branded<number, "LayerId">;
/** Fencing number of a volume's owner. Rises with every activation. */
export type Epoch = Branded<number, "Epoch">;
/** Version of a volume's member list. Strictly rises (invariant 11). */
export type Generation = Branded<number, "Generation">;
/** Number of one opening of a device. */
export type Incarnation = Branded<number, "Incarnation">;

export const VOLUME_ID_MAX = 2 ** 48 - 1;
export const EXTENT_INDEX_MAX = 2 ** 32 - 1;

export function volumeId(value: number): VolumeId {
  assert(Number.isSafeInteger(value) && value >= 1 && value <= VOLUME_ID_MAX, "volume id out of range");
  return value as VolumeId;
}

export function extentIndex(value: number): ExtentIndex {
  assert(Number.isSafeInteger(value) && value >= 0 && value <= EXTENT_INDEX_MAX, "extent index out of range");
  return value as ExtentIndex;
}

export function epoch(value: number): Epoch {
  assert(Number.isSafeInteger(value) && value >= 0, "epoch out of range");
  return value as Epoch;
}

export function generation(value: number): Generation {
  assert(Number.isSafeInteger(value) && value >= 0, "generation out of range");
  return value as Generation;
}

export const LAYER_TOP = 0 as LayerId;
