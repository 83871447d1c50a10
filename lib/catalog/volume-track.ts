/**
 * What the mirror knows about one volume: whether Redis has it, and what happened since.
 *
 * Invariants
 *  1. `stamp` is what Redis holds if nothing was lost there. Without one ("stale") the volume is written
 *     anew from the truth, so nothing needs to be remembered about it.
 *  2. While there is a stamp, `changes` holds every extent change since the last write; only the last state
 *     of each extent (coalescing).
 */
const LAYER_STEP = 2 ** 32;

export class VolumeTrack {
  readonly volume: number;
  stamp: string | null = null;
  /** Version of the record that Redis has; −1 for none. */
  recordVersion = -1;
  #changes = new Map<number, boolean>();

  constructor(volume: number) {
    this.volume = volume;
  }

  get pending(): number {
    return this.#changes.size;
  }

  /** Returns how many more changes are remembered now: 0 or 1. */
  note(layer: number, extent: number, exists: boolean): number {
    if (this.stamp === null) return 0;
    const before = this.#changes.size;
    this.#changes.set(layer * LAYER_STEP + extent, exists);
    return this.#changes.size - before;
  }

  /** Redis is not believed any more. Returns how many remembered changes were dropped. */
  makeStale(): number {
    this.stamp = null;
    this.recordVersion = -1;
    return this.takeChanges().size;
  }

  takeChanges(): ReadonlyMap<number, boolean> {
    const taken = this.#changes;
    this.#changes = new Map();
    return taken;
  }
}

export function layerOf(change: number): number {
  return Math.floor(change / LAYER_STEP);
}

export function extentOf(change: number): number {
  return change % LAYER_STEP;
}
