/** What clients ask next: drawn from the run's mix, one operation at a time. */
import { BLOCK_BYTES } from "../../lib/core/limits.js";
import { OP_BYTES_MAX, OpKind, type SimClient } from "./clients.js";
import type { RunConfig } from "./config.js";
import type { Prng } from "./prng.js";

/** Extents that get the hot share of the operations. */
const HOT_EXTENTS = 2;

export class Workload {
  readonly #config: RunConfig;
  readonly #random: Prng;
  readonly #granulesPerBlock: number;

  constructor(config: RunConfig, random: Prng) {
    this.#config = config;
    this.#random = random;
    this.#granulesPerBlock = BLOCK_BYTES / config.granuleBytes;
  }

  /** Probability that a block of a write's payload is zeros. */
  get zeroChance(): number {
    return this.#config.features.has("zero-payload") ? 0.15 : 0;
  }

  /** Fills in the client's next operation. `blocksOf`: blocks that a volume has now; `flush`: it is a flush. */
  draw(client: SimClient, blocksOf: (volume: number) => number, flush: boolean): void {
    const random = this.#random;
    const { features, fuaShare, volumes } = this.#config;
    client.kind = flush ? OpKind.Flush : this.#kind();
    client.volume = random.below(volumes);
    client.noHole = client.kind === OpKind.Zero && features.has("no-hole") && random.chance(0.3);
    const changes = client.kind !== OpKind.Read && client.kind !== OpKind.Map && client.kind !== OpKind.Flush;
    client.fua = changes && features.has("fua") && random.chance(fuaShare);
    this.#range(client, blocksOf(client.volume));
  }

  #kind(): OpKind {
    const { features, flushShare, zeroShare, freeShare, mapShare, writeShare } = this.#config;
    let roll = this.#random.u32() / 2 ** 32;
    const taken = (share: number): boolean => {
      roll -= share;
      return roll < 0;
    };
    if (features.has("flush") && taken(flushShare)) return OpKind.Flush;
    if (features.has("zero") && taken(zeroShare)) return this.#random.chance(0.5) ? OpKind.Zero : OpKind.Trim;
    if (features.has("free") && taken(freeShare)) return OpKind.Free;
    if (features.has("map") && taken(mapShare)) return OpKind.Map;
    return this.#random.chance(writeShare) ? OpKind.Write : OpKind.Read;
  }

  #range(client: SimClient, volumeBlocks: number): void {
    const { extentBlocks, hotShare, front } = this.#config;
    const random = this.#random;
    const extents = Math.max(1, Math.floor(volumeBlocks / extentBlocks));
    const hot = random.chance(hotShare);
    const extent = hot ? random.below(Math.min(HOT_EXTENTS, extents)) : random.below(extents);
    if (client.kind === OpKind.Flush) {
      client.granule = 0;
      client.granules = 0;
    } else if (client.kind === OpKind.Free) {
      this.#blocks(client, extent * extentBlocks, extentBlocks);
    } else if (front === "store") {
      this.#insideExtent(client, extent);
    } else {
      this.#anywhere(client, extent, volumeBlocks);
    }
  }

  #blocks(client: SimClient, first: number, blocks: number): void {
    client.granule = first * this.#granulesPerBlock;
    client.granules = blocks * this.#granulesPerBlock;
  }

  #insideExtent(client: SimClient, extent: number): void {
    const { extentBlocks, blocksMax } = this.#config;
    const random = this.#random;
    const blocks = random.between(1, Math.min(blocksMax, extentBlocks));
    this.#blocks(client, extent * extentBlocks + random.below(extentBlocks - blocks + 1), blocks);
  }

  /** Any granules, also across extents; whole blocks more often than chance would have it. */
  #anywhere(client: SimClient, extent: number, volumeBlocks: number): void {
    const { extentBlocks, blocksMax } = this.#config;
    const random = this.#random;
    const perBlock = this.#granulesPerBlock;
    const blocks = random.between(1, Math.min(OP_BYTES_MAX / BLOCK_BYTES - 1, blocksMax * 2, volumeBlocks));
    const first = Math.min(extent * extentBlocks + random.below(extentBlocks), volumeBlocks - blocks);
    this.#blocks(client, first, blocks);
    if (random.chance(0.5)) return;
    const from = random.below(perBlock);
    client.granule += from;
    client.granules = random.between(1, client.granules - from);
  }
}
