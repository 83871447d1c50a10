/**
 * A volume that this process owns, from its activation to its end: the replica set in place of a local store, under
 * the range locks and the layout of lib/volume.
 *
 *   activating ──► serving ──► releasing ──► closed
 *       │             └──────► lost ──────────▲
 *       └─────────────────────────────────────┘ cancelled, or it cannot be served
 *
 * Invariants
 *  1. Nothing is answered without the lease, whether a copy was asked or not. After the volume was lost answers go
 *     to nobody: `lost` has ended everyone who could hear them.
 *  2. Its memory goes back only when no session has any part of an operation.
 */
import type { Checksums } from "../core/checksum.js";
import type { Ticker } from "../core/clock.js";
import { LaminaError } from "../core/errors.js";
import type { ExtentIo, ExtentOp } from "../core/extent-io.js";
import { Status } from "../core/status.js";
import type { NodeId } from "../replica/api.js";
import { Activation } from "../replica/owner/activation.js";
import type { OwnerEnvironment, OwnerEvents } from "../replica/owner/api.js";
import type { ClusterRecord } from "../replica/owner/record.js";
import { ReplicaSet } from "../replica/owner/replica-set.js";
import { type AnswerGate, VolumeOwner } from "../volume/owner.js";
import { VolumeCore } from "../volume/volume.js";

/** How soon answers that the lease held back are looked at again. */
const RESUME_MS = 20;
/** A release that the config nodes have not accepted by then is not waited for. */
const RELEASE_MAX_MS = 5000;

export interface OwnedVolumeEnvironment {
  readonly owner: OwnerEnvironment;
  readonly ticker: Ticker;
  readonly checksums: Checksums;
}

export interface OwnedVolumeEvents {
  /** It is served here no more. Everyone who has it open is to be ended during the call. */
  lost(reason: string): void;
  left(node: NodeId, reason: string): void;
  joined(node: NodeId): void;
  repaired(node: NodeId, extent: number, blocks: number): void;
  unrepairable(node: NodeId, extent: number, block: number): void;
}

interface Serving {
  readonly set: ReplicaSet;
  readonly owner: VolumeOwner;
  readonly volume: VolumeCore;
}

export class OwnedVolume implements AnswerGate, ExtentIo {
  readonly id: number;
  readonly #environment: OwnedVolumeEnvironment;
  readonly #events: OwnedVolumeEvents;
  #activation: Activation | null = null;
  #serving: Serving | null = null;
  #lost = false;
  /** The set takes nothing more: what requests still ask for is given back. */
  #ending = false;
  #resuming = false;
  #closed: Promise<void> | null = null;
  #cancelled: () => void = () => undefined;

  constructor(environment: OwnedVolumeEnvironment, id: number, events: OwnedVolumeEvents) {
    this.#environment = environment;
    this.id = id;
    this.#events = events;
  }

  /** Takes the volume over, trying epochs from `epoch` on. Rejected with VOLUME_UNSERVABLE, or when it is closed. */
  activate(name: string, epoch: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#cancelled = () => reject(unservable(name, "it was given up"));
      this.#activation = new Activation(this.#environment.owner, this.id, epoch, (outcome) => {
        this.#activation = null;
        if (outcome.kind === "impossible") {
          reject(unservable(name, outcome.why));
          return;
        }
        if (outcome.activated.record.state !== "live") {
          reject(new LaminaError("VOLUME_UNKNOWN", { name }));
          return;
        }
        this.#serve(outcome.activated);
        resolve();
      });
    });
  }

  #serve(activated: ConstructorParameters<typeof ReplicaSet>[2]): void {
    const { owner: environment, ticker, checksums } = this.#environment;
    const { extents, record } = activated;
    const set = new ReplicaSet(environment, ticker, activated, this.#setEvents());
    const owner = new VolumeOwner({
      io: this,
      pool: environment.pool,
      ticker,
      checksums,
      extentBlocks: environment.extentBlocks,
      gate: this,
    });
    const volume = new VolumeCore(owner, record);
    for (const extent of extents) volume.extents.add(extent);
    this.#serving = { set, owner, volume };
  }

  #setEvents(): OwnerEvents {
    return {
      ended: (reason) => this.#ended(reason),
      left: (node, reason) => this.#events.left(node, reason),
      joined: (node) => this.#events.joined(node),
      repaired: (node, extent, blocks) => this.#events.repaired(node, extent, blocks),
      unrepairable: (node, extent, block) => this.#events.unrepairable(node, extent, block),
    };
  }

  /** Null while it is not served. */
  get volume(): VolumeCore | null {
    return this.#serving?.volume ?? null;
  }

  get set(): ReplicaSet | null {
    return this.#serving?.set ?? null;
  }

  get record(): ClusterRecord | null {
    return this.#serving?.set.record ?? null;
  }

  /** What it waits for, for people; null: nothing. */
  get waiting(): string | null {
    return this.#activation === null ? (this.#serving?.set.waiting ?? null) : this.#activation.waiting;
  }

  get activating(): boolean {
    return this.#activation !== null;
  }

  submit(op: ExtentOp): void {
    if (!this.#ending) {
      this.#serving!.set.submit(op);
      return;
    }
    this.#environment.ticker.atTickEnd({
      tick: () => {
        op.status = Status.Shutdown;
        op.listener.extentDone(op);
      },
    });
  }

  mayAnswer(): boolean {
    if (this.#lost || this.#serving?.set.mayAnswer === true) return true;
    if (!this.#resuming) {
      this.#resuming = true;
      this.#environment.owner.clock.setTimer(RESUME_MS, () => {
        this.#resuming = false;
        this.#serving?.owner.resume();
      });
    }
    return false;
  }

  /** A config node has promised `epoch`. */
  learn(epoch: number): void {
    this.#serving?.set.learn(epoch);
  }

  /** Changes what people may change. Null: it was lost before. Rejected with what `edit` throws. */
  amend(edit: Parameters<ReplicaSet["amend"]>[0]): Promise<ClusterRecord | null> {
    return new Promise((resolve, reject) => {
      const serving = this.#serving;
      if (serving === null) resolve(null);
      else
        serving.set.amend(edit, (record, mistake) => {
          if (record !== null) serving.volume.update(record);
          if (mistake === undefined) resolve(record);
          else reject(mistake as Error);
        });
    });
  }

  /** Gives the seat of `old` to `next`, or up, if it joins and `next` is null. Null: the record says so; else why not, for people. */
  replace(old: NodeId, next: NodeId | null): Promise<string | null> {
    return new Promise((resolve) => {
      if (this.#serving === null) resolve("the volume is not served here");
      else this.#serving.set.replace(old, next, resolve);
    });
  }

  /** Gives the volume a further seat, for `next`. Null: the record says so; else why not, for people. */
  grow(next: NodeId): Promise<string | null> {
    return new Promise((resolve) => {
      if (this.#serving === null) resolve("the volume is not served here");
      else this.#serving.set.grow(next, resolve);
    });
  }

  /** All copies are in sync, and nobody has what is another's. */
  get isWhole(): boolean {
    const set = this.set;
    if (set === null || set.work.surplus > 0) return false;
    return set.record.members.every(({ state }) => state === "insync");
  }

  /** Gives up what waits for others: nobody is answered any more. */
  abandon(reason: string): void {
    this.#ended(reason);
  }

  #ended(reason: string): void {
    if (this.#lost) return;
    this.#lost = true;
    this.#events.lost(reason);
  }

  /** Lets go of it: in order when it can, and in any case for good. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    // A loss is told from inside the set's own work.
    await this.#moment();
    const serving = this.#serving;
    if (serving === null) {
      this.#activation?.cancel();
      this.#activation = null;
      this.#cancelled();
      return;
    }
    const { set, owner, volume } = serving;
    if (!this.#lost) {
      await new Promise<void>((resolve) => volume.whenIdle(resolve));
      await this.#release(set);
    }
    this.#ending = true;
    await new Promise<void>((resolve) => set.close(resolve));
    // What a lost volume had open comes back without having been done, and is answered to nobody.
    owner.resume();
    await new Promise<void>((resolve) => volume.whenIdle(resolve));
    await this.#moment();
    owner.close();
    this.#serving = null;
  }

  #moment(): Promise<void> {
    return new Promise((resolve) => this.#environment.owner.clock.setTimer(0, resolve));
  }

  /** Without a majority of the config nodes the record goes on naming us: the next owner waits our lease out. */
  #release(set: ReplicaSet): Promise<void> {
    return new Promise((resolve) => {
      const deadline = this.#environment.owner.clock.setTimer(RELEASE_MAX_MS, resolve);
      set.release(() => {
        deadline.cancel();
        resolve();
      });
    });
  }
}

function unservable(name: string, what: string): LaminaError {
  return new LaminaError("VOLUME_UNSERVABLE", { name, what });
}
