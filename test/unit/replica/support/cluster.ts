/** One node over a memory disk, and askers beside it, in one engine. */
import { extentSeed, volumeSeed } from "../../../../lib/core/checksum.js";
import { type ExtentListener, ExtentOp, type ExtentOpKind } from "../../../../lib/core/extent-io.js";
import { RecordAcceptor } from "../../../../lib/replica/acceptor.js";
import type {
  LeaseView,
  LinkEnvironment,
  PromiseAnswer,
  ReplicaSession,
} from "../../../../lib/replica/api.js";
import { ConfigSeat } from "../../../../lib/replica/config/seat.js";
import type { ConfigSet } from "../../../../lib/replica/config/set.js";
import { NodeCore, type NodeOptions } from "../../../../lib/replica/node.js";
import type { Packing } from "../../../../lib/replica/packing.js";
import { NodeSession } from "../../../../lib/replica/session.js";
import { StabilityMap } from "../../../../lib/replica/stability.js";
import type { MemberStore } from "../../../../lib/store/index.js";
import { Machine } from "../../store/support/machine.js";
import { type PipeEnd, pipe } from "./streams.js";

export const CLUSTER = new Uint8Array(16);
export const VOLUME = 7;

/** A lease that a test gives and takes. */
export class HandLease implements LeaseView {
  held = true;
  mark(): number {
    return 0;
  }
  holds(): boolean {
    return this.held;
  }
}

export class NodeBench implements ExtentListener {
  machine: Machine;
  stability = new StabilityMap();
  lease = new HandLease();
  core!: NodeCore;
  #store: MemberStore | null = null;
  acceptor!: RecordAcceptor;
  readonly answered: ExtentOp[] = [];
  readonly losses: string[] = [];
  /** What the node, and those who ask from now on, pack with; null: they are of a version that does not know it. */
  readonly #nodePacking: Packing | null;
  askersPacking: Packing | null = null;

  constructor(machine = new Machine(), packing: Packing | null = null) {
    this.machine = machine;
    this.#nodePacking = packing;
    this.start();
  }

  get engine(): Machine["engine"] {
    return this.machine.engine;
  }

  #link(packing: Packing | null): LinkEnvironment {
    const { engine } = this;
    const link = { pool: engine.pool, clock: engine, ticker: engine, checksums: engine.checksums };
    return packing === null ? link : { ...link, packing };
  }

  get link(): LinkEnvironment {
    return this.#link(this.askersPacking);
  }

  /** A life of the node, on what the one before has left. */
  start(): void {
    this.stability = new StabilityMap();
    this.machine.open = { ...this.machine.open, stability: this.stability };
    const store = this.machine.start().store as MemberStore;
    this.acceptor = new RecordAcceptor(store, { nameOf: (bytes) => new TextDecoder().decode(bytes) || null });
    this.#store = store;
    this.#make({ isConfig: true });
  }

  #make(options: NodeOptions): void {
    const { stability, acceptor } = this;
    const store = this.#store!;
    this.core = new NodeCore({ ...this.#link(this.#nodePacking), store, stability, acceptor }, options);
    this.core.useLease(this.lease);
  }

  /** The node is of a cluster whose config nodes may change. */
  useSet(first: ConfigSet): void {
    const seat = new ConfigSeat(this.#store!, this.core.id, first, () => undefined);
    seat.start();
    this.engine.advance(50);
    this.#make({ seat });
  }

  connect(
    peer: number,
    number = 1,
    wrong: { cluster?: Uint8Array; node?: string } = {},
    otherSet: (set: ConfigSet) => void = () => undefined,
  ): { session: NodeSession; near: PipeEnd; far: PipeEnd } {
    const { near, far } = pipe(this.engine);
    this.core.serve(far);
    const options = {
      cluster: wrong.cluster ?? CLUSTER,
      node: wrong.node ?? this.core.id,
      peer,
      number,
      otherSet,
    };
    const session = new NodeSession(this.link, options, near, {
      sessionOpened: () => undefined,
      sessionLost: (_session, reason) => this.losses.push(reason),
    });
    this.engine.settle();
    return { session, near, far };
  }

  promise(session: ReplicaSession, epoch: number, owner: number): PromiseAnswer | null {
    let got: PromiseAnswer | null = null;
    session.promise(VOLUME, { epoch, owner }, (answer) => {
      got = answer;
    });
    this.engine.advance(50);
    return got;
  }

  extentDone(op: ExtentOp): void {
    this.answered.push(op);
  }

  op(kind: ExtentOpKind, epoch: number, block = 0, blocks = 1, generation = 1): ExtentOp {
    const op = new ExtentOp();
    op.kind = kind;
    op.volume = VOLUME;
    op.epoch = epoch;
    op.generation = generation;
    op.block = block;
    op.blocks = blocks;
    op.memory = this.engine.pool.allocate(Math.max(1, blocks) * 4096);
    op.listener = this;
    return op;
  }

  fill(op: ExtentOp, byte: number): ExtentOp {
    this.engine.pool.bytes.fill(byte, op.memory, op.memory + op.blocks * 4096);
    const seed = extentSeed(volumeSeed(op.volume), op.extent);
    this.engine.checksums.blockEntries(op.memory, op.blocks, seed, op.block, op.entries, 0);
    return op;
  }

  /** Submits and lets it end; the status, or null when it was not answered. */
  do(session: ReplicaSession, op: ExtentOp, isCopy = false): number | null {
    if (isCopy) session.copy(op);
    else session.submit(op);
    this.engine.advance(50);
    return this.answered.includes(op) ? op.status : null;
  }
}
