/** A few fake nodes, a register that a test can stop, a lease that it can take away, and a volume's owner on them. */
import { extentSeed, volumeSeed } from "../../../../lib/core/checksum.js";
import { ExtentOp, ExtentOpKind } from "../../../../lib/core/extent-io.js";
import { epoch, generation, volumeId } from "../../../../lib/core/ids.js";
import { BLOCK_BYTES } from "../../../../lib/core/limits.js";
import type { AcceptedRecord, SessionListener } from "../../../../lib/replica/api.js";
import { Activation, type ActivationOutcome } from "../../../../lib/replica/owner/activation.js";
import type { NodeLinks, OwnerEnvironment, OwnerEvents } from "../../../../lib/replica/owner/api.js";
import {
  type ClusterRecord,
  decodeClusterRecord,
  encodeClusterRecord,
  type MemberEntry,
} from "../../../../lib/replica/owner/record.js";
import { ReplicaSet } from "../../../../lib/replica/owner/replica-set.js";
import type { AcceptOutcome, PromiseOutcome } from "../../../../lib/replica/register.js";
import { Engine } from "../../store/support/engine.js";
import { EXTENT_BLOCKS, FakeNode, FakeSession, VOLUME } from "./fake-node.js";

export const NODE_IDS = ["1", "2", "3", "4"].map((digit) => digit.repeat(32));

export class FakeCluster {
  readonly engine = new Engine();
  readonly nodes: readonly FakeNode[];
  readonly seen: string[] = [];
  /** The chosen records, oldest first. */
  readonly chosen: ClusterRecord[] = [];
  /** No majority can be reached. */
  registerDown = false;
  refuseWith: number | null = null;
  leaseHolds = true;
  readonly environment: OwnerEnvironment;
  readonly #watchers = new Map<string, SessionListener[]>();
  readonly #waiting: (() => void)[] = [];
  promisedEpoch = 1;

  constructor(count = 3) {
    this.nodes = NODE_IDS.slice(0, count).map((id) => new FakeNode(id, this.engine));
    const links: NodeLinks = {
      session: (id) => this.node(id).session,
      watch: (id, listener) => {
        this.#watchers.set(id, [...(this.#watchers.get(id) ?? []), listener]);
      },
      unwatch: (id, listener) => {
        this.#watchers.set(
          id,
          (this.#watchers.get(id) ?? []).filter((one) => one !== listener),
        );
      },
    };
    this.environment = {
      pool: this.engine.pool,
      clock: this.engine,
      random: this.engine,
      links,
      lease: { mark: () => 1, holds: () => this.leaseHolds },
      register: {
        promise: (_volume, ballot, done) => this.#promise(ballot.epoch, done),
        accept: (_volume, record, done) => this.#accept(record, done),
      },
      self: { peer: 99, node: null, incarnation: 0 },
      extentBlocks: EXTENT_BLOCKS,
      nameOf: (id) => `n${id[0]}`,
    };
  }

  readonly events: OwnerEvents = {
    ended: (reason) => this.seen.push(`ended: ${reason}`),
    left: (id, reason) => this.seen.push(`n${id[0]} left: ${reason}`),
    joined: (id) => this.seen.push(`n${id[0]} joined`),
    repaired: (id, extent, blocks) => this.seen.push(`n${id[0]} repaired ${blocks} of ${extent}`),
    unrepairable: (id, extent, block) => this.seen.push(`n${id[0]} cannot repair ${extent}:${block}`),
  };

  node(id: string): FakeNode {
    return this.nodes.find((node) => node.id === id)!;
  }

  /** Opens a session to each node that is up and has none. */
  connect(): void {
    for (const node of this.nodes) {
      if (node.down || node.session !== null) continue;
      const listeners = (): readonly SessionListener[] => this.#watchers.get(node.id) ?? [];
      const session = new FakeSession(node, {
        sessionOpened: () => undefined,
        sessionLost: (lost, reason) => {
          for (const listener of [...listeners()]) listener.sessionLost(lost, reason);
        },
      });
      node.session = session;
      for (const listener of [...listeners()]) listener.sessionOpened(session);
    }
    this.engine.settle();
  }

  /** Time passes; nodes that are up are connected to again and again. */
  pass(ms: number): void {
    for (let left = ms; left > 0; left -= 50) {
      this.connect();
      this.engine.advance(Math.min(50, left));
    }
  }

  #promise(asked: number, done: (outcome: PromiseOutcome) => void): { waitingFor: string[]; cancel(): void } {
    const answer = (): void => {
      if (asked <= this.promisedEpoch) {
        done({ kind: "refused", promised: { epoch: this.promisedEpoch, owner: 5 } });
        return;
      }
      this.promisedEpoch = asked;
      const newest = this.chosen.at(-1);
      const highest: AcceptedRecord | null =
        newest === undefined
          ? null
          : {
              ballot: { epoch: newest.epoch, owner: newest.owner.peer },
              generation: newest.generation,
              bytes: encodeClusterRecord(newest),
            };
      done({ kind: "promised", highest });
    };
    return this.#whenUp(answer);
  }

  #accept(
    record: AcceptedRecord,
    done: (outcome: AcceptOutcome) => void,
  ): { waitingFor: string[]; cancel(): void } {
    return this.#whenUp(() => {
      if (this.refuseWith !== null) {
        done({ kind: "refused", promised: { epoch: this.refuseWith, owner: 5 } });
        return;
      }
      this.chosen.push(decodeClusterRecord(record.bytes));
      done({ kind: "chosen" });
    });
  }

  #whenUp(answer: () => void): { waitingFor: string[]; cancel(): void } {
    let cancelled = false;
    const run = (): void => {
      if (!cancelled) answer();
    };
    if (this.registerDown) this.#waiting.push(run);
    else this.engine.complete(run);
    return {
      waitingFor: [],
      cancel: () => {
        cancelled = true;
      },
    };
  }

  registerUp(): void {
    this.registerDown = false;
    for (const run of this.#waiting.splice(0)) this.engine.complete(run);
    this.engine.settle();
  }

  record(change: Partial<ClusterRecord> = {}): ClusterRecord {
    return {
      id: volumeId(VOLUME),
      name: "v1",
      size: 64 * EXTENT_BLOCKS * BLOCK_BYTES,
      description: "",
      readOnly: false,
      policy: {
        replicas: this.nodes.length,
        minReplicas: Math.floor(this.nodes.length / 2) + 1,
        stripeCount: 1,
        stripeUnit: BLOCK_BYTES,
        onFull: "wait",
      },
      access: [],
      epoch: epoch(1),
      generation: generation(1),
      version: 1,
      createdAt: 0,
      state: "live",
      owner: { peer: 99, node: null, incarnation: 0, released: false },
      members: this.nodes.map(({ id }): MemberEntry => ({ node: id, state: "insync", since: 0 })),
      replicasMin: this.nodes.length,
      ...change,
    };
  }

  /** Begins an activation; what becomes of it stands in the result. */
  activate(epoch = 2): Activating {
    const result: Activating = { outcome: null, activation: null };
    result.activation = new Activation(this.environment, VOLUME, epoch, (outcome) => {
      result.outcome = outcome;
    });
    this.engine.settle();
    return result;
  }

  /** The owner of what was activated. */
  own(activating: Activating): ReplicaSet {
    const { outcome } = activating;
    if (outcome === null || outcome.kind !== "activated") throw new Error("not activated");
    const set = new ReplicaSet(this.environment, this.engine, outcome.activated, this.events);
    this.engine.settle();
    return set;
  }

  /** An owner as if an activation had just ended. */
  serve(change: Partial<ClusterRecord> = {}, reconcile: readonly number[] = []): ReplicaSet {
    this.connect();
    const record = this.record(change);
    this.chosen.push(record);
    const set = new ReplicaSet(
      this.environment,
      this.engine,
      {
        ballot: { epoch: record.epoch, owner: 99 },
        record,
        lives: new Map(
          this.nodes.map(({ id, bootId, incarnation, lossy }) => [id, { bootId, incarnation, lossy }]),
        ),
        reconcile: new Set(reconcile),
        extents: new Set(),
        sequence: 0,
      },
      this.events,
    );
    this.engine.settle();
    return set;
  }

  // ---- Operations --------------------------------------------------------------------------------------

  /** Asks; the status arrives in `result.status`, −1 until then. */
  ask(set: ReplicaSet, kind: ExtentOpKind, extent: number, block = 0, blocks = 1, flags = 0): Asked {
    const op = new ExtentOp();
    op.kind = kind;
    op.extent = extent;
    op.block = block;
    op.blocks = blocks;
    op.flags = flags;
    op.memory = this.engine.pool.allocate(blocks * BLOCK_BYTES);
    const asked: Asked = { op, status: -1 };
    op.listener = {
      extentDone: () => {
        if (asked.status !== -1) throw new Error("an operation was answered twice");
        asked.status = op.status;
        // Memory that a session still has would be seen by the next write.
        this.engine.pool.bytes.fill(0xdd, op.memory, op.memory + blocks * BLOCK_BYTES);
        if (kind !== ExtentOpKind.Read) this.engine.pool.free(op.memory);
      },
    };
    if (kind === ExtentOpKind.Read) {
      op.listener = {
        extentDone: () => {
          if (asked.status !== -1) throw new Error("an operation was answered twice");
          asked.status = op.status;
          asked.fills = Array.from({ length: blocks }, (_, i) =>
            op.presentCount === 0 ? 0 : this.engine.pool.bytes[op.memory + i * BLOCK_BYTES]!,
          );
          this.engine.pool.free(op.memory);
        },
      };
    }
    return this.#submit(set, asked);
  }

  #submit(set: ReplicaSet, asked: Asked): Asked {
    set.submit(asked.op);
    return asked;
  }

  write(set: ReplicaSet, extent: number, block: number, fills: readonly number[], flags = 0): Asked {
    const op = new ExtentOp();
    op.kind = ExtentOpKind.Write;
    op.extent = extent;
    op.block = block;
    op.blocks = fills.length;
    op.flags = flags;
    op.memory = this.engine.pool.allocate(fills.length * BLOCK_BYTES);
    fills.forEach((fill, i) => {
      const at = op.memory + i * BLOCK_BYTES;
      this.engine.pool.bytes.fill(fill, at, at + BLOCK_BYTES);
    });
    const seed = extentSeed(volumeSeed(VOLUME), extent);
    this.engine.checksums.blockEntries(op.memory, fills.length, seed, block, op.entries, 0);
    const asked: Asked = { op, status: -1 };
    op.listener = {
      extentDone: () => {
        if (asked.status !== -1) throw new Error("an operation was answered twice");
        asked.status = op.status;
        this.engine.pool.bytes.fill(0xdd, op.memory, op.memory + fills.length * BLOCK_BYTES);
        this.engine.pool.free(op.memory);
      },
    };
    return this.#submit(set, asked);
  }

  read(set: ReplicaSet, extent: number, block = 0, blocks = EXTENT_BLOCKS): Asked {
    return this.ask(set, ExtentOpKind.Read, extent, block, blocks);
  }
}

export interface Activating {
  outcome: ActivationOutcome | null;
  activation: Activation | null;
}

export interface Asked {
  readonly op: ExtentOp;
  status: number;
  fills?: number[];
}
