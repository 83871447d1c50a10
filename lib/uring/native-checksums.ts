/** Checksums by the addon. */
import { assert } from "../core/assert.js";
import type { Checksums } from "../core/checksum.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { CHECKSUM_WINDOW } from "./abi.js";
import type { Addon } from "./addon.js";

export class NativeChecksums implements Checksums {
  readonly #addon: Addon;
  readonly #memory: number;
  readonly #window: Uint32Array;

  /** `memory` is the addon's number of the pool's memory. */
  constructor(addon: Addon, memory: number) {
    this.#addon = addon;
    this.#memory = memory;
    this.#window = new Uint32Array(addon.checksumWindow());
  }

  crc32c(memory: number, length: number, seed: number): number {
    const crc = this.#addon.checksum(this.#memory, memory, length, seed);
    assert(crc >= 0, "checksummed bytes lie inside the pool");
    return crc;
  }

  crc32cBytes(bytes: Uint8Array, seed: number): number {
    return this.#addon.checksumBytes(bytes, seed);
  }

  blockEntries(
    memory: number,
    count: number,
    extentSeed: number,
    firstBlock: number,
    out: Uint32Array,
    at: number,
  ): void {
    const window = this.#window;
    for (let first = 0; first < count; first += CHECKSUM_WINDOW) {
      const some = Math.min(count - first, CHECKSUM_WINDOW);
      const offset = memory + first * BLOCK_BYTES;
      const result = this.#addon.checksumBlocks(this.#memory, offset, some, extentSeed, firstBlock + first);
      assert(result === 0, "checksummed blocks lie inside the pool");
      for (let i = 0; i < some; i++) out[at + first + i] = window[i]!;
    }
  }
}
