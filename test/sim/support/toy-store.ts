/**
 * A store so simple that it can be seen to be right: every extent has its own place on the device, nothing is
 * cached, every operation is one request of the disk, and a flush is a sync. It stands in for the real store in
 * the tests of the simulator itself; its wrong variants must be caught.
 */
import type { DiskListener } from "../../../lib/core/disk.js";
import { ExtentFlag, type ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import type { Routine } from "../../../lib/core/routine.js";
import { Status } from "../../../lib/core/status.js";
import type { Store, StoreEnvironment, StoreStats } from "../../../lib/store/api.js";
import type { Subject } from "../subject.js";

export const MISTAKES = [
  "none",
  "flush without sync",
  "flush acknowledged before its sync is over",
  "FUA without sync",
  "write acknowledged before it is done",
  "zero acknowledged without being done",
  "write to the neighbouring block",
  "read of the neighbouring block",
  "lost write",
  "half of a write lost",
  "map shows data as a hole",
  "failed sync ignored",
  "memory given back before the write is done",
] as const;
export type Mistake = (typeof MISTAKES)[number];

/** Wrong variants go wrong once in so many operations. */
const MISTAKE_EVERY = 7;

export function toySubject(mistake: Mistake, extentsPerVolume: number): Subject {
  return {
    name: `toy (${mistake})`,
    *format(): Routine<void> {},
    // biome-ignore lint/correctness/useYield: nothing has to be read to open it
    *open(environment): Routine<Store> {
      return new ToyStore(environment, mistake, extentsPerVolume);
    },
    provisionedBytes: () => Number.POSITIVE_INFINITY,
  };
}

class ToyStore implements Store, DiskListener {
  readonly extentBlocks = 16;
  readonly #environment: StoreEnvironment;
  readonly #mistake: Mistake;
  readonly #extentsPerVolume: number;
  readonly #ops: ExtentOp[] = [];
  #count = 0;
  #failed = false;

  constructor(environment: StoreEnvironment, mistake: Mistake, extentsPerVolume: number) {
    this.#environment = environment;
    this.#mistake = mistake;
    this.#extentsPerVolume = extentsPerVolume;
  }

  submit(op: ExtentOp): void {
    const { disk } = this.#environment;
    const tag = this.#ops.push(op) - 1;
    const wrong = (mistake: Mistake): boolean =>
      this.#mistake === mistake && (this.#count++ + this.#environment.random.u32()) % MISTAKE_EVERY === 0;
    const place = ((op.volume - 1) * this.#extentsPerVolume + op.extent) * this.extentBlocks + op.block;
    const length = op.blocks * BLOCK_BYTES;
    switch (op.kind) {
      case ExtentOpKind.Read: {
        const shift = wrong("read of the neighbouring block") && op.block > 0 ? 1 : 0;
        disk.read((place - shift) * BLOCK_BYTES, op.memory, length, this, tag);
        break;
      }
      case ExtentOpKind.Write: {
        const shift = wrong("write to the neighbouring block") && op.block > 0 ? 1 : 0;
        const kept = wrong("half of a write lost")
          ? Math.ceil(length / 2 / BLOCK_BYTES) * BLOCK_BYTES
          : length;
        if (wrong("lost write")) {
          this.#later(op);
          break;
        }
        disk.write((place - shift) * BLOCK_BYTES, op.memory, kept, this, tag);
        if (wrong("write acknowledged before it is done")) this.#later(op);
        else if (this.#mistake === "memory given back before the write is done")
          this.#environment.pool.bytes.fill(0, op.memory, op.memory + 512);
        break;
      }
      case ExtentOpKind.Zero:
      case ExtentOpKind.Free:
        if (wrong("zero acknowledged without being done")) this.#later(op);
        else disk.zero(place * BLOCK_BYTES, length, this, tag);
        break;
      case ExtentOpKind.Map:
        op.present.fill(this.#mistake === "map shows data as a hole" ? 0 : 0xffffffff);
        this.#later(op);
        break;
      case ExtentOpKind.Stamp:
        this.#later(op);
        break;
      case ExtentOpKind.Flush:
        if (wrong("flush without sync")) this.#later(op);
        else {
          disk.sync(this, tag);
          if (wrong("flush acknowledged before its sync is over")) this.#later(op);
        }
        break;
    }
  }

  diskDone(tag: number, result: number): void {
    const op = this.#ops[tag];
    if (op === undefined) return;
    if (result < 0 && this.#mistake !== "failed sync ignored") {
      if (op.kind === ExtentOpKind.Flush || this.#failed) this.#fail();
      else this.#answer(op, Status.Io);
      return;
    }
    if (this.#failed) return;
    const changes = op.kind !== ExtentOpKind.Flush && op.kind !== ExtentOpKind.Read;
    if (changes && (op.flags & ExtentFlag.Fua) !== 0 && this.#mistake !== "FUA without sync") {
      op.flags = 0;
      op.kind = ExtentOpKind.Flush;
      this.#environment.disk.sync(this, tag);
      return;
    }
    this.#answer(op, Status.Ok);
  }

  #fail(): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#environment.events.failed("sync failed");
  }

  #later(op: ExtentOp): void {
    this.#ops[this.#ops.indexOf(op)] = undefined as never;
    this.#environment.clock.setTimer(0.01, () => this.#answer(op, Status.Ok));
  }

  #answer(op: ExtentOp, status: Status): void {
    op.status = status;
    op.presentCount = op.blocks;
    op.listener.extentDone(op);
  }

  inventory(): void {}
  slotsOf(): number {
    return 0;
  }
  volumesWithSlots(): number[] {
    return [];
  }
  dropVolume(): void {
    throw new Error("the toy store has no volumes");
  }
  records(): ReadonlyMap<number, Uint8Array> {
    return new Map();
  }
  putRecord(): void {
    throw new Error("the toy store has no records");
  }
  stats(): StoreStats {
    return { lossy: false } as StoreStats;
  }
  badBlocks(): [] {
    return [];
  }
  startScrub(): void {}

  close(done: (error: null) => void): void {
    this.#environment.disk.sync({ diskDone: () => done(null) }, 0);
  }
}
