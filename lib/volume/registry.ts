/**
 * The registry of volumes on one device.
 *
 * Invariants
 *  1. A record is durable before the operation that wrote it is answered, and before Redis hears of it.
 *  2. Two live volumes never have one name; an id is never used twice (a removed volume keeps its record as
 *     a tombstone until the last of its extents is gone, and ids are random 48-bit numbers).
 */
import { assert } from "../core/assert.js";
import type { Checksums } from "../core/checksum.js";
import type { Clock, Random, Ticker } from "../core/clock.js";
import { LaminaError } from "../core/errors.js";
import { VOLUME_ID_MAX } from "../core/ids.js";
import { BLOCK_BYTES } from "../core/limits.js";
import type { Pool } from "../core/pool.js";
import type { VolumeRecord } from "../replica/record.js";
import { decodeRecord, encodeRecord } from "../replica/record-codec.js";
import type { Store } from "../store/api.js";
import { RECORD_BYTES_MAX } from "../store/format.js";
import { VolumeOwner } from "./owner.js";
import { longestOf, refuseLonger } from "./record-room.js";
import type { CreateVolume, OpenVolume, VolumePatch, VolumeRegistry, VolumeUsage } from "./registry-api.js";
import {
  checkCreate,
  checkPatch,
  drawVolumeId,
  firstRecord,
  patched,
  RegistryBase,
  resized,
} from "./registry-base.js";
import { checkName, completePolicy } from "./validate.js";
import { VolumeCore } from "./volume.js";

export interface RegistryEnvironment {
  readonly store: Store;
  readonly pool: Pool;
  readonly clock: Clock;
  readonly random: Random;
  readonly ticker: Ticker;
  readonly checksums: Checksums;
}

interface OpenState {
  readonly volume: VolumeCore;
  holders: number;
}

/** Nodes that can hold copies: this registry is of one device. */
const NODES = 1;

export class DeviceRegistry extends RegistryBase implements VolumeRegistry {
  readonly #environment: RegistryEnvironment;
  readonly #store: Store;
  readonly #owner: VolumeOwner;
  readonly #records = new Map<number, VolumeRecord>();
  readonly #byName = new Map<string, VolumeRecord>();
  readonly #open = new Map<number, OpenState>();

  /** Throws LaminaError RECORD_DAMAGED. Removals that were interrupted go on. */
  constructor(environment: RegistryEnvironment) {
    super();
    this.#environment = environment;
    this.#store = environment.store;
    this.#owner = new VolumeOwner({
      io: environment.store,
      pool: environment.pool,
      ticker: environment.ticker,
      checksums: environment.checksums,
      extentBlocks: environment.store.extentBlocks,
    });
    for (const [id, bytes] of environment.store.records()) {
      // Numbers that no volume can have are the node's own (lib/replica).
      if (id > VOLUME_ID_MAX) continue;
      const record = decode(id, bytes);
      this.#records.set(id, record);
      if (record.state === "live") this.#byName.set(record.name, record);
      else this.serially(() => this.#bury(record)).catch(() => undefined);
    }
  }

  list(): readonly VolumeRecord[] {
    return [...this.#byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  byName(name: string): VolumeRecord | undefined {
    return this.#byName.get(name);
  }

  byId(id: number): VolumeRecord | undefined {
    const record = this.#records.get(id);
    return record?.state === "live" ? record : undefined;
  }

  usage(id: number): VolumeUsage {
    const extents = this.#store.slotsOf(id);
    return {
      extents,
      slotBytes: extents * this.#store.extentBlocks * BLOCK_BYTES,
      connections: this.#open.get(id)?.holders ?? 0,
      badBlocks: this.#store.badBlocks(id).length,
    };
  }

  create(spec: CreateVolume): Promise<VolumeRecord> {
    return this.serially(async () => {
      checkCreate(spec);
      const policy = completePolicy(spec.policy, NODES, this.#store.extentBlocks * BLOCK_BYTES);
      this.#refuseTaken(spec.name);
      const { random, clock } = this.#environment;
      const id = drawVolumeId(random, (one) => this.#records.has(one) || this.#store.slotsOf(one) > 0);
      const record = firstRecord(spec, id, policy, clock.wall());
      refuseTooLarge(record);
      await this.#commit(record);
      this.tell({ kind: "created", record });
      return record;
    });
  }

  update(name: string, patch: VolumePatch): Promise<VolumeRecord> {
    return this.#change(name, (record) => {
      checkPatch(patch);
      return patched(record, patch);
    });
  }

  rename(name: string, newName: string): Promise<VolumeRecord> {
    return this.#change(name, (record) => {
      checkName(newName);
      if (newName !== name) this.#refuseTaken(newName);
      return { ...record, name: newName };
    });
  }

  resize(name: string, size: number): Promise<VolumeRecord> {
    return this.#change(name, (record) => resized(record, size));
  }

  remove(name: string): Promise<void> {
    return this.serially(async () => {
      const record = this.#live(name);
      const holders = this.#open.get(record.id)?.holders ?? 0;
      if (holders > 0) throw new LaminaError("VOLUME_IN_USE", { name, connections: holders });
      const removed: VolumeRecord = { ...record, state: "removed", version: record.version + 1 };
      await this.#commit(removed);
      this.tell({ kind: "removed", record: removed });
      await this.#bury(removed);
    });
  }

  /** Frees the extents of a removed volume, and then its record: a crash between the two starts here again. */
  async #bury(record: VolumeRecord): Promise<void> {
    await promised((done) => this.#store.dropVolume(record.id, done));
    await promised((done) => this.#store.putRecord(record.id, null, done));
    this.#records.delete(record.id);
  }

  open(name: string): Promise<OpenVolume> {
    return this.serially(async () => {
      const record = this.#live(name);
      let state = this.#open.get(record.id);
      if (state === undefined) {
        const volume = new VolumeCore(this.#owner, record);
        this.#store.inventory(record.id, (_layer, extent) => volume.extents.add(extent));
        state = { volume, holders: 0 };
        this.#open.set(record.id, state);
        this.tell({ kind: "opened", record });
      }
      state.holders++;
      return this.#holder(state, record);
    });
  }

  #holder(state: OpenState, record: VolumeRecord): OpenVolume {
    let released = false;
    return {
      volume: state.volume,
      record,
      release: () => {
        assert(!released, "an open volume is released once");
        released = true;
        state.holders--;
        if (state.holders > 0) return;
        state.volume.whenIdle(() => {
          // Somebody may have opened it again meanwhile.
          if (state.holders > 0 || this.#open.get(record.id) !== state) return;
          this.#open.delete(record.id);
          this.tell({ kind: "closed", record: this.#records.get(record.id) ?? record });
        });
      },
    };
  }

  close(): Promise<void> {
    return this.serially(async () => {
      for (const state of this.#open.values()) {
        await new Promise<void>((resolve) => state.volume.whenIdle(resolve));
      }
      this.#open.clear();
      this.#owner.close();
    });
  }

  #change(name: string, edit: (record: VolumeRecord) => VolumeRecord): Promise<VolumeRecord> {
    return this.serially(async () => {
      const record = this.#live(name);
      const changed: VolumeRecord = { ...edit(record), version: record.version + 1 };
      refuseTooLarge(changed);
      await this.#commit(changed);
      this.tell({ kind: "changed", record: changed });
      return changed;
    });
  }

  async #commit(record: VolumeRecord): Promise<void> {
    const bytes = encodeRecord(record);
    await promised((done) => this.#store.putRecord(record.id, bytes, done));
    const before = this.#records.get(record.id);
    if (before !== undefined) this.#byName.delete(before.name);
    this.#records.set(record.id, record);
    if (record.state === "live") this.#byName.set(record.name, record);
    this.#open.get(record.id)?.volume.update(record);
  }

  #live(name: string): VolumeRecord {
    const record = this.#byName.get(name);
    if (record === undefined) throw new LaminaError("VOLUME_UNKNOWN", { name });
    return record;
  }

  #refuseTaken(name: string): void {
    if (this.#byName.has(name)) throw new LaminaError("VOLUME_EXISTS", { name });
  }
}

/** Throws RECORD_TOO_LARGE. A volume can always be removed: that is not asked then. */
function refuseTooLarge(record: VolumeRecord): void {
  refuseLonger(record.name, encodeRecord(longestOf(record)).length, RECORD_BYTES_MAX);
}

function decode(id: number, bytes: Uint8Array): VolumeRecord {
  try {
    const record = decodeRecord(bytes);
    if (record.id !== id) throw new Error(`it says it is of volume ${record.id}`);
    return record;
  } catch (error) {
    const what = error instanceof Error ? error.message : String(error);
    throw new LaminaError("RECORD_DAMAGED", { id, what }, error);
  }
}

function promised(start: (done: (error: LaminaError | null) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}
