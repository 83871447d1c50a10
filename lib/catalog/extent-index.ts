/**
 * The extents of one volume as buckets of bits: taken from the store in one go (so that it is one moment's
 * truth), then written to Redis piece by piece.
 */
import { BUCKET_EXTENTS, bucketOf } from "./keys.js";

const WORDS = BUCKET_EXTENTS / 32;

export type ExtentVisit = (layer: number, extent: number) => void;

export class ExtentIndex {
  readonly #buckets = new Map<string, Uint32Array>();
  #count = 0;

  constructor(inventory: (visit: ExtentVisit) => void) {
    inventory((layer, extent) => this.#add(layer, extent));
  }

  #add(layer: number, extent: number): void {
    const name = bucketOf(layer, extent);
    let words = this.#buckets.get(name);
    if (words === undefined) {
      words = new Uint32Array(WORDS);
      this.#buckets.set(name, words);
    }
    const bit = extent % BUCKET_EXTENTS;
    words[bit >>> 5] = words[bit >>> 5]! | (1 << (bit & 31));
    this.#count++;
  }

  /** Extents in all buckets. */
  get count(): number {
    return this.#count;
  }

  bucketNames(): IterableIterator<string> {
    return this.#buckets.keys();
  }

  /** Extent numbers of a bucket, as the fields of its hash. Empty for a bucket without extents. */
  fields(name: string): string[] {
    const words = this.#buckets.get(name);
    if (words === undefined) return [];
    const first = Number(name.slice(name.indexOf(":") + 1)) * BUCKET_EXTENTS;
    const fields: string[] = [];
    for (let bit = 0; bit < BUCKET_EXTENTS; bit++) {
      if ((words[bit >>> 5]! & (1 << (bit & 31))) !== 0) fields.push(String(first + bit));
    }
    return fields;
  }
}
