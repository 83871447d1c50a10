/**
 * The memory behind the pool: one mapping of the process, in huge pages where the kernel has them. Threads share it
 * by its address, and a buffer has one offset in all of them. Behind the pool's bytes lies a stretch that is always zero, from which runs of
 * zeros are written where a file system cannot punch holes.
 */
import { LaminaError } from "../core/errors.js";
import { MIB, PIECE_BYTES } from "../core/limits.js";
import { Pool } from "../core/pool.js";
import type { Addon } from "./addon.js";
import type { EngineOptions, PoolShare } from "./api.js";
import { errnoText } from "./errno.js";

export const ZEROS_BYTES = MIB;

export class SharedMemory {
  readonly id: number;
  readonly address: number;
  readonly pool: Pool;
  /** Read only. */
  readonly zeros: Uint8Array;
  readonly poolBytes: number;
  readonly #addon: Addon;

  constructor(addon: Addon, options: EngineOptions) {
    this.#addon = addon;
    const share = options.poolShare;
    const whole = wholePieces(share?.poolBytes ?? options.poolBytes);
    const mapping =
      share === undefined
        ? addon.memoryCreate(whole + ZEROS_BYTES)
        : addon.memoryAttach(share.address, whole + ZEROS_BYTES);
    if (typeof mapping === "number") {
      throw new LaminaError("POOL_REFUSED", { size: whole, what: errnoText(mapping) });
    }
    this.id = mapping.id;
    this.address = mapping.address;
    this.poolBytes = whole;
    const bytes = new Uint8Array(mapping.buffer, 0, whole);
    this.zeros = new Uint8Array(mapping.buffer, whole, ZEROS_BYTES);
    const own = wholePieces(options.poolOwnBytes ?? whole);
    this.pool = new Pool(bytes, share?.from ?? 0, share?.to ?? own);
  }

  /** Names a part of the pool to another thread. */
  share(from: number, to: number): PoolShare {
    return { address: this.address, poolBytes: this.poolBytes, from, to };
  }

  /** Where `zeros` begins, as an offset like the pool's. */
  get zerosOffset(): number {
    return this.poolBytes;
  }

  close(): void {
    this.#addon.memoryClose(this.id);
  }
}

function wholePieces(bytes: number): number {
  return Math.ceil(bytes / PIECE_BYTES) * PIECE_BYTES;
}
