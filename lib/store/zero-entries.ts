/** Entries of written zeros (NO_HOLE): checksums of a block of zeros at each place. */
import type { Checksums } from "../core/checksum.js";
import type { ExtentOp } from "../core/extent-io.js";
import { BLOCK_SHIFT } from "../core/limits.js";
import type { Table } from "./table.js";

export class ZeroEntries {
  readonly #checksums: Checksums;
  /** Pool buffer of zeros, and its length in blocks. */
  readonly #zeros: number;
  readonly #step: number;
  readonly #entries: Uint32Array;

  constructor(checksums: Checksums, zeros: number, zerosBytes: number, extentBlocks: number) {
    this.#checksums = checksums;
    this.#zeros = zeros;
    this.#step = zerosBytes >>> BLOCK_SHIFT;
    this.#entries = new Uint32Array(extentBlocks);
  }

  /** Of `op.blocks` blocks of zeros at `op.block`; the same array every time. */
  of(op: ExtentOp, table: Table): Uint32Array {
    for (let i = 0; i < op.blocks; i += this.#step) {
      const count = Math.min(this.#step, op.blocks - i);
      this.#checksums.blockEntries(this.#zeros, count, table.seed, op.block + i, this.#entries, i);
    }
    return this.#entries;
  }
}
