/** A registry of one volume in memory for a gateway on a real engine. Completes at the end of the batch. */
import type { Ticker, TickTask } from "../../../../lib/core/clock.js";
import { BLOCK_BYTES } from "../../../../lib/core/limits.js";
import type { Pool } from "../../../../lib/core/pool.js";
import { type Volume, VolumeOp, type VolumeRequest } from "../../../../lib/volume/api.js";
import type { VolumeRegistry } from "../../../../lib/volume/registry-api.js";
import { Loop } from "./loop.js";
import { ModelVolume } from "./model-volume.js";

export class RamVolume implements Volume, TickTask {
  readonly id = 1;
  readonly name = "v";
  readonly readOnly = false;
  readonly preferredBytes = BLOCK_BYTES;
  readonly bytes: Uint8Array;
  readonly #pool: Pool;
  readonly #ticker: Ticker;
  #waiting: VolumeRequest[] = [];

  constructor(pool: Pool, ticker: Ticker, sizeBytes: number) {
    this.#pool = pool;
    this.#ticker = ticker;
    this.bytes = new Uint8Array(sizeBytes);
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  submit(request: VolumeRequest): void {
    if (this.#waiting.length === 0) this.#ticker.atTickEnd(this);
    this.#waiting.push(request);
  }

  tick(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const request of waiting) {
      const { op, offset, length } = request;
      const memory = request.memory + (offset % BLOCK_BYTES);
      request.status = 0;
      request.allHole = false;
      request.present.fill(0xffffffff);
      if (op === VolumeOp.Write) this.bytes.set(this.#pool.bytes.subarray(memory, memory + length), offset);
      else if (op === VolumeOp.Read)
        this.#pool.bytes.set(this.bytes.subarray(offset, offset + length), memory);
      request.runs = Float64Array.of(length, 1);
      request.runCount = 1;
      request.listener.volumeDone(request);
    }
  }
}

/** The part of a registry that a gateway uses. */
export function registryOf(volume: RamVolume): VolumeRegistry {
  const { record } = new ModelVolume(new Loop(), volume.name, volume.sizeBytes);
  const part: Pick<VolumeRegistry, "list" | "byName" | "open" | "onEvent"> = {
    list: () => [record],
    byName: (name) => (name === record.name ? record : undefined),
    open: async () => ({ volume, record, release: () => {} }),
    onEvent: () => {},
  };
  return part as VolumeRegistry;
}
