/** One volume in a simulated gateway: the real owner (lib/replica/owner), and clients who read and write through it. */
import { epoch, generation, volumeId } from "../../../lib/core/ids.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import type { NodeId } from "../../../lib/replica/api.js";
import type { LeaseKeeper } from "../../../lib/replica/lease.js";
import { Activation } from "../../../lib/replica/owner/activation.js";
import type { OwnerEnvironment, OwnerEvents } from "../../../lib/replica/owner/api.js";
import { Leaving } from "../../../lib/replica/owner/member.js";
import type { Activated } from "../../../lib/replica/owner/owned-record.js";
import {
  type ClusterRecord,
  decodeClusterRecord,
  encodeClusterRecord,
  isJoining,
} from "../../../lib/replica/owner/record.js";
import { ReplicaSet } from "../../../lib/replica/owner/replica-set.js";
import type { SimPool } from "../memory.js";
import type { Prng } from "../prng.js";
import type { SimProcess } from "../world.js";
import { VolumeClients } from "./clients.js";
import type { GatewayHost } from "./gateway.js";
import { EXTENT_BLOCKS, type NodeHost } from "./node-host.js";
import { PROBE_VOLUME } from "./probe-owner.js";
import { VOLUME_EXTENTS, type VolumeRegisters } from "./registers.js";

/** Latest begin of a gateway's first activation. */
const FIRST_ACTIVATION_MS = 400;

export function clusterNameOf(bytes: Uint8Array): string | null {
  return decodeClusterRecord(bytes).name;
}

/** Number of the volume that is the run's `index`-th. */
export function volumeNumber(index: number): number {
  return PROBE_VOLUME + index;
}

/** The process that a volume is owned in. */
export interface OwnerStation {
  readonly host: number;
  readonly process: SimProcess;
  readonly pool: SimPool;
  readonly environment: OwnerEnvironment;
  readonly lease: LeaseKeeper;
}

export class VolumeOwner {
  readonly volume: number;
  readonly registers: VolumeRegisters;
  readonly clients: VolumeClients;
  readonly #at: GatewayHost;
  readonly #station: OwnerStation;
  readonly #environment: OwnerEnvironment;
  readonly #random: Prng;
  #activation: Activation | null = null;
  #set: ReplicaSet | null = null;
  #releasing: ReplicaSet | null = null;
  #epoch = 0;
  /** Extents that the activation found in doubt, until they are reconciled. */
  #unsettled: Activated | null = null;
  quiet = false;
  rebuilt = 0;
  shrunk = 0;
  activations = 0;
  replaced = 0;
  grown = 0;
  /** Further seats that were asked for and not answered yet. */
  #growing = 0;

  constructor(
    at: GatewayHost,
    station: OwnerStation,
    registers: VolumeRegisters,
    volume: number,
    random: Prng,
  ) {
    this.#at = at;
    this.#station = station;
    this.#environment = station.environment;
    this.registers = registers;
    this.volume = volume;
    this.#random = random;
    this.clients = new VolumeClients(at, station, this, random.fork("clients"));
  }

  get serving(): boolean {
    return this.#set !== null;
  }
  get activating(): boolean {
    return this.#activation !== null;
  }
  get epoch(): number {
    return this.#epoch;
  }
  get set(): ReplicaSet | null {
    return this.#set;
  }
  get inSync(): readonly number[] {
    return (this.#set?.record.members ?? []).flatMap(({ state }, i) => (state === "insync" ? [i] : []));
  }
  /** Nothing is open, and nothing is to reconcile or resync. */
  get isIdle(): boolean {
    return this.clients.open === 0 && this.isSettled;
  }
  /** Nothing is to reconcile, resync or give up, and nobody is LOSSY. */
  get isSettled(): boolean {
    const set = this.#set;
    if (set === null) return false;
    const { reconcile, resync, surplus } = set.work;
    if (reconcile + resync + surplus > 0) return false;
    return set.members.every(({ lossy }) => !lossy);
  }
  /** What says which node holds which extent; null: nobody serves. */
  get record(): ClusterRecord | null {
    return this.#set?.record ?? null;
  }
  get isWhole(): boolean {
    if (this.#growing > 0) return false;
    return this.#set?.record.members.every(({ state }) => state === "insync") ?? false;
  }
  /** All members have everything, none is away, and no record is being changed. */
  get isCalm(): boolean {
    const set = this.#set;
    if (set === null || !this.isWhole || !this.isSettled || set.changingRecord) return false;
    return set.members.every(({ usable }) => usable);
  }
  get waiting(): string {
    return `${this.#set?.waiting ?? this.#activation?.waiting ?? "nothing"}`;
  }

  start(): void {
    this.#later(this.#random.below(FIRST_ACTIVATION_MS), () => this.activate());
  }

  /** Looks whether what was in doubt at the activation is reconciled, and whether it is well. */
  look(): void {
    const set = this.#set;
    const activated = this.#unsettled;
    if (set === null || activated === null || set.work.reconcile > 0) return;
    this.#unsettled = null;
    const { rules } = this.#at.checks;
    // Of a newer owner's changes this one knows nothing; and copies of which nobody can read a block may differ in it.
    if (rules?.isNewest(this.volume, set.epoch) !== true || this.#at.isRotten) return;
    const open = new Set(set.deck.openChanges());
    rules?.copiesAreEqual(this.volume, open, "I7", "all is reconciled");
    const isOfThen = ({ id, store }: NodeHost): boolean =>
      activated.lives.get(id)?.bootId === store?.identity.bootId;
    const { generation } = activated.record;
    rules?.reconciled(
      this.volume,
      generation,
      [...activated.reconcile].filter((one) => !open.has(one)),
      isOfThen,
    );
  }

  #later(ms: number, run: () => void): void {
    this.#station.process.setTimer(ms, run);
  }

  say(line: string): void {
    this.#at.world.say(`owner ${this.#station.host} of ${this.volume}: ${line}`);
  }

  // ---- Owning ------------------------------------------------------------------------------------------

  /** Wants the volume, if it does not own it or want it already; at rest only when nobody has it. */
  activate(): void {
    if (this.#set !== null || this.#activation !== null) return;
    if (this.quiet && this.#at.isVolumeServed(this.registers.index)) {
      this.#later(2000, () => this.activate());
      return;
    }
    this.activations++;
    this.#epoch++;
    this.#activation = new Activation(this.#environment, this.volume, this.#epoch, (outcome) => {
      this.#activation = null;
      if (outcome.kind === "impossible") {
        this.#create();
        return;
      }
      const { activated } = outcome;
      this.#epoch = activated.ballot.epoch;
      const set = new ReplicaSet(this.#environment, this.#station.process, activated, this.#events());
      this.#set = set;
      const { generation: at, members } = activated.record;
      const states = members.map(
        ({ node, state, since }) => `${this.#environment.nameOf(node)} ${state} ${since}`,
      );
      this.say(`serves epoch ${this.#epoch}, generation ${at}: ${states.join(", ")}`);
      this.#at.checks.servingBegan(this.volume, this.#epoch);
      this.#at.servingBegan(this.volume);
      if (this.#at.checks.rules?.isNewest(this.volume, this.#epoch) === true && !this.#at.isRotten)
        this.#at.checks.rules.copiesAreEqual(this.volume, activated.reconcile, "I7", "an owner begins");
      this.#unsettled = activated;
      this.#station.lease.renewNow();
      this.clients.serve(set);
    });
  }

  /** Nobody has made the volume yet. */
  #create(): void {
    this.#epoch++;
    const ballot = { epoch: this.#epoch, owner: this.#environment.self.peer };
    const asking = this.#environment.register.promise(this.volume, ballot, (outcome) => {
      if (outcome.kind === "refused" || outcome.highest !== null) {
        this.#later(500 + this.#random.below(1000), () => this.activate());
        return;
      }
      asking.cancel();
      const record = { ballot, generation: 1, bytes: encodeClusterRecord(this.#firstRecord(ballot.epoch)) };
      this.#environment.register.accept(this.volume, record, () => this.activate());
    });
  }

  #firstRecord(first: number): ClusterRecord {
    const { nodes } = this.#at;
    // Of several nodes one may be spare, and each extent is on all members or on some of them.
    const spares = nodes.length > 2 && this.#random.chance(0.5) ? 1 : 0;
    const members = this.#at.isOnAll
      ? nodes
      : nodes.slice(0, nodes.length - Math.max(spares, this.#at.spares));
    const replicas = this.#copies(members.length);
    return {
      id: volumeId(this.volume),
      name: `v${this.volume}`,
      size: VOLUME_EXTENTS * EXTENT_BLOCKS * BLOCK_BYTES,
      description: "",
      readOnly: false,
      policy: {
        replicas,
        minReplicas: this.#random.chance(this.#at.manyNeeded) ? Math.floor(replicas / 2) + 1 : 1,
        stripeCount: 1,
        stripeUnit: BLOCK_BYTES,
        onFull: "wait",
      },
      access: [],
      epoch: epoch(first),
      generation: generation(1),
      version: 1,
      createdAt: 0,
      state: "live",
      owner: { ...this.#environment.self, released: true },
      members: members.map(({ id }) => ({ node: id, state: "insync", since: 0 })),
      replicasMin: replicas,
    };
  }

  /** A volume that grows may have one copy of each extent, or fewer seats than copies. */
  #copies(members: number): number {
    if (this.#at.isOnAll) return members;
    if (this.#at.spares > 0) return 1 + this.#random.below(members + 1);
    return members - this.#random.below(members > 2 ? members - 1 : 1);
  }

  #events(): OwnerEvents {
    return {
      ended: (reason) => {
        this.say(`ended: ${reason}`);
        this.#ended();
      },
      left: (node, reason) => {
        this.say(`${this.#environment.nameOf(node)} left: ${reason}`);
        this.shrunk++;
        if (reason === Leaving.Rebooted) this.#at.checks.rules?.tookOutAsNotWhole(this.volume, node);
      },
      joined: (node) => {
        this.say(`${this.#environment.nameOf(node)} joined`);
        this.rebuilt++;
        this.#checkJoined(node);
        this.#at.joined();
      },
      repaired: () => undefined,
      unrepairable: () => undefined,
    };
  }

  #checkJoined(node: NodeId): void {
    const set = this.#set;
    if (set === null || set.work.reconcile > 0) return;
    if (this.#at.checks.rules?.isNewest(this.volume, set.epoch) !== true) return;
    this.#at.checks.rules?.joined(this.volume, node, new Set(set.deck.openChanges()));
  }

  /** Before the renewal that says so counts (LeaseClient). */
  heardOf(promised: number): void {
    this.#epoch = Math.max(this.#epoch, promised);
    this.#set?.learn(promised);
  }

  /** The set is over: what is open is given back, and the volume is tried again later. */
  #ended(): void {
    const set = this.#set!;
    this.#set = null;
    this.#later(0, () => {
      set.close(() => {
        this.#later(2000 + this.#random.below(this.#at.patienceMs), () => this.activate());
      });
    });
  }

  /** Hands the volume on in order. */
  release(): void {
    const set = this.#set;
    if (set === null || this.#releasing === set) return;
    this.#releasing = set;
    set.release((isReleased) => {
      if (isReleased) this.#ended();
    });
  }

  /** Changes of the record what people may change of it. */
  amend(random: Prng): void {
    const minReplicas = 1 + random.below(this.#set?.record.policy.replicas ?? 1);
    const isAboutCopies = random.chance(0.3);
    this.#set?.amend(
      (record) => ({
        ...record,
        description: `${record.version}`,
        policy: isAboutCopies ? { ...record.policy, minReplicas } : record.policy,
      }),
      (chosen) => this.say(`amended: ${chosen?.generation ?? "no"}`),
    );
  }

  /** Gives the seat of a random member to a node that is none; false: there is no such node. */
  replaceOne(): boolean {
    const set = this.#set;
    if (set === null) return false;
    const { members } = set.record;
    const { nameOf } = this.#environment;
    const joining = isJoining(set.record) ? members.at(-1)!.node : null;
    if (joining !== null && this.#random.chance(0.3)) {
      set.replace(joining, null, (why) =>
        this.say(`the seat of ${nameOf(joining)} is given up: ${why ?? "done"}`),
      );
      return true;
    }
    const spare = this.#at.nodes.find(({ id }) => members.every(({ node }) => node !== id));
    if (spare === undefined) return false;
    const old = this.#random.pick(members).node;
    set.replace(old, spare.id, (refusal) => {
      this.say(`${nameOf(old)} replaced by ${nameOf(spare.id)}: ${refusal ?? "done"}`);
      if (refusal === null) this.replaced++;
    });
    return true;
  }

  /** Gives the volume a further seat, for a node that is no member; false: there is no such node. */
  growOne(): boolean {
    const set = this.#set;
    if (set === null) return false;
    const spare = this.#at.nodes.find(({ id }) => set.record.members.every(({ node }) => node !== id));
    if (spare === undefined) return false;
    this.#growing++;
    set.grow(spare.id, (refusal) => {
      this.#growing--;
      this.say(`a further seat for ${this.#environment.nameOf(spare.id)}: ${refusal ?? "done"}`);
      if (refusal === null) this.grown++;
    });
    return true;
  }
}
