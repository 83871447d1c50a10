/** Blocks known to be bad: reported once, listed newest last, bounded; mended by being written again. */
import type { BadBlock, StoreEnvironment } from "./api.js";

/** Beyond this many the oldest are forgotten; they are found again when they are read. */
export const BAD_BLOCKS_MAX = 10_000;
/** Block number that stands for all blocks of an extent whose table is lost. */
export const WHOLE_EXTENT = -1;

export class BadBlocks {
  readonly #env: Pick<StoreEnvironment, "clock" | "events">;
  readonly #known = new Map<string, BadBlock>();
  found = 0;

  constructor(env: Pick<StoreEnvironment, "clock" | "events">) {
    this.#env = env;
  }

  get count(): number {
    return this.#known.size;
  }

  add(volume: number, layer: number, extent: number, block: number): void {
    const key = keyOf(volume, layer, extent, block);
    if (this.#known.has(key)) return;
    if (this.#known.size >= BAD_BLOCKS_MAX) this.#known.delete(this.#known.keys().next().value!);
    const bad: BadBlock = { volume, layer, extent, block, foundAt: this.#env.clock.wall() };
    this.#known.set(key, bad);
    this.found++;
    this.#env.events.bitRot(bad);
  }

  /** The blocks have new bytes, or the extent is gone (`block` 0, `count` of all blocks). */
  mended(volume: number, layer: number, extent: number, block: number, count: number): void {
    if (this.#known.size === 0) return;
    for (let i = 0; i < count; i++) this.#known.delete(keyOf(volume, layer, extent, block + i));
  }

  gone(volume: number, layer: number, extent: number): void {
    for (const [key, bad] of this.#known) {
      if (bad.volume === volume && bad.layer === layer && bad.extent === extent) this.#known.delete(key);
    }
  }

  of(volume: number): readonly BadBlock[] {
    return [...this.#known.values()].filter((bad) => bad.volume === volume);
  }
}

function keyOf(volume: number, layer: number, extent: number, block: number): string {
  return `${volume}/${layer}/${extent}/${block}`;
}
