/**
 * (volume, layer, extent) → slot: open addressing over slot numbers, keys kept in the directory's own
 * columns. 8 bytes per slot at most half full; no object per extent.
 */
import { assert } from "../core/assert.js";
import { mix32 } from "../core/checksum.js";

/** The columns that hold the keys. */
export interface ExtentKeys {
  readonly volume: Float64Array;
  readonly layer: Uint32Array;
  readonly extent: Uint32Array;
}

const EMPTY = 0;

export class ExtentIndex {
  readonly #keys: ExtentKeys;
  /** Slot + 1, or EMPTY. */
  readonly #cells: Int32Array;
  readonly #mask: number;
  #count = 0;

  constructor(keys: ExtentKeys, slots: number) {
    let size = 16;
    while (size < slots * 2) size *= 2;
    this.#keys = keys;
    this.#cells = new Int32Array(size);
    this.#mask = size - 1;
  }

  get count(): number {
    return this.#count;
  }

  /** Slot of the extent, or −1. */
  find(volume: number, layer: number, extent: number): number {
    const { volume: volumes, layer: layers, extent: extents } = this.#keys;
    for (let at = this.#home(volume, layer, extent); ; at = (at + 1) & this.#mask) {
      const slot = this.#cells[at]! - 1;
      if (slot < 0) return -1;
      if (extents[slot] === extent && volumes[slot] === volume && layers[slot] === layer) return slot;
    }
  }

  /** Adds the slot under the key that its columns hold; nobody else has that key. */
  add(slot: number): void {
    assert(this.addIfNew(slot), "an extent has one slot (invariant 17)");
  }

  /** Adds the slot unless another one has its key; says whether it did. */
  addIfNew(slot: number): boolean {
    const { volume, layer, extent } = this.#keys;
    let at = this.#home(volume[slot]!, layer[slot]!, extent[slot]!);
    while (this.#cells[at] !== EMPTY) {
      const other = this.#cells[at]! - 1;
      if (extent[other] === extent[slot] && volume[other] === volume[slot] && layer[other] === layer[slot]) {
        return false;
      }
      at = (at + 1) & this.#mask;
    }
    this.#cells[at] = slot + 1;
    this.#count++;
    return true;
  }

  /** Removes the slot; its columns still hold the key. Closes the gap, so that no tombstones pile up. */
  remove(slot: number): void {
    const { volume, layer, extent } = this.#keys;
    let gap = this.#home(volume[slot]!, layer[slot]!, extent[slot]!);
    while (this.#cells[gap] !== slot + 1) {
      assert(this.#cells[gap] !== EMPTY, "removed an extent that is not indexed");
      gap = (gap + 1) & this.#mask;
    }
    for (let at = (gap + 1) & this.#mask; this.#cells[at] !== EMPTY; at = (at + 1) & this.#mask) {
      const other = this.#cells[at]! - 1;
      const home = this.#home(volume[other]!, layer[other]!, extent[other]!);
      if (((at - home) & this.#mask) >= ((at - gap) & this.#mask)) {
        this.#cells[gap] = this.#cells[at]!;
        gap = at;
      }
    }
    this.#cells[gap] = EMPTY;
    this.#count--;
  }

  #home(volume: number, layer: number, extent: number): number {
    const low = volume >>> 0;
    const high = (volume - low) / 2 ** 32;
    return (
      mix32(
        (mix32((low ^ Math.imul(high, 0x9e3779b1) ^ Math.imul(layer, 0x85ebca77)) >>> 0) ^ extent) >>> 0,
      ) & this.#mask
    );
  }
}
