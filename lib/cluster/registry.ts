/**
 * The volumes of a cluster as a gateway offers them: records from the config nodes, each volume owned here from its
 * first client to its last.
 *
 * Invariants
 *  1. A control operation is told as done when its record is chosen.
 *  2. A volume is activated once for all its holders here, and let go of before it is activated again.
 */
import { assert } from "../core/assert.js";
import { LaminaError } from "../core/errors.js";
import { BLOCK_BYTES } from "../core/limits.js";
import type { NodeId } from "../replica/api.js";
import type { LeaseClient } from "../replica/lease.js";
import type { VolumeRegister } from "../replica/owner/api.js";
import { type ClusterRecord, isJoining } from "../replica/owner/record.js";
import type { VolumeRecord } from "../replica/record.js";
import type {
  CreateVolume,
  OpenVolume,
  VolumePatch,
  VolumeRegistry,
  VolumeUsage,
} from "../volume/registry-api.js";
import {
  checkCreate,
  checkPatch,
  drawVolumeId,
  firstRecord,
  patched,
  RegistryBase,
  resized,
} from "../volume/registry-base.js";
import { checkName, completePolicy } from "../volume/validate.js";
import type { Kept } from "./care/caretaker.js";
import { OneEpoch } from "./care/one-epoch.js";
import { careWorkOf } from "./care/work.js";
import type { Catalogue, KnownVolume } from "./catalogue.js";
import { type Chosen, inTime, type RecordControl } from "./control.js";
import { Edit } from "./edit.js";
import { OwnedVolume, type OwnedVolumeEnvironment, type OwnedVolumeEvents } from "./owned-volume.js";

/**
 * A volume that was taken from us is not taken back for so long: clients that reconnect here while others use the
 * other gateway would have the two take it from each other without end.
 */
export const LOST_PAUSE_MS = 10_000;

export interface ClusterRegistryOptions {
  readonly environment: OwnedVolumeEnvironment;
  readonly catalogue: Catalogue;
  readonly control: RecordControl;
  /** How many nodes can hold copies. */
  readonly nodeCount: () => number;
  /** Nodes that get a seat in a new volume of so many copies. */
  readonly seats: (replicas: number) => Promise<readonly NodeId[]>;
  /** A volume is served from now on, which the lease has not asked about. */
  readonly granted: () => void;
  /** What happened to a volume's copies; one sentence each. */
  readonly tell: (volume: string, text: string) => void;
  /** Has another gateway let go of a volume that it keeps for its copies only, and waits for that. Never rejected. */
  readonly askFor: (volume: number) => Promise<void>;
}

interface Held {
  readonly owned: OwnedVolume;
  /** The record that it was opened with, until there is a newer one. */
  readonly name: string;
  holders: number;
  /** Somebody uses it, and it was told as opened. */
  isTold: boolean;
  readonly ready: Promise<void>;
}

/** A volume that is kept open, like by a client, until its copies are whole. */
interface Mending {
  readonly owned: OwnedVolume;
  release(): void;
}

export class ClusterRegistry extends RegistryBase implements VolumeRegistry, LeaseClient {
  readonly #options: ClusterRegistryOptions;
  readonly #held = new Map<number, Held>();
  /** Volumes that are being let go of. */
  readonly #closing = new Map<number, Promise<void>>();
  /** When volumes were lost, by Clock.now. */
  readonly #lostAt = new Map<number, number>();
  /** Volumes that are kept open until their copies are whole. */
  readonly #mending: Mending[] = [];
  /** Volumes that the caretaker keeps open. */
  readonly #kept = new Map<number, Kept>();
  /** Highest epochs that were heard of: a lower one would be refused. */
  readonly #epochs = new Map<number, number>();

  constructor(options: ClusterRegistryOptions) {
    super();
    this.#options = options;
  }

  // ---- What there is -----------------------------------------------------------------------------------

  list(): readonly ClusterRecord[] {
    const records: ClusterRecord[] = [];
    for (const [id, { record }] of this.#options.catalogue.volumes) {
      if (record.state === "live") records.push(this.#held.get(id)?.owned.record ?? record);
    }
    return records.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  byName(name: string): ClusterRecord | undefined {
    return this.list().find((record) => record.name === name);
  }

  byId(id: number): ClusterRecord | undefined {
    return this.list().find((record) => record.id === id);
  }

  usage(id: number): VolumeUsage {
    const held = this.#held.get(id);
    const extents = held?.owned.volume?.extents.count ?? 0;
    const slotBytes = extents * this.#options.environment.owner.extentBlocks * BLOCK_BYTES;
    return { extents, slotBytes, connections: this.#clientsOf(id), badBlocks: 0 };
  }

  /** What is owned here, or about to be. */
  get owned(): readonly OwnedVolume[] {
    return [...this.#held.values()].map(({ owned }) => owned);
  }

  /** Brings the list up to date, and tells what has changed. */
  async refresh(): Promise<void> {
    const before = new Map(this.list().map((record) => [record.id as number, record]));
    await this.#options.catalogue.refresh();
    for (const record of this.list()) {
      const old = before.get(record.id);
      before.delete(record.id);
      if (old === undefined) this.tell({ kind: "created", record });
      else if (old.version !== record.version) this.tell({ kind: "changed", record });
    }
    for (const record of before.values()) this.tell({ kind: "removed", record });
  }

  // ---- The lease ---------------------------------------------------------------------------------------

  watched(): readonly number[] {
    return [...this.#held.values()].flatMap(({ owned }) => (owned.volume === null ? [] : [owned.id]));
  }

  promised(volume: number, promisedEpoch: number): void {
    this.#epochs.set(volume, Math.max(promisedEpoch, this.#epochs.get(volume) ?? 0));
    this.#held.get(volume)?.owned.learn(promisedEpoch);
  }

  // ---- Control -----------------------------------------------------------------------------------------

  create(spec: CreateVolume): Promise<VolumeRecord> {
    return this.serially(async () => {
      checkCreate(spec);
      await this.refresh();
      this.#refuseTaken(spec.name);
      return this.#chosen(await this.#options.control.create(await this.#firstRecord(spec)), "created");
    });
  }

  async #firstRecord(spec: CreateVolume): Promise<ClusterRecord> {
    const { environment, nodeCount, seats, catalogue } = this.#options;
    const { clock, random, self, extentBlocks } = environment.owner;
    const policy = completePolicy(spec.policy, nodeCount(), extentBlocks * BLOCK_BYTES);
    const nodes = await seats(policy.replicas);
    const id = drawVolumeId(random, (one) => catalogue.volumes.has(one));
    return {
      ...firstRecord(spec, id, policy, clock.wall()),
      owner: { peer: self.peer, node: null, incarnation: 0, released: true },
      // Each extent is on as many of them as there are replicas.
      members: nodes.map((node) => ({ node, state: "insync", since: 0 })),
      replicasMin: policy.replicas,
    };
  }

  update(name: string, patch: VolumePatch): Promise<VolumeRecord> {
    return this.serially(async () => {
      checkPatch(patch);
      return this.#change(name, (record) => patched(record, patch));
    });
  }

  resize(name: string, size: number): Promise<VolumeRecord> {
    return this.serially(() => this.#change(name, (record) => resized(record, size)));
  }

  rename(name: string, newName: string): Promise<VolumeRecord> {
    return this.#closed(name, "changed", (record) => {
      checkName(newName);
      if (newName !== name) this.#refuseTaken(newName);
      return { ...record, name: newName };
    });
  }

  async remove(name: string): Promise<void> {
    await this.#closed(name, "removed", (record) => ({ ...record, state: "removed" }));
  }

  /** Of a volume that may be open: its owner changes it. */
  async #change(name: string, edit: (record: ClusterRecord) => ClusterRecord): Promise<VolumeRecord> {
    const known = await this.#free(await this.#live(name));
    const held = this.#held.get(known.record.id);
    if (held === undefined)
      return this.#chosen(await this.#options.control.change(known.record, edit), "changed");
    await inTime(name, held.ready);
    const record = await new Edit(edit).made(held.owned.record ?? known.record, (due) =>
      inTime(name, held.owned.amend(due)),
    );
    if (record === null) throw new LaminaError("VOLUME_ELSEWHERE", { name });
    this.tell({ kind: "changed", record });
    return record;
  }

  /**
   * Gives the seat of a node to another one, or up, if it joins and `next` is null; and keeps the volume here until its
   * copies are whole. Throws
   * VOLUME_ELSEWHERE, SEAT_KEPT, CLUSTER_UNDECIDED.
   */
  replaceSeat(name: string, old: NodeId, next: NodeId | null): Promise<void> {
    const node = this.#options.environment.owner.nameOf(old);
    return this.#changeSeats(name, async (owned) => {
      const what = await owned.replace(old, next);
      return what === null ? null : new LaminaError("SEAT_KEPT", { name, node, what });
    });
  }

  /**
   * Gives a volume a further seat, for a node, and keeps the volume here until its copies are whole; also if that seat is
   * joining already. Throws VOLUME_ELSEWHERE, SEAT_NOT_ADDED, CLUSTER_UNDECIDED.
   */
  addSeat(name: string, next: NodeId): Promise<void> {
    const node = this.#options.environment.owner.nameOf(next);
    return this.#changeSeats(name, async (owned) => {
      const what = joins(owned.record, next) ? null : await owned.grow(next);
      return what === null ? null : new LaminaError("SEAT_NOT_ADDED", { name, node, what });
    });
  }

  async #changeSeats(
    name: string,
    change: (owned: OwnedVolume) => Promise<LaminaError | null>,
  ): Promise<void> {
    const kept = await this.serially(async () => {
      const { record } = await this.#free(await this.#live(name));
      if (!this.#held.has(record.id) && !record.owner.released)
        throw new LaminaError("VOLUME_ELSEWHERE", { name });
      const opening = this.open(name);
      const open = await inTime(name, opening).catch((error: unknown) => {
        // It may still come, and nobody would let go of it.
        opening.then(({ release }) => release()).catch(() => undefined);
        throw error;
      });
      try {
        const owned = this.#held.get(record.id)?.owned;
        if (owned === undefined) throw new LaminaError("VOLUME_ELSEWHERE", { name });
        const refusal = await inTime(name, change(owned));
        // Also if it was refused: it may be for want of the copies that resync makes while it is open.
        this.#mending.push({ owned, release: open.release });
        if (refusal === null) this.tell({ kind: "changed", record: owned.record ?? record });
        return refusal;
      } catch (error) {
        open.release();
        throw error;
      }
    });
    if (kept !== null) throw kept;
  }

  /** Looks whether volumes that are kept open for their copies' sake are whole. */
  look(): void {
    this.#stopMending(({ owned }) => owned.isWhole || this.#held.get(owned.id)?.owned !== owned);
  }

  #stopMending(isOver: (mending: Mending) => boolean): void {
    for (const mending of this.#mending.filter(isOver)) {
      this.#mending.splice(this.#mending.indexOf(mending), 1);
      mending.release();
    }
  }

  /** Clients that have it open. */
  #clientsOf(id: number): number {
    const mending = this.#mending.filter(({ owned }) => owned.id === id).length;
    return (this.#held.get(id)?.holders ?? 0) - mending - Number(this.#kept.has(id));
  }

  /** A volume that is not served here is made free, if it is kept anywhere for its copies only. As it is then. */
  async #free(known: KnownVolume): Promise<KnownVolume> {
    const { id, name, owner } = known.record;
    const held = this.#held.get(id);
    // What is still being opened for its copies only may never be.
    if (held !== undefined && held.owned.volume === null && this.#clientsOf(id) === 0) {
      this.#kept.get(id)?.release();
      await this.#closing.get(id);
    } else if (held === undefined && !owner.released) {
      await this.#options.askFor(id);
    } else {
      return known;
    }
    return this.#live(name);
  }

  /** Of a volume that nobody may have open. */
  #closed(
    name: string,
    kind: "changed" | "removed",
    edit: (record: ClusterRecord) => ClusterRecord,
  ): Promise<VolumeRecord> {
    return this.serially(async () => {
      const { record } = await this.#free(await this.#live(name));
      const connections = this.#clientsOf(record.id);
      if (connections > 0) throw new LaminaError("VOLUME_IN_USE", { name, connections });
      this.#stopMending(({ owned }) => owned.id === record.id);
      this.#kept.get(record.id)?.release();
      await this.#closing.get(record.id);
      const { record: now } = await this.#live(name);
      return this.#chosen(await this.#options.control.change(now, edit), kind);
    });
  }

  #chosen({ record, accepted }: Chosen, kind: "created" | "changed" | "removed"): VolumeRecord {
    this.#options.catalogue.learn(record, accepted);
    this.tell({ kind, record });
    return record;
  }

  async #live(name: string): Promise<KnownVolume> {
    await this.refresh();
    for (const known of this.#options.catalogue.volumes.values()) {
      if (known.record.state === "live" && known.record.name === name) return known;
    }
    throw new LaminaError("VOLUME_UNKNOWN", { name });
  }

  #refuseTaken(name: string): void {
    if (this.byName(name) !== undefined) throw new LaminaError("VOLUME_EXISTS", { name });
  }

  // ---- Owning ------------------------------------------------------------------------------------------

  async open(name: string): Promise<OpenVolume> {
    let hasAsked = false;
    for (;;) {
      const record = this.byName(name);
      if (record === undefined) throw new LaminaError("VOLUME_UNKNOWN", { name });
      const closing = this.#closing.get(record.id);
      const isElsewhere = !this.#held.has(record.id) && !record.owner.released;
      if (closing !== undefined) await closing;
      else if (hasAsked || !isElsewhere) return this.#take(record);
      else {
        hasAsked = true;
        await this.#options.askFor(record.id);
      }
    }
  }

  /** Whether it is open here, or being let go of. */
  isOpen(id: number): boolean {
    return this.#held.has(id) || this.#closing.has(id);
  }

  /** The caretaker has it open. */
  isKept(id: number): boolean {
    return this.#kept.has(id);
  }

  /**
   * Opens a volume that nobody has open, for nobody but its copies. Whoever asks for it meanwhile gets it: here by joining,
   * elsewhere because this one does not ask twice. Null: it cannot be opened here now.
   */
  keep(id: number): Kept | null {
    const record = this.byId(id);
    if (record === undefined || this.isOpen(id)) return null;
    const { register } = this.#options.environment.owner;
    let fault: string | null = null;
    const once = new OneEpoch(
      register,
      () => this.#clientsOf(id) === 0,
      (epoch) => {
        this.#epochs.set(id, Math.max(epoch, this.#epochs.get(id) ?? 0));
        fault = "somebody else asks for it";
        kept.release();
      },
    );
    const held = this.#activate(record, once);
    held.holders++;
    const isHeld = (): boolean => this.#held.get(id) === held && this.#kept.get(id) === kept;
    const clientsOf = (): number => this.#clientsOf(id);
    const kept: Kept = {
      get isHeld() {
        return isHeld();
      },
      get fault() {
        return fault;
      },
      get clients() {
        return clientsOf();
      },
      get work() {
        const { set } = held.owned;
        return set === null ? null : careWorkOf(set.members, set.work.reconcile);
      },
      release: () => {
        if (this.#kept.get(id) !== kept) return;
        this.#kept.delete(id);
        this.#letGo(id, held);
      },
    };
    this.#kept.set(id, kept);
    held.ready.catch((error: unknown) => {
      fault ??= error instanceof Error ? error.message : String(error);
      kept.release();
    });
    return kept;
  }

  async #take(record: ClusterRecord): Promise<OpenVolume> {
    const { id, name } = record;
    let held = this.#held.get(id);
    if (held === undefined) {
      this.#refuseLost(record);
      held = this.#activate(record);
    }
    held.holders++;
    try {
      await held.ready;
    } catch (error) {
      this.#letGo(id, held);
      throw error;
    }
    const { volume } = held.owned;
    if (volume === null || this.#held.get(id) !== held) {
      this.#letGo(id, held);
      throw new LaminaError("VOLUME_MOVED", { name, seconds: LOST_PAUSE_MS / 1000 });
    }
    if (!held.isTold) {
      held.isTold = true;
      this.tell({ kind: "opened", record: held.owned.record ?? record });
    }
    const taken = held;
    let released = false;
    return {
      volume,
      record: taken.owned.record ?? record,
      release: () => {
        assert(!released, "an open volume is released once");
        released = true;
        this.#letGo(id, taken);
      },
    };
  }

  #refuseLost({ id, name }: ClusterRecord): void {
    const at = this.#lostAt.get(id);
    if (at === undefined) return;
    if (this.#options.environment.owner.clock.now() - at < LOST_PAUSE_MS)
      throw new LaminaError("VOLUME_MOVED", { name, seconds: LOST_PAUSE_MS / 1000 });
    this.#lostAt.delete(id);
  }

  /** `register`: another one than the environment's. */
  #activate(record: ClusterRecord, register?: VolumeRegister): Held {
    const { id, name } = record;
    const { environment } = this.#options;
    const its =
      register === undefined ? environment : { ...environment, owner: { ...environment.owner, register } };
    const owned = new OwnedVolume(its, id, this.#eventsOf(id, name));
    const known = Math.max(record.epoch, this.#epochs.get(id) ?? 0);
    const ready = owned.activate(name, known + 1).then(() => {
      this.#epochs.set(id, owned.set!.epoch);
      this.#options.granted();
    });
    const held: Held = { owned, name, holders: 0, isTold: false, ready };
    this.#held.set(id, held);
    return held;
  }

  #eventsOf(id: number, name: string): OwnedVolumeEvents {
    const { tell, environment } = this.#options;
    const { nameOf } = environment.owner;
    return {
      lost: (reason) => this.#lost(id, reason),
      left: (node, reason) =>
        tell(name, `volume ${name}: the copy on ${nameOf(node)} is left out: ${reason}`),
      joined: (node) => tell(name, `volume ${name}: the copy on ${nameOf(node)} is complete again`),
      repaired: (node, extent, blocks) =>
        tell(name, `volume ${name}: ${blocks} block(s) of extent ${extent} on ${nameOf(node)} were repaired`),
      unrepairable: (node, extent, block) =>
        tell(name, `volume ${name}: block ${block} of extent ${extent} on ${nameOf(node)} has no good copy`),
    };
  }

  /**
   * Gives up the volumes that wait for others, and cuts their clients off: what was not answered they ask again, at
   * the next owner. Returns their names.
   */
  abandonWaiting(reason: string): readonly string[] {
    const waiting = [...this.#held.values()].filter(({ owned }) => owned.waiting !== null);
    for (const { owned } of waiting) owned.abandon(reason);
    return waiting.map(({ name }) => name);
  }

  /** Another owner has it. Holders let go of it by themselves; the next one here waits a while. */
  #lost(id: number, reason: string): void {
    const held = this.#held.get(id);
    if (held === undefined) return;
    const { record } = held.owned;
    this.#held.delete(id);
    this.#kept.delete(id);
    this.#closingUntil(id, held.owned);
    // One that nobody used here makes nobody come back for it.
    if (!held.isTold) return;
    this.#lostAt.set(id, this.#options.environment.owner.clock.now());
    if (record !== null) this.tell({ kind: "lost", record, reason });
  }

  #letGo(id: number, held: Held): void {
    held.holders--;
    if (held.holders > 0 || this.#held.get(id) !== held) return;
    this.#held.delete(id);
    const { record } = held.owned;
    this.#closingUntil(id, held.owned);
    if (record !== null && held.isTold) this.tell({ kind: "closed", record });
  }

  #closingUntil(id: number, owned: OwnedVolume): void {
    const closing = owned.close().finally(() => {
      if (this.#closing.get(id) === closing) this.#closing.delete(id);
    });
    this.#closing.set(id, closing);
  }

  async close(): Promise<void> {
    for (const [id, held] of [...this.#held]) {
      this.#held.delete(id);
      this.#closingUntil(id, held.owned);
    }
    await Promise.all(this.#closing.values());
  }
}

/** The further seat that is joining is this node's. */
function joins(record: ClusterRecord | null, node: NodeId): boolean {
  return record !== null && isJoining(record) && record.members.at(-1)!.node === node;
}
