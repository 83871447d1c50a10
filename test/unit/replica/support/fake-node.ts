/**
 * A node in memory behind scripted sessions: it keeps extents, its gate and its inventory as a real one does, and
 * answers when, and with what, a test says.
 */
import { blockSeed, entryOfCrc, extentSeed, volumeSeed } from "../../../../lib/core/checksum.js";
import { ExtentFlag, type ExtentOp, ExtentOpKind } from "../../../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../../../lib/core/limits.js";
import { Status } from "../../../../lib/core/status.js";
import type {
  AcceptAnswer,
  AcceptedRecord,
  Ballot,
  InventoryEntry,
  NodeGreeting,
  PromiseAnswer,
  ReplicaSession,
  RottenPage,
  SessionListener,
} from "../../../../lib/replica/api.js";
import type { Engine } from "../../store/support/engine.js";

export const EXTENT_BLOCKS = 8;

interface FakeExtent {
  readonly blocks: (Uint8Array | null)[];
  /** Blocks whose bytes fail their entry. */
  readonly rot: Set<number>;
  generation: number;
  created: number;
  hot: boolean;
}

/** What a node says to an operation instead of executing it; null: nothing special. "hold": it does not answer. */
export type Script = (op: ExtentOp) => Status | "hold" | null;

export class FakeNode {
  readonly id: string;
  readonly engine: Engine;
  extents = new Map<number, FakeExtent>();
  durable = new Map<number, FakeExtent>();
  bootId = "boot-1";
  incarnation = 1;
  lossy = false;
  promised: Ballot = { epoch: 0, owner: 0 };
  gateOpen = false;
  generation = 0;
  script: Script = () => null;
  /** Sessions cannot be opened. */
  down = false;
  /** It has no power: it says nothing, and its connections look as before. */
  dark = false;
  session: FakeSession | null = null;
  /** What it executed, as words. */
  readonly log: string[] = [];
  readonly stable: number[] = [];
  reconciledCalls = 0;
  /** A page of extents with bad blocks; its scrub knows of all rot. −1: it cannot say. */
  rottenPage = 2;
  rottenCalls = 0;

  constructor(id: string, engine: Engine) {
    this.id = id;
    this.engine = engine;
  }

  /** kill -9 and start again: what it has stays. */
  kill(): void {
    this.session?.lose("killed");
    this.gateOpen = false;
    this.generation = 0;
    this.incarnation++;
  }

  /** Power loss: what was not flushed is gone. */
  powerLoss(): void {
    this.dark = false;
    this.kill();
    this.bootId += "+";
    this.lossy = true;
    const hot = [...this.extents].filter(([, { hot }]) => hot).map(([extent]) => extent);
    this.extents = copyOf(this.durable);
    for (const extent of hot) if (this.extents.has(extent)) this.extents.get(extent)!.hot = true;
  }

  execute(op: ExtentOp): Status {
    op.badBlock = -1;
    if (!this.gateOpen || op.epoch !== this.promised.epoch) return Status.Fenced;
    if (op.generation < this.generation) return Status.Outdated;
    this.generation = op.generation;
    if (op.kind !== ExtentOpKind.Read && op.kind !== ExtentOpKind.Map) {
      this.log.push(`${NAMES[op.kind]} ${op.extent} g${op.generation}`);
    }
    switch (op.kind) {
      case ExtentOpKind.Flush:
        this.durable = copyOf(this.extents);
        return Status.Ok;
      case ExtentOpKind.Free:
        this.extents.delete(op.extent);
        return Status.Ok;
      case ExtentOpKind.Stamp:
        return this.#stamp(op);
      case ExtentOpKind.Zero:
        return this.#zero(op);
      case ExtentOpKind.Write:
        return this.#write(op);
      default:
        return this.#read(op);
    }
  }

  #stamp(op: ExtentOp): Status {
    const found = this.extents.get(op.extent);
    if (found !== undefined) found.generation = Math.max(found.generation, op.generation);
    return Status.Ok;
  }

  #zero(op: ExtentOp): Status {
    const found = this.extents.get(op.extent);
    if (found === undefined) return Status.Ok;
    found.blocks.fill(null, op.block, op.block + op.blocks);
    for (let i = op.block; i < op.block + op.blocks; i++) found.rot.delete(i);
    found.hot = true;
    return this.#stamp(op);
  }

  #write(op: ExtentOp): Status {
    let found = this.extents.get(op.extent);
    if (found === undefined) {
      found = {
        blocks: new Array<Uint8Array | null>(EXTENT_BLOCKS).fill(null),
        rot: new Set(),
        generation: 0,
        created: op.sequence,
        hot: true,
      };
      this.extents.set(op.extent, found);
    }
    for (let i = 0; i < op.blocks; i++) {
      const at = op.memory + i * BLOCK_BYTES;
      found.blocks[op.block + i] = this.engine.pool.bytes.slice(at, at + BLOCK_BYTES);
      found.rot.delete(op.block + i);
      if (this.#entry(op.extent, op.block + i) !== op.entries[i]) throw new Error("entry of a write");
    }
    found.hot = true;
    return this.#stamp(op);
  }

  #read(op: ExtentOp): Status {
    op.present.fill(0);
    op.presentCount = 0;
    const found = this.extents.get(op.extent);
    for (let i = 0; i < op.blocks; i++) {
      const block = found?.blocks[op.block + i] ?? null;
      const isRotten = found?.rot.has(op.block + i) ?? false;
      if (op.kind === ExtentOpKind.Read && isRotten) {
        op.badBlock = op.block + i;
        return Status.Io;
      }
      if ((op.flags & ExtentFlag.Entries) !== 0 || op.kind === ExtentOpKind.Read)
        op.entries[i] = block === null ? 0 : this.#entry(op.extent, op.block + i);
      if (block !== null) {
        op.present[i >>> 5]! |= 1 << (i & 31);
        op.presentCount++;
      }
    }
    if (op.kind === ExtentOpKind.Map || op.presentCount === 0) return Status.Ok;
    for (let i = 0; i < op.blocks; i++) {
      const at = op.memory + i * BLOCK_BYTES;
      const block = found!.blocks[op.block + i] ?? null;
      if (block === null) this.engine.pool.bytes.fill(0, at, at + BLOCK_BYTES);
      else this.engine.pool.bytes.set(block, at);
    }
    return Status.Ok;
  }

  #entry(extent: number, block: number): number {
    const bytes = this.extents.get(extent)!.blocks[block]!;
    const seed = blockSeed(extentSeed(volumeSeed(VOLUME), extent), block);
    return entryOfCrc(this.engine.checksums.crc32cBytes(bytes, seed));
  }

  /** First byte of each block; 0 for absent ones. */
  fills(extent: number): number[] {
    const found = this.extents.get(extent);
    return Array.from({ length: EXTENT_BLOCKS }, (_, i) => found?.blocks[i]?.[0] ?? 0);
  }

  /** Puts bytes there behind everybody's back. */
  put(extent: number, fills: readonly number[], generation: number, hot: boolean): void {
    this.extents.set(extent, {
      blocks: Array.from({ length: EXTENT_BLOCKS }, (_, i) =>
        (fills[i] ?? 0) === 0 ? null : new Uint8Array(BLOCK_BYTES).fill(fills[i]!),
      ),
      rot: new Set(),
      generation,
      created: 1,
      hot,
    });
  }
}

export const VOLUME = 7;

const NAMES: Readonly<Record<ExtentOpKind, string>> = {
  [ExtentOpKind.Read]: "read",
  [ExtentOpKind.Write]: "write",
  [ExtentOpKind.Zero]: "zero",
  [ExtentOpKind.Free]: "free",
  [ExtentOpKind.Map]: "map",
  [ExtentOpKind.Flush]: "flush",
  [ExtentOpKind.Stamp]: "stamp",
};

function copyOf(extents: Map<number, FakeExtent>): Map<number, FakeExtent> {
  return new Map(
    [...extents].map(([extent, one]) => [extent, { ...one, blocks: [...one.blocks], rot: new Set(one.rot) }]),
  );
}

export class FakeSession implements ReplicaSession {
  readonly node: string;
  readonly greeting: NodeGreeting;
  fencedBy = 0;
  readonly #fake: FakeNode;
  readonly #listener: SessionListener;
  readonly #open = new Set<ExtentOp>();
  /** Questions that are not answered yet, by what ends them without an answer. */
  readonly #asked = new Set<() => void>();
  #lost = false;
  #heardAt: number;

  constructor(fake: FakeNode, listener: SessionListener) {
    this.#fake = fake;
    this.#listener = listener;
    this.node = fake.id;
    this.#heardAt = fake.engine.now();
    this.greeting = {
      node: fake.id,
      incarnation: fake.incarnation,
      bootId: fake.bootId,
      lossy: fake.lossy,
      extentBlocks: EXTENT_BLOCKS,
      windowRequests: 128,
      windowBytes: 1 << 23,
    };
  }

  get silentSince(): number | null {
    return this.#open.size + this.#asked.size > 0 ? this.#heardAt : null;
  }

  submit(op: ExtentOp): void {
    if (this.#open.size === 0) this.#heardAt = this.#fake.engine.now();
    if (this.#open.has(op)) throw new Error("an operation was submitted twice");
    // A node bounds how many entries one answer has, and a change or a Stamp may be of more blocks.
    const bringsEntries = op.kind === ExtentOpKind.Read || op.kind === ExtentOpKind.Map;
    if ((op.flags & ExtentFlag.Entries) !== 0 && !bringsEntries) throw new Error("entries of what has none");
    this.#open.add(op);
    const said = this.#lost ? Status.LinkLost : this.#fake.script(op);
    if (said === "hold" || this.#fake.dark) return;
    this.#fake.engine.complete(() => this.#answer(op, said));
  }

  copy(op: ExtentOp): void {
    this.submit(op);
  }

  /** Answers with `said` those that are held and asked for. */
  answer(which: (op: ExtentOp) => boolean, said: Status): void {
    for (const op of [...this.#open]) if (which(op)) this.#answer(op, said);
  }

  /** Answers what was held. */
  answerHeld(): void {
    for (const op of [...this.#open]) this.#answer(op, null);
  }

  get held(): number {
    return this.#open.size;
  }

  #answer(op: ExtentOp, said: Status | null): void {
    if (!this.#open.delete(op)) return;
    op.badBlock = -1;
    op.status = said ?? this.#fake.execute(op);
    if (op.status === Status.Fenced) this.fencedBy = Math.max(this.fencedBy, this.#fake.promised.epoch);
    this.#heardAt = this.#fake.engine.now();
    op.listener.extentDone(op);
  }

  promise(_volume: number, ballot: Ballot, done: (answer: PromiseAnswer) => void): void {
    this.#ask(
      () => done({ kind: "unknown" }),
      () => {
        const { promised } = this.#fake;
        if (ballot.epoch < promised.epoch) {
          done({ kind: "refused", promised });
          return;
        }
        if (ballot.epoch > promised.epoch) this.#fake.generation = 0;
        this.#fake.promised = ballot;
        this.#fake.gateOpen = true;
        done({ kind: "promised", accepted: null });
      },
    );
  }

  accept(_volume: number, _record: AcceptedRecord, done: (answer: AcceptAnswer) => void): void {
    done({ kind: "unknown" });
  }

  renew(_volumes: readonly number[], done: (promised: readonly number[] | null) => void): void {
    done(null);
  }

  inventory(
    _volume: number,
    epoch: number,
    visit: (entry: InventoryEntry) => void,
    done: (complete: boolean, isWhole: boolean) => void,
  ): void {
    this.#ask(
      () => done(false, false),
      () => {
        if (!this.#fake.gateOpen || epoch !== this.#fake.promised.epoch) {
          done(false, false);
          return;
        }
        for (const [extent, { generation, created, hot }] of this.#fake.extents)
          visit({ layer: 0, extent, generation, created, hot });
        done(true, !this.#fake.lossy);
      },
    );
  }

  stable(_volume: number, _epoch: number, _layer: number, extents: readonly number[]): void {
    for (const extent of extents) {
      this.#fake.stable.push(extent);
      const found = this.#fake.extents.get(extent);
      if (found !== undefined) found.hot = false;
    }
  }

  reconciled(_volume: number, _epoch: number, done: (done: boolean) => void): void {
    this.#ask(
      () => done(false),
      () => {
        this.#fake.lossy = false;
        this.#fake.reconciledCalls++;
        done(true);
      },
    );
  }

  rotten(_volume: number, _epoch: number, from: number, done: (page: RottenPage | null) => void): void {
    this.#ask(
      () => done(null),
      () => {
        const page = this.#fake.rottenPage;
        this.#fake.rottenCalls++;
        const extents = [...this.#fake.extents]
          .filter(([extent, { rot }]) => rot.size > 0 && extent >= from)
          .map(([extent]) => extent)
          .sort((a, b) => a - b);
        if (page < 0) done(null);
        else done({ extents: extents.slice(0, page), more: Math.max(0, extents.length - page) });
      },
    );
  }

  #ask(lost: () => void, answer: () => void): void {
    if (this.#asked.size === 0) this.#heardAt = this.#fake.engine.now();
    this.#asked.add(lost);
    if (this.#fake.dark) return;
    this.#fake.engine.complete(() => {
      if (!this.#asked.delete(lost)) return;
      this.#heardAt = this.#fake.engine.now();
      if (this.#lost) lost();
      else answer();
    });
  }

  close(): void {
    this.#fake.engine.complete(() => this.lose("closed"));
  }

  lose(reason: string): void {
    if (this.#lost) return;
    this.#lost = true;
    if (this.#fake.session === this) this.#fake.session = null;
    // What is sent while the others are being answered is answered too, before the end is told.
    for (let i = 0; this.#open.size > 0; i++) {
      if (i > 10_000) throw new Error("operations are sent to a session that is ending");
      for (const op of this.#open) this.#answer(op, Status.LinkLost);
    }
    for (const lost of [...this.#asked]) {
      this.#asked.delete(lost);
      lost();
    }
    this.#listener.sessionLost(this, reason);
  }
}
