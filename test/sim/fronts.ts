/**
 * The ways in: clients on the store itself (they hold the range locks that a volume would), and clients of
 * volumes.
 */
import { extentSeed, volumeSeed } from "../../lib/core/checksum.js";
import {
  ExtentFlag,
  type ExtentIo,
  type ExtentListener,
  ExtentOp,
  ExtentOpKind,
} from "../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../lib/core/limits.js";
import type { Status } from "../../lib/core/status.js";
import {
  type Volume,
  VolumeFlag,
  type VolumeListener,
  VolumeOp,
  VolumeRequest,
} from "../../lib/volume/api.js";
import { type Front, OpKind, type SimClient } from "./clients.js";
import type { RunConfig } from "./config.js";
import { simMemory } from "./memory.js";

/** Front of a run: knows which operations may run now. */
export interface LifeFront extends Front {
  /** Takes what the operation needs to be alone on its blocks; false when somebody else has it. */
  admit(client: SimClient): boolean;
  /** Gives it back: the operation does not begin. */
  dismiss(client: SimClient): void;
}

/** Clients that use the store as a volume's owner does. */
export class StoreFront implements LifeFront, ExtentListener {
  readonly #config: RunConfig;
  readonly #store: ExtentIo;
  /** VolumeId of each volume of the run. */
  readonly #ids: readonly number[];
  /** One of each client, the janitor included. */
  readonly #ops: ExtentOp[];
  readonly #clients: SimClient[] = [];
  /** Per block of all volumes: readers, or −1 for one who changes it. */
  readonly #locks: Int16Array;

  constructor(config: RunConfig, store: ExtentIo, ids: readonly number[]) {
    this.#config = config;
    this.#store = store;
    this.#ids = ids;
    this.#ops = Array.from({ length: config.clients + 1 }, () => new ExtentOp());
    this.#locks = new Int16Array(config.volumes * config.extentsPerVolume * config.extentBlocks);
  }

  admit(client: SimClient): boolean {
    const [first, end] = this.#span(client);
    const shared = client.kind === OpKind.Read || client.kind === OpKind.Map;
    for (let block = first; block < end; block++) {
      const lock = this.#locks[block]!;
      if (lock < 0 || (lock > 0 && !shared)) return false;
    }
    for (let block = first; block < end; block++) this.#locks[block]! += shared ? 1 : -1;
    return true;
  }

  dismiss(client: SimClient): void {
    this.#release(client);
  }

  #release(client: SimClient): void {
    const [first, end] = this.#span(client);
    const shared = client.kind === OpKind.Read || client.kind === OpKind.Map;
    for (let block = first; block < end; block++) this.#locks[block]! -= shared ? 1 : -1;
  }

  #span(client: SimClient): [number, number] {
    if (client.kind === OpKind.Flush) return [0, 0];
    const { extentsPerVolume, extentBlocks } = this.#config;
    const first = client.volume * extentsPerVolume * extentBlocks + client.firstBlock;
    return [first, first + client.blocks];
  }

  issue(client: SimClient): void {
    const { extentBlocks, onFull } = this.#config;
    const op = this.#ops[client.number]!;
    this.#clients[client.number] = client;
    op.volume = this.#ids[client.volume]!;
    op.layer = 0;
    op.extent = Math.floor(client.firstBlock / extentBlocks);
    op.block = client.firstBlock % extentBlocks;
    op.blocks = client.blocks;
    op.memory = Math.max(0, client.memory);
    op.flags = 0;
    op.status = 0;
    op.listener = this;
    op.tag = client.number;
    op.kind = KINDS[client.kind];
    if (client.fua) op.flags |= ExtentFlag.Fua;
    if (client.noHole) op.flags |= ExtentFlag.NoHole;
    if (onFull === "enospc" && client.kind !== OpKind.Read) op.flags |= ExtentFlag.NoWait;
    if (op.kind === ExtentOpKind.Write) {
      const seed = extentSeed(volumeSeed(op.volume), op.extent);
      simMemory().checksums.blockEntries(op.memory, op.blocks, seed, op.block, op.entries, 0);
    }
    this.#store.submit(op);
  }

  extentDone(op: ExtentOp): void {
    const client = this.#clients[op.tag]!;
    this.#release(client);
    if (op.kind === ExtentOpKind.Read) client.allHole = op.presentCount === 0;
    if (op.kind === ExtentOpKind.Map) {
      const perBlock = BLOCK_BYTES / this.#config.granuleBytes;
      for (let i = 0; i < client.granules; i++) {
        const block = Math.floor(i / perBlock);
        client.hole[i] = (op.present[block >>> 5]! >>> (block & 31)) & 1 ? 0 : 1;
      }
    }
    client.completed(op.status);
  }
}

const KINDS: Record<OpKind, ExtentOpKind> = {
  [OpKind.Read]: ExtentOpKind.Read,
  [OpKind.Write]: ExtentOpKind.Write,
  [OpKind.Zero]: ExtentOpKind.Zero,
  [OpKind.Free]: ExtentOpKind.Free,
  [OpKind.Trim]: ExtentOpKind.Zero,
  [OpKind.Map]: ExtentOpKind.Map,
  [OpKind.Flush]: ExtentOpKind.Flush,
};

/** Clients of volumes: any bytes, overlapping as they like. */
export class VolumeFront implements LifeFront, VolumeListener {
  readonly #granuleBytes: number;
  /** Open volumes by number; those that are not open now are null. */
  readonly volumes: (Volume | null)[];
  /** One of each client, the janitor included. */
  readonly #requests: VolumeRequest[];
  readonly #clients: SimClient[] = [];

  constructor(config: RunConfig, volumes: (Volume | null)[]) {
    this.#granuleBytes = config.granuleBytes;
    this.volumes = volumes;
    this.#requests = Array.from({ length: config.clients + 1 }, () => new VolumeRequest());
  }

  admit(client: SimClient): boolean {
    const volume = this.volumes[client.volume];
    return volume !== null && volume !== undefined;
  }

  dismiss(): void {}

  issue(client: SimClient): void {
    const request = this.#requests[client.number]!;
    this.#clients[client.number] = client;
    request.op = VOLUME_OPS[client.kind];
    request.offset = client.kind === OpKind.Flush ? 0 : client.offset;
    request.length = client.kind === OpKind.Flush ? 0 : client.length;
    request.memory = Math.max(0, client.memory);
    request.flags = (client.fua ? VolumeFlag.Fua : 0) | (client.noHole ? VolumeFlag.NoHole : 0);
    request.listener = this;
    request.tag = client.number;
    request.allHole = false;
    this.volumes[client.volume]!.submit(request);
  }

  volumeDone(request: VolumeRequest): void {
    const client = this.#clients[request.tag]!;
    if (request.op === VolumeOp.Read) client.allHole = request.allHole;
    if (request.op === VolumeOp.Map) this.#fillHoles(request, client);
    client.completed(request.status as Status);
  }

  stillWanted(): boolean {
    return true;
  }

  #fillHoles(request: VolumeRequest, client: SimClient): void {
    client.hole.fill(0, 0, client.granules);
    let at = 0;
    for (let run = 0; run < request.runCount; run++) {
      const length = request.runs[2 * run]!;
      if (request.runs[2 * run + 1] === 0) {
        const from = Math.ceil(at / this.#granuleBytes);
        const to = Math.min(client.granules, Math.floor((at + length) / this.#granuleBytes));
        client.hole.fill(1, from, to);
      }
      at += length;
    }
  }
}

const VOLUME_OPS: Record<OpKind, VolumeOp> = {
  [OpKind.Read]: VolumeOp.Read,
  [OpKind.Write]: VolumeOp.Write,
  [OpKind.Zero]: VolumeOp.Zero,
  [OpKind.Free]: VolumeOp.Trim,
  [OpKind.Trim]: VolumeOp.Trim,
  [OpKind.Map]: VolumeOp.Map,
  [OpKind.Flush]: VolumeOp.Flush,
};
