/**
 * An owner of one volume that is as simple as an owner can be, to put register, lease, gates and sessions under load:
 * every write is durable before it is acknowledged, R(e) is all members, a failed member is taken out by a record, and
 * one that is back is copied to while everything else waits. It relies on nothing but what the node protocol
 * promises, so what its clients see is a test of that.
 */
import { extentSeed, volumeSeed } from "../../../lib/core/checksum.js";
import { ExtentFlag, type ExtentListener, ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES, BLOCK_SHIFT } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import type {
  AcceptedRecord,
  AcceptorPeer,
  Ballot,
  LinkEnvironment,
  PeerId,
  ReplicaSession,
} from "../../../lib/replica/api.js";
import { LeaseKeeper } from "../../../lib/replica/lease.js";
import { LEASE_WAIT_MS } from "../../../lib/replica/limits.js";
import { NodePeer } from "../../../lib/replica/peer.js";
import { type Asking, RecordRegister } from "../../../lib/replica/register.js";
import type { SimPool } from "../memory.js";
import { simMemory } from "../memory.js";
import type { Prng } from "../prng.js";
import { Violation } from "../violation.js";
import type { SimProcess, SimWorld } from "../world.js";
import { type ClusterChecks, watchedAcceptor } from "./checks.js";
import type { KnownSets } from "./config-scene.js";
import type { SimNetwork } from "./network.js";
import { CLUSTER_ID, EXTENT_BLOCKS, type NodeHost } from "./node-host.js";
import { writesIn } from "./sector-ids.js";

export const PROBE_VOLUME = 7;
export const PROBE_EXTENTS = 3;
const REGISTERS = PROBE_EXTENTS * EXTENT_BLOCKS;
const PARALLEL = 4;
const RETRY_MS = 100;
const HOLE_READ_MS = 100;
/** A member without a lease for so many tries is taken out. */
const LEASE_TRIES = 30;
/** A member that owes an answer for so long is given up (the session is cut). */
const SILENCE_MS = 5000;

/** What the clients of the volume know, whoever serves them: unique rising ids, one register per block. */
export class Registers {
  readonly acked = new Float64Array(REGISTERS);
  readonly invoked = new Float64Array(REGISTERS);
  nextId = 1;
  writes = 0;
  reads = 0;
  powerWasLost = false;
}

interface ProbeRecord {
  readonly name: string;
  readonly inSync: readonly number[];
}

export function probeNameOf(bytes: Uint8Array): string | null {
  return decode(bytes).name;
}

function encode(record: ProbeRecord): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(record));
}

function decode(bytes: Uint8Array): ProbeRecord {
  return JSON.parse(new TextDecoder().decode(bytes)) as ProbeRecord;
}

/** A client's request that is being served. */
interface Work {
  readonly register: number;
  /** 0: a read. */
  readonly id: number;
  /** Read: what was acknowledged when it began. */
  readonly ackedBefore: number;
  readonly memory: number;
  tries: number;
}

export interface ProbeHost {
  readonly world: SimWorld;
  readonly network: SimNetwork;
  readonly checks: ClusterChecks;
  readonly nodes: readonly NodeHost[];
  readonly configNodes: number;
  /** Config nodes change; the real owner keeps to that. */
  readonly sets?: KnownSets;
  readonly registers: Registers;
}

export class ProbeOwner {
  readonly process: SimProcess;
  readonly peerId: PeerId;
  readonly host: number;
  readonly #at: ProbeHost;
  readonly #pool: SimPool;
  readonly #random: Prng;
  readonly #peers: NodePeer[];
  readonly #watched: AcceptorPeer[];
  readonly #register: RecordRegister;
  readonly #lease: LeaseKeeper;
  #state: "idle" | "activating" | "serving" = "idle";
  #ballot: Ballot = { epoch: 0, owner: 0 };
  #highestEpoch = 0;
  #generation = 0;
  #mark = 0;
  #inSync: readonly number[] = [];
  /** Session on which the node has promised the current ballot. */
  readonly #ready: (ReplicaSession | null)[];
  #asking: Asking | null = null;
  /** A record is being changed: nothing is sent until it is chosen. */
  #changing = false;
  readonly #busy = new Set<number>();
  readonly #held: Work[] = [];
  #sequence = 0;
  rebuilt = 0;
  shrunk = 0;
  activations = 0;

  constructor(at: ProbeHost, host: number, process: SimProcess, pool: SimPool) {
    this.#at = at;
    this.host = host;
    this.process = process;
    this.#pool = pool;
    this.#random = at.world.random.fork("owner");
    this.peerId = 1 + this.#random.u32() * 2 ** 16 + this.#random.below(2 ** 16);
    const station = { host, process, pool };
    const link = this.link();
    const network = at.network.of(station);
    this.#ready = at.nodes.map(() => null);
    this.#peers = at.nodes.map(({ id }, index) => {
      const listener = {
        sessionOpened: () => this.#promiseTo(index),
        sessionLost: () => {
          this.#ready[index] = null;
        },
      };
      return new NodePeer(link, network, { cluster: CLUSTER_ID, node: id, peer: this.peerId, listener });
    });
    this.#watched = this.#peers.map((peer, index) => watchedAcceptor(at.checks, at.nodes[index]!, peer));
    const acceptors = this.#watched
      .slice(0, at.configNodes)
      .map((peer, index) => ({ node: at.nodes[index]!.id, peer }));
    this.#register = new RecordRegister(process, acceptors);
    this.#lease = new LeaseKeeper(process, this.#peers.slice(0, at.configNodes), {
      watched: () => (this.#state === "idle" ? [] : [PROBE_VOLUME]),
      promised: (_volume, epoch) => this.#heardOf(epoch),
    });
  }

  link(): LinkEnvironment {
    const { process } = this;
    return { pool: this.#pool, clock: process, ticker: process, checksums: simMemory().checksums };
  }

  get serving(): boolean {
    return this.#state === "serving";
  }
  get epoch(): number {
    return this.#ballot.epoch;
  }
  get isWhole(): boolean {
    return this.#inSync.length === this.#at.nodes.length;
  }
  get inSync(): readonly number[] {
    return this.#inSync;
  }

  start(): void {
    for (const peer of this.#peers) peer.start();
    this.#lease.start();
    this.#later(this.#random.below(3000), () => this.activate());
    this.#tend();
    this.#answerHoles();
  }

  /** Clients that read where nothing was ever written: answered by the owner alone, as long as it has its lease. */
  #answerHoles(): void {
    this.#mayAnswer();
    this.#later(HOLE_READ_MS, () => this.#answerHoles());
  }

  #later(ms: number, run: () => void): void {
    this.process.setTimer(ms, run);
  }

  // ---- Activation --------------------------------------------------------------------------------------

  /** Wants the volume, if it does not own it or want it already. */
  activate(): void {
    if (this.#state !== "idle") return;
    this.#state = "activating";
    this.activations++;
    this.#ready.fill(null);
    const epoch = this.#highestEpoch + 1;
    this.#highestEpoch = epoch;
    const ballot = { epoch, owner: this.peerId };
    this.#ballot = ballot;
    const before = this.#at.checks.chosen(PROBE_VOLUME);
    for (let index = 0; index < this.#peers.length; index++) this.#promiseTo(index);
    this.#asking = this.#register.promise(PROBE_VOLUME, ballot, (outcome) => {
      if (this.#ballot !== ballot) return;
      if (outcome.kind === "refused") {
        this.#stepDown(outcome.promised.epoch);
        return;
      }
      this.#at.checks.phaseOneEnded(ballot, outcome.highest, before);
      this.#mark = this.#lease.mark();
      this.#later(LEASE_WAIT_MS, () => this.#propose(ballot, outcome.highest));
    });
  }

  /** The fence on every data node, again on every new session. */
  #promiseTo(index: number): void {
    const { session } = this.#peers[index]!;
    if (session === null || this.#state === "idle") return;
    const ballot = this.#ballot;
    this.#watched[index]!.promise(PROBE_VOLUME, ballot, (answer) => {
      if (this.#ballot !== ballot || this.#peers[index]!.session !== session) return;
      if (answer.kind === "promised") this.#ready[index] = session;
      else if (answer.kind === "refused") this.#stepDown(answer.promised.epoch);
      else this.#later(RETRY_MS, () => this.#promiseTo(index));
    });
  }

  #propose(ballot: Ballot, highest: AcceptedRecord | null): void {
    if (this.#ballot !== ballot || this.#state !== "activating") return;
    const known = highest === null ? this.#at.nodes.map(({ index }) => index) : decode(highest.bytes).inSync;
    const inSync = known.filter((index) => this.#ready[index] !== null);
    if (inSync.length === 0) {
      this.#later(RETRY_MS, () => this.#propose(ballot, highest));
      return;
    }
    this.#generation = highest?.generation ?? 0;
    this.#change(inSync, () => {
      this.#state = "serving";
      this.#at.checks.servingBegan(PROBE_VOLUME, ballot.epoch);
      for (let i = 0; i < PARALLEL; i++) this.#next();
    });
  }

  /** Has a record with these members chosen, then goes on. */
  #change(inSync: readonly number[], chosen: () => void): void {
    this.#changing = true;
    this.#generation++;
    const ballot = this.#ballot;
    const bytes = encode({ name: "probe", inSync });
    this.#asking?.cancel();
    const record = { ballot, generation: this.#generation, bytes };
    this.#asking = this.#register.accept(PROBE_VOLUME, record, (outcome) => {
      if (this.#ballot !== ballot) return;
      if (outcome.kind !== "chosen") {
        this.#stepDown(outcome.kind === "refused" ? outcome.promised.epoch : 0);
        return;
      }
      this.#inSync = inSync;
      this.#changing = false;
      chosen();
      for (const work of this.#held.splice(0)) this.#send(work);
    });
  }

  #heardOf(epoch: number): void {
    this.#highestEpoch = Math.max(this.#highestEpoch, epoch);
    if (this.#state !== "idle" && epoch > this.#ballot.epoch) this.#stepDown(epoch);
  }

  /** Somebody else has the volume: nothing is answered any more. */
  #stepDown(epoch: number): void {
    if (this.#state === "idle") return;
    this.#highestEpoch = Math.max(this.#highestEpoch, epoch);
    this.#state = "idle";
    this.#changing = false;
    this.#ballot = { epoch: 0, owner: 0 };
    this.#asking?.cancel();
    for (const work of this.#held.splice(0)) this.#drop(work);
    this.#later(2000 + this.#random.below(12_000), () => this.activate());
  }

  // ---- Clients' requests -------------------------------------------------------------------------------

  #next(): void {
    if (this.#state !== "serving") return;
    if (this.#rebuilding || this.#busy.size >= PARALLEL) return;
    const register = this.#random.below(REGISTERS);
    if (this.#busy.has(register)) {
      this.#later(1, () => this.#next());
      return;
    }
    const memory = this.#pool.allocate(BLOCK_BYTES);
    if (memory < 0) throw new Violation("I23", "the probe has no memory");
    this.#busy.add(register);
    const { registers } = this.#at;
    const id = this.#random.chance(0.5) ? registers.nextId++ : 0;
    if (id > 0) {
      registers.invoked[register] = id;
      const { words } = simMemory();
      words.fill(id, memory >>> 2, (memory + BLOCK_BYTES) >>> 2);
    }
    this.#send({ register, id, ackedBefore: registers.acked[register]!, memory, tries: 0 });
  }

  #send(work: Work): void {
    if (this.#state !== "serving") this.#drop(work);
    else if (this.#changing) this.#held.push(work);
    else if (work.id === 0) this.#read(work);
    else this.#write(work);
  }

  #drop(work: Work): void {
    this.#busy.delete(work.register);
    this.#pool.free(work.memory);
  }

  #finish(work: Work): void {
    this.#drop(work);
    this.#later(this.#random.below(150), () => this.#next());
    if (this.#random.chance(0.1)) this.#next();
  }

  /** Whether an answer may go out. */
  #mayAnswer(): boolean {
    if (this.#state !== "serving" || !this.#lease.holds(this.#mark)) return false;
    this.#at.checks.answered(PROBE_VOLUME, this.#ballot.epoch);
    return true;
  }

  #write(work: Work): void {
    const members = this.#inSync;
    const results = new Map<number, Status>();
    for (const index of members) {
      this.#submit(index, ExtentOpKind.Write, work.register, 1, work.memory, ExtentFlag.Fua, (op) => {
        results.set(index, op.status);
        if (results.size < members.length) return;
        const failed = [...results].filter(([, status]) => status !== Status.Ok);
        if (failed.length > 0) this.#failed(work, failed);
        else this.#written(work);
      });
    }
  }

  #written(work: Work): void {
    if (this.#mayAnswer()) {
      const { registers } = this.#at;
      registers.acked[work.register] = work.id;
      registers.writes++;
    }
    this.#finish(work);
  }

  /** Members that did not do it are taken out, unless that would leave nobody; then it is sent again. */
  #failed(work: Work, failed: readonly (readonly [number, Status])[]): void {
    if (this.#state !== "serving") {
      this.#drop(work);
      return;
    }
    work.tries++;
    const out = failed
      .filter(([, status]) => status !== Status.NoLease || work.tries > LEASE_TRIES)
      .map(([index]) => index);
    const left = this.#inSync.filter((index) => !out.includes(index));
    const none = out.filter((index) => this.#inSync.includes(index)).length === 0;
    if (none || left.length === 0) {
      this.#later(RETRY_MS, () => this.#send(work));
      return;
    }
    this.#held.push(work);
    if (this.#changing) return;
    this.shrunk++;
    this.#change(left, () => undefined);
  }

  #read(work: Work): void {
    const index = this.#random.pick(this.#inSync);
    this.#submit(index, ExtentOpKind.Read, work.register, 1, work.memory, 0, (op) => {
      if (op.status !== Status.Ok) {
        this.#later(RETRY_MS, () => this.#send(work));
        return;
      }
      if (this.#mayAnswer()) {
        const { registers } = this.#at;
        registers.reads++;
        // A write that was on its way when power was lost is there in part, and nobody has acknowledged it.
        const ids = op.presentCount === 0 ? [0] : writesIn(work.memory, registers.powerWasLost);
        for (const id of ids) this.#check(work, id, index);
      }
      this.#finish(work);
    });
  }

  #check(work: Work, id: number, node: number): void {
    const { registers } = this.#at;
    const { register, ackedBefore } = work;
    if (id < ackedBefore)
      throw new Violation(
        "I3",
        `register ${register} read ${id} of node ${node} after ${ackedBefore} was acknowledged`,
      );
    if (id > registers.invoked[register]!)
      throw new Violation("I3", `register ${register} read ${id}, which nobody wrote`);
  }

  /** One operation on blocks from `register` on, all of one extent. `done` once; a node that is not ready loses it. */
  #submit(
    index: number,
    kind: ExtentOpKind,
    register: number,
    blocks: number,
    memory: number,
    flags: number,
    done: (op: ExtentOp) => void,
  ): void {
    const op = new ExtentOp();
    op.kind = kind;
    op.volume = PROBE_VOLUME;
    op.extent = Math.floor(register / EXTENT_BLOCKS);
    op.block = register % EXTENT_BLOCKS;
    op.blocks = blocks;
    op.memory = memory;
    op.flags = flags;
    op.epoch = this.#ballot.epoch;
    op.generation = this.#generation;
    op.sequence = ++this.#sequence;
    const { epoch } = op;
    const listener: ExtentListener = {
      extentDone: (answered) => {
        const { session } = this.#peers[index]!;
        if (answered.status === Status.Fenced && session !== null && session.fencedBy > epoch)
          this.#stepDown(session.fencedBy);
        done(answered);
      },
    };
    op.listener = listener;
    if (kind === ExtentOpKind.Write) {
      const seed = extentSeed(volumeSeed(op.volume), op.extent);
      simMemory().checksums.blockEntries(memory, blocks, seed, op.block, op.entries, 0);
    }
    const session = this.#ready[index];
    if (session !== null && session !== undefined) {
      session.submit(op);
      return;
    }
    this.#later(1, () => {
      op.status = Status.LinkLost;
      done(op);
    });
  }

  // ---- Return ------------------------------------------------------------------------------------------

  #rebuilding = false;

  /** From time to time: cuts sessions that owe too much, and begins to copy to a node that is back. */
  #tend(): void {
    this.#later(500, () => this.#tend());
    const now = this.process.now();
    this.#ready.forEach((session) => {
      const since = session?.silentSince ?? null;
      if (since !== null && now - since > SILENCE_MS) session!.close();
    });
    if (this.#state !== "serving" || this.#rebuilding || this.#changing) return;
    const back = this.#ready.findIndex((session, index) => session !== null && !this.#inSync.includes(index));
    if (back < 0) return;
    this.#rebuilding = true;
    this.#rebuildWhenQuiet(back, this.#ballot);
  }

  #rebuildWhenQuiet(index: number, ballot: Ballot): void {
    if (this.#ballot !== ballot) {
      this.#rebuilding = false;
    } else if (this.#busy.size > 0 || this.#changing) {
      this.#later(5, () => this.#rebuildWhenQuiet(index, ballot));
    } else {
      this.#copy(index, 0, ballot);
    }
  }

  #rebuildEnded(): void {
    this.#rebuilding = false;
    for (let i = 0; i < PARALLEL; i++) this.#next();
  }

  #copy(index: number, extent: number, ballot: Ballot): void {
    if (this.#ballot !== ballot || this.#changing) {
      this.#rebuildEnded();
      return;
    }
    if (extent === PROBE_EXTENTS) {
      this.#change([...this.#inSync, index].sort(), () => {
        this.rebuilt++;
        this.#rebuildEnded();
      });
      return;
    }
    const memory = this.#pool.allocate(EXTENT_BLOCKS << BLOCK_SHIFT);
    const register = extent * EXTENT_BLOCKS;
    const end = (next: () => void): void => {
      this.#pool.free(memory);
      next();
    };
    this.#submit(this.#inSync[0]!, ExtentOpKind.Read, register, EXTENT_BLOCKS, memory, 0, (op) => {
      if (op.status !== Status.Ok) {
        end(() => this.#rebuildEnded());
        return;
      }
      if (op.presentCount === 0) {
        end(() => this.#copy(index, extent + 1, ballot));
        return;
      }
      this.#submit(index, ExtentOpKind.Write, register, EXTENT_BLOCKS, memory, ExtentFlag.Fua, (written) => {
        end(() => {
          if (written.status === Status.Ok) this.#copy(index, extent + 1, ballot);
          else this.#rebuildEnded();
        });
      });
    });
  }
}
