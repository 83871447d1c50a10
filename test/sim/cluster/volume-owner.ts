/**
 * The real owner of a volume (lib/replica/owner) in the simulated cluster, and clients who read and write through it.
 * Every write has a number of its own, rising per register, and no two operations of a register overlap; so what a
 * read may show is an interval.
 */
import { extentSeed, volumeSeed } from "../../../lib/core/checksum.js";
import { ExtentFlag, ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { epoch, generation, volumeId } from "../../../lib/core/ids.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import { LeaseKeeper } from "../../../lib/replica/lease.js";
import { Activation } from "../../../lib/replica/owner/activation.js";
import type { OwnerEnvironment, OwnerEvents } from "../../../lib/replica/owner/api.js";
import { PeerLinks } from "../../../lib/replica/owner/peer-links.js";
import {
  type ClusterRecord,
  decodeClusterRecord,
  encodeClusterRecord,
} from "../../../lib/replica/owner/record.js";
import { ReplicaSet } from "../../../lib/replica/owner/replica-set.js";
import { RecordRegister } from "../../../lib/replica/register.js";
import type { SimPool } from "../memory.js";
import { simMemory } from "../memory.js";
import type { Prng } from "../prng.js";
import { Violation } from "../violation.js";
import type { SimProcess } from "../world.js";
import { watchedAcceptor } from "./checks.js";
import { CLUSTER_ID, EXTENT_BLOCKS } from "./node-host.js";
import { PROBE_VOLUME, type ProbeHost } from "./probe-owner.js";
import { writesIn } from "./sector-ids.js";

export const VOLUME_EXTENTS = 16;
/** Of a run without later scenes, and the size that the record names: nobody but the clients minds it. */
export const PLAIN_EXTENTS = 6;
const REGISTERS = VOLUME_EXTENTS * EXTENT_BLOCKS;
const PARALLEL = 6;
const RUN_MAX = 6;
const ZEROS = 0;
const NOTHING: ReadonlySet<number> = new Set([ZEROS]);

export function clusterNameOf(bytes: Uint8Array): string | null {
  return decodeClusterRecord(bytes).name;
}

/** What the clients of the volume know, whoever serves them. */
export class VolumeRegisters {
  /** Highest number that must not be missed any more, whatever happens. */
  readonly #floor = new Float64Array(REGISTERS);
  /** Highest number that was acknowledged or shown, and must not be missed until somebody loses power. */
  readonly #kept = new Float64Array(REGISTERS);
  /** Highest number that was acknowledged, of what a flush makes stable. */
  readonly #acked = new Float64Array(REGISTERS);
  readonly invoked = new Float64Array(REGISTERS);
  /** Highest number whose content is zeros. */
  readonly zeroed = new Float64Array(REGISTERS);
  /** Nobody loses power in this run. */
  readonly hasPower: boolean;
  nextId = 1;
  writes = 0;
  reads = 0;
  flushes = 0;
  /** Extents that clients use now. */
  inUse: readonly number[] = Array.from({ length: PLAIN_EXTENTS }, (_, extent) => extent);
  /** Share of operations that follow the one before at once, and most ms that the others wait. */
  haste = 0.3;
  pauseMs = 120;
  /** Power losses so far. */
  #losses = 0;

  constructor(hasPower: boolean) {
    this.hasPower = hasPower;
  }

  /** Whatever was not flushed may be gone, also of what is answered from now on; a later flush does not bring it back. */
  powerLost(): void {
    this.#losses++;
    this.#acked.set(this.#floor);
    this.#kept.set(this.#floor);
  }

  /** A flush is asked for: what it makes stable when it is answered. */
  beginFlush(): () => void {
    const acked = this.#acked.slice();
    return () => {
      for (let i = 0; i < REGISTERS; i++) this.#raise(this.#floor, i, acked[i]!);
      this.flushes++;
    };
  }

  /** A change of registers from `first` on is asked for: what its answer means. */
  beginWrite(first: number, count: number, id: number, isStable: boolean): () => void {
    const losses = this.#losses;
    return () => {
      for (let i = first; i < first + count; i++) {
        if (isStable) this.#raise(this.#floor, i, id);
        if (losses !== this.#losses) continue;
        this.#raise(this.#acked, i, id);
        this.#raise(this.#kept, i, id);
      }
      this.writes++;
    };
  }

  /** A read is asked for: what it means that it shows `ids` in register `first + i`. */
  beginRead(first: number, count: number): (i: number, ids: ReadonlySet<number>) => void {
    const losses = this.#losses;
    const floor = this.#floor.slice(first, first + count);
    const kept = this.#kept.slice(first, first + count);
    return (i, ids) => {
      const isKept = losses === this.#losses;
      for (const id of ids) this.#seen(first + i, id, isKept ? kept[i]! : floor[i]!);
      // Sectors of a block may be of several writes; the oldest of them is what is there at least.
      if (isKept) this.#raise(this.#kept, first + i, Math.min(...ids));
    };
  }

  #seen(register: number, id: number, floor: number): void {
    const says = `register ${register} showed ${id}`;
    if (id === ZEROS) {
      if (floor > 0 && this.zeroed[register]! < floor) throw new Violation("I3", `${says} after ${floor}`);
      return;
    }
    if (id < floor) throw new Violation("I3", `${says} after ${floor}`);
    if (id > this.invoked[register]!) throw new Violation("I3", `${says}, which nobody wrote`);
  }

  #raise(numbers: Float64Array, register: number, id: number): void {
    numbers[register] = Math.max(numbers[register]!, id);
  }
}

export class VolumeOwner {
  readonly process: SimProcess;
  readonly host: number;
  readonly #at: ProbeHost;
  readonly #registers: VolumeRegisters;
  readonly #pool: SimPool;
  readonly #random: Prng;
  readonly #links: PeerLinks;
  readonly #register: RecordRegister;
  readonly #lease: LeaseKeeper;
  readonly #environment: OwnerEnvironment;
  #activation: Activation | null = null;
  #set: ReplicaSet | null = null;
  #releasing: ReplicaSet | null = null;
  #epoch = 0;
  readonly #busy = new Set<number>();
  #open = 0;
  quiet = false;
  rebuilt = 0;
  shrunk = 0;
  activations = 0;
  replaced = 0;

  constructor(at: ProbeHost, registers: VolumeRegisters, host: number, process: SimProcess, pool: SimPool) {
    this.#at = at;
    this.#registers = registers;
    this.host = host;
    this.process = process;
    this.#pool = pool;
    this.#random = at.world.random.fork("owner");
    const peer = 1 + this.#random.u32() * 2 ** 16 + this.#random.below(2 ** 16);
    const link = { pool, clock: process, ticker: process, checksums: simMemory().checksums };
    const ids = at.nodes.map(({ id }) => id);
    this.#links = new PeerLinks(
      link,
      at.network.of({ host, process, pool }),
      { cluster: CLUSTER_ID, peer },
      ids,
    );
    const config = at.nodes.slice(0, at.configNodes);
    this.#register = new RecordRegister(
      process,
      config.map((node) => ({
        node: node.id,
        peer: watchedAcceptor(at.checks, node, this.#links.peer(node.id)),
      })),
    );
    this.#lease = new LeaseKeeper(
      process,
      config.map(({ id }) => this.#links.peer(id)),
      {
        watched: () => (this.#set === null ? [] : [PROBE_VOLUME]),
        promised: (_volume, promised) => this.#heardOf(promised),
      },
    );
    this.#environment = {
      pool,
      clock: process,
      random: process,
      links: this.#links,
      register: this.#register,
      lease: this.#lease,
      self: { peer, node: null, incarnation: 0 },
      extentBlocks: EXTENT_BLOCKS,
      nameOf: (id) => `n${ids.indexOf(id)}`,
    };
  }

  get serving(): boolean {
    return this.#set !== null;
  }
  get epoch(): number {
    return this.#epoch;
  }
  get inSync(): readonly number[] {
    return (this.#set?.record.members ?? []).flatMap(({ state }, i) => (state === "insync" ? [i] : []));
  }
  /** Nothing is open, and nothing is to reconcile or resync. */
  get isIdle(): boolean {
    const set = this.#set;
    return set !== null && this.#open === 0 && set.work.reconcile === 0 && set.work.resync === 0;
  }
  /** What says which node holds which extent; null: nobody serves. */
  get record(): ClusterRecord | null {
    return this.#set?.record ?? null;
  }
  get isWhole(): boolean {
    return this.#set?.record.members.every(({ state }) => state === "insync") ?? false;
  }
  get waiting(): string {
    return `${this.#set?.waiting ?? this.#activation?.waiting ?? "nothing"}`;
  }

  start(): void {
    this.#links.start();
    this.#lease.start();
    this.#later(this.#random.below(3000), () => this.activate());
  }

  #later(ms: number, run: () => void): void {
    this.process.setTimer(ms, run);
  }

  #say(line: string): void {
    this.#at.world.say(`owner ${this.host}: ${line}`);
  }

  // ---- Owning ------------------------------------------------------------------------------------------

  /** Wants the volume, if it does not own it or want it already; at rest only when nobody has it. */
  activate(): void {
    if (this.#set !== null || this.#activation !== null) return;
    if (this.quiet && this.#at.isServed()) {
      this.#later(2000, () => this.activate());
      return;
    }
    this.activations++;
    this.#epoch++;
    this.#activation = new Activation(this.#environment, PROBE_VOLUME, this.#epoch, (outcome) => {
      this.#activation = null;
      if (outcome.kind === "impossible") {
        this.#create();
        return;
      }
      const { activated } = outcome;
      this.#epoch = activated.ballot.epoch;
      const set = new ReplicaSet(this.#environment, this.process, activated, this.#events());
      this.#set = set;
      const { generation: at, members } = activated.record;
      const states = members.map(
        ({ node, state, since }) => `${this.#environment.nameOf(node)} ${state} ${since}`,
      );
      this.#say(`serves epoch ${this.#epoch}, generation ${at}: ${states.join(", ")}`);
      this.#at.checks.servingBegan(PROBE_VOLUME, this.#epoch);
      this.#lease.renewNow();
      for (let i = 0; i < PARALLEL; i++) this.#next(set);
    });
  }

  /** Nobody has made the volume yet. */
  #create(): void {
    this.#epoch++;
    const ballot = { epoch: this.#epoch, owner: this.#environment.self.peer };
    const asking = this.#register.promise(PROBE_VOLUME, ballot, (outcome) => {
      if (outcome.kind === "refused" || outcome.highest !== null) {
        this.#later(500 + this.#random.below(1000), () => this.activate());
        return;
      }
      asking.cancel();
      const record = { ballot, generation: 1, bytes: encodeClusterRecord(this.#firstRecord(ballot.epoch)) };
      this.#register.accept(PROBE_VOLUME, record, () => this.activate());
    });
  }

  #firstRecord(first: number): ClusterRecord {
    const { nodes } = this.#at;
    // Of several nodes one may be spare, and each extent is on all members or on some of them.
    const members = nodes.slice(0, nodes.length > 2 && this.#random.chance(0.5) ? -1 : undefined);
    const replicas = members.length - this.#random.below(members.length > 2 ? members.length - 1 : 1);
    return {
      id: volumeId(PROBE_VOLUME),
      name: "v1",
      size: PLAIN_EXTENTS * EXTENT_BLOCKS * BLOCK_BYTES,
      description: "",
      readOnly: false,
      policy: {
        replicas,
        minReplicas: this.#random.chance(0.5) ? Math.floor(replicas / 2) + 1 : 1,
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

  #events(): OwnerEvents {
    const say = (line: string): void => this.#at.world.say(`owner ${this.host}: ${line}`);
    return {
      ended: (reason) => {
        say(`ended: ${reason}`);
        this.#ended();
      },
      left: (node, reason) => {
        say(`${this.#environment.nameOf(node)} left: ${reason}`);
        this.shrunk++;
      },
      joined: (node) => {
        say(`${this.#environment.nameOf(node)} joined`);
        this.rebuilt++;
      },
      repaired: () => undefined,
      unrepairable: () => undefined,
    };
  }

  /** Before the renewal that says so counts (LeaseClient). */
  #heardOf(promised: number): void {
    this.#epoch = Math.max(this.#epoch, promised);
    this.#set?.learn(promised);
  }

  /** The set is over: what is open is given back, and the volume is tried again later. */
  #ended(): void {
    const set = this.#set!;
    this.#set = null;
    this.#later(0, () => {
      set.close(() => {
        this.#later(2000 + this.#random.below(12_000), () => this.activate());
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
      (chosen) => this.#say(`amended: ${chosen?.generation ?? "no"}`),
    );
  }

  /** Gives the seat of a random member to a node that is none; false: there is no such node. */
  replaceOne(): boolean {
    const set = this.#set;
    if (set === null) return false;
    const { members } = set.record;
    const spare = this.#at.nodes.find(({ id }) => members.every(({ node }) => node !== id));
    if (spare === undefined) return false;
    const old = this.#random.pick(members).node;
    const { nameOf } = this.#environment;
    set.replace(old, spare.id, (refusal) => {
      this.#at.world.say(
        `owner ${this.host}: ${nameOf(old)} replaced by ${nameOf(spare.id)}: ${refusal ?? "done"}`,
      );
      if (refusal === null) this.replaced++;
    });
    return true;
  }

  // ---- Clients -----------------------------------------------------------------------------------------

  #next(set: ReplicaSet): void {
    if (this.#set !== set || this.quiet) return;
    const kind = this.#random.below(20);
    if (kind < 2) this.#flush(set);
    else this.#blocks(set, kind);
  }

  #again(set: ReplicaSet): void {
    if (this.#random.chance(this.#registers.haste)) this.#next(set);
    else this.#later(this.#random.below(this.#registers.pauseMs), () => this.#next(set));
  }

  #blocks(set: ReplicaSet, kind: number): void {
    const isFree = kind === 2;
    const extent = this.#random.pick(this.#registers.inUse);
    const block = isFree ? 0 : this.#random.below(EXTENT_BLOCKS);
    const blocks = isFree ? EXTENT_BLOCKS : 1 + this.#random.below(Math.min(RUN_MAX, EXTENT_BLOCKS - block));
    const first = extent * EXTENT_BLOCKS + block;
    for (let i = first; i < first + blocks; i++) {
      if (!this.#busy.has(i)) continue;
      this.#later(1, () => this.#next(set));
      return;
    }
    for (let i = first; i < first + blocks; i++) this.#busy.add(i);
    const op = new ExtentOp();
    op.extent = extent;
    op.block = block;
    op.blocks = blocks;
    op.memory = this.#pool.allocate(blocks * BLOCK_BYTES);
    if (op.memory < 0) throw new Violation("I23", "the clients have no memory");
    if (isFree) op.kind = ExtentOpKind.Free;
    else if (kind === 3) op.kind = ExtentOpKind.Zero;
    else op.kind = kind < 12 ? ExtentOpKind.Write : ExtentOpKind.Read;
    if (op.kind === ExtentOpKind.Read) this.#read(set, op, first);
    else this.#change(set, op, first);
  }

  #change(set: ReplicaSet, op: ExtentOp, first: number): void {
    const registers = this.#registers;
    const { words, checksums } = simMemory();
    const id = registers.nextId++;
    if (this.#random.chance(0.5)) op.flags |= ExtentFlag.Fua;
    const isZero = op.kind !== ExtentOpKind.Write;
    for (let i = 0; i < op.blocks; i++) {
      registers.invoked[first + i] = id;
      if (isZero) registers.zeroed[first + i] = id;
      else {
        const at = op.memory + i * BLOCK_BYTES;
        words.fill(id, at >>> 2, (at + BLOCK_BYTES) >>> 2);
      }
    }
    if (!isZero) {
      const seed = extentSeed(volumeSeed(PROBE_VOLUME), op.extent);
      checksums.blockEntries(op.memory, op.blocks, seed, op.block, op.entries, 0);
    }
    // Freeing says nothing of FUA: a flush makes it stable.
    const isStable = (op.flags & ExtentFlag.Fua) !== 0 && op.kind !== ExtentOpKind.Free;
    this.#submit(set, op, registers.beginWrite(first, op.blocks, id, isStable));
  }

  #read(set: ReplicaSet, op: ExtentOp, first: number): void {
    const registers = this.#registers;
    const shows = registers.beginRead(first, op.blocks);
    this.#submit(set, op, () => {
      for (let i = 0; i < op.blocks; i++) {
        const at = op.memory + i * BLOCK_BYTES;
        shows(i, op.presentCount === 0 ? NOTHING : writesIn(at, !registers.hasPower));
      }
      registers.reads++;
    });
  }

  #flush(set: ReplicaSet): void {
    const op = new ExtentOp();
    op.kind = ExtentOpKind.Flush;
    op.memory = -1;
    this.#submit(set, op, this.#registers.beginFlush());
  }

  #submit(set: ReplicaSet, op: ExtentOp, answered: () => void): void {
    this.#open++;
    op.volume = PROBE_VOLUME;
    op.listener = {
      extentDone: () => {
        this.#open--;
        if (this.#at.world.trace !== null)
          this.#say(
            `op ${op.kind} ${op.extent}/${op.block}+${op.blocks} flags ${op.flags} answered ${op.status} at epoch ${set.epoch}`,
          );
        if (op.status === Status.Ok) {
          this.#at.checks.answered(PROBE_VOLUME, set.epoch);
          answered();
        } else if (op.status !== Status.Shutdown) {
          throw new Violation("I13", `an operation failed with status ${op.status}`);
        }
        if (op.memory >= 0) {
          const first = op.extent * EXTENT_BLOCKS + op.block;
          for (let i = first; i < first + op.blocks; i++) this.#busy.delete(i);
          this.#pool.free(op.memory);
        }
        this.#again(set);
      },
    };
    set.submit(op);
  }
}
