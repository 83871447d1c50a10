/**
 * Which extents of a node's device are stable: every write of them is complete on all in-sync members, as their
 * owner has said (DESIGN "Stable"). The store asks before it lets a slot cool.
 *
 * Invariants
 *  1. An extent is stable only by a Stable of the volume's current epoch whose sequence is not below that of the
 *     last change since.
 *  2. What is not known is not stable: forgetting is always safe.
 */
import type { Stability } from "../store/api.js";

/** Extents are keyed by layer and number in one double. */
const LAYER_STEP = 2 ** 32;

interface VolumeStability {
  epoch: number;
  /** Sequence of the last change, of extents that were changed since this was made. */
  readonly changed: Map<number, number>;
  readonly stable: Map<number, number>;
}

export class StabilityMap implements Stability {
  readonly #volumes = new Map<number, VolumeStability>();

  isStable(volume: number, layer: number, extent: number): boolean {
    const known = this.#volumes.get(volume);
    if (known === undefined) return false;
    const key = layer * LAYER_STEP + extent;
    const sequence = known.stable.get(key);
    return sequence !== undefined && sequence >= (known.changed.get(key) ?? 0);
  }

  /** A new owner: nothing is stable until it says so. */
  begin(volume: number, epoch: number): void {
    this.#volumes.set(volume, { epoch, changed: new Map(), stable: new Map() });
  }

  /** An operation that may change the extent is about to be executed. */
  changing(volume: number, layer: number, extent: number, sequence: number): void {
    const known = this.#volumes.get(volume);
    if (known === undefined) return;
    const key = layer * LAYER_STEP + extent;
    const before = known.changed.get(key);
    if (before === undefined || before < sequence) known.changed.set(key, sequence);
  }

  declare(volume: number, epoch: number, layer: number, extent: number, sequence: number): void {
    const known = this.#volumes.get(volume);
    if (known === undefined || known.epoch !== epoch) return;
    const key = layer * LAYER_STEP + extent;
    known.stable.set(key, Math.max(sequence, known.stable.get(key) ?? 0));
  }

  /** Extents of the volume that are kept in mind. */
  size(volume: number): number {
    const known = this.#volumes.get(volume);
    return known === undefined ? 0 : known.changed.size + known.stable.size;
  }

  /** Forgets extents that are stable and for which `keep` is false: the cool ones. */
  prune(volume: number, keep: (layer: number, extent: number) => boolean): void {
    const known = this.#volumes.get(volume);
    if (known === undefined) return;
    for (const key of [...known.stable.keys()]) {
      const layer = Math.floor(key / LAYER_STEP);
      const extent = key - layer * LAYER_STEP;
      if (keep(layer, extent) || !this.isStable(volume, layer, extent)) continue;
      known.stable.delete(key);
      known.changed.delete(key);
    }
  }
}
