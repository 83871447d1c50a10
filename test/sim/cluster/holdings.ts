/**
 * What each node has of the run's volumes, block by block, as its store has said: which write was done last, under
 * which generation, and which one a Flush or FUA has made stable. So the checker knows at once what clients may find
 * only much later, or never, because somebody happens to write the block again.
 *
 * Invariants
 *  1. What is not certain is UNKNOWN, until the next change: of operations that failed or were open when a process
 *     ended, and what was not stable when power was lost.
 *  2. Nothing is known but what stores were asked and have answered.
 */
import { ExtentFlag, type ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import { simMemory } from "../memory.js";
import { EXTENT_BLOCKS } from "./node-host.js";
import { REGISTERS } from "./registers.js";

/** Content of a block of zeros, or of none. */
export const ZEROS = 0;
export const UNKNOWN = -1;
/** Nothing that clients rely on: power was lost, and it had to be copied again. */
export const LACKING = -2;

/** What a node had when a Flush began; used again, for there are many. */
class Snapshot {
  readonly shows = new Float64Array(REGISTERS);
  readonly changed = new Float64Array(REGISTERS);
}

/** What one node has of one volume. */
export class Holding {
  /** By register: number of the write that it shows. */
  readonly shows = new Float64Array(REGISTERS);
  /** Number of the write that it shows at least, whatever happens to the node's power. */
  readonly stable = new Float64Array(REGISTERS);
  /** Highest generation under which it was changed or stamped. */
  readonly under = new Float64Array(REGISTERS);
  /** Order of changes, and that of the one that is stable. */
  readonly #changed = new Float64Array(REGISTERS);
  readonly #stableChange = new Float64Array(REGISTERS);
  /** 1: a power loss may have taken what it had last. */
  readonly #lost = new Uint8Array(REGISTERS);
  #changes = 0;
  /** Free for the next Flush. */
  readonly #snapshots: Snapshot[] = [];

  #set(register: number, shows: number): void {
    this.shows[register] = shows;
    this.#changed[register] = ++this.#changes;
  }

  /** The operation's blocks may have been changed, or not. */
  doubt(op: ExtentOp): void {
    const end = endOf(op);
    for (let register = firstOf(op); register < end; register++) this.#set(register, UNKNOWN);
  }

  /** `isOld`: whether a write of this number was stable before, so that it can only be a copy. */
  done(op: ExtentOp, isOld: (register: number, id: number) => boolean): void {
    const { words } = simMemory();
    const { kind } = op;
    const first = firstOf(op);
    const end = endOf(op);
    for (let register = first; register < end; register++) {
      this.under[register] = Math.max(this.under[register]!, op.generation);
      if (kind === ExtentOpKind.Stamp) continue;
      const at = op.memory + (register - first) * BLOCK_BYTES;
      const shows = kind === ExtentOpKind.Write ? words[at >>> 2]! : ZEROS;
      if (this.#lost[register] === 1 && shows !== ZEROS && isOld(register, shows))
        this.stable[register] = LACKING;
      this.#lost[register] = 0;
      this.#set(register, shows);
      // Freeing says nothing of FUA.
      if ((op.flags & ExtentFlag.Fua) === 0 || kind === ExtentOpKind.Free) continue;
      this.stable[register] = this.shows[register]!;
      this.#stableChange[register] = this.#changes;
    }
  }

  /** A Flush begins; what is to be called when it was done. */
  flush(): () => void {
    const before = this.#snapshots.pop() ?? new Snapshot();
    before.shows.set(this.shows);
    before.changed.set(this.#changed);
    return () => {
      const { shows, changed } = before;
      for (let register = 0; register < REGISTERS; register++) {
        if (changed[register]! < this.#stableChange[register]!) continue;
        this.stable[register] = shows[register]!;
        this.#stableChange[register] = changed[register]!;
      }
      this.#snapshots.push(before);
    };
  }

  powerLost(): void {
    for (let register = 0; register < REGISTERS; register++) {
      if (this.#changed[register] === this.#stableChange[register]) continue;
      this.#set(register, UNKNOWN);
      this.#lost[register] = 1;
    }
  }
}

function firstOf(op: ExtentOp): number {
  return op.extent * EXTENT_BLOCKS + (isOfAll(op) ? 0 : op.block);
}

function isOfAll({ kind }: ExtentOp): boolean {
  return kind === ExtentOpKind.Free || kind === ExtentOpKind.Stamp;
}

/** First register behind the operation's. */
function endOf(op: ExtentOp): number {
  return firstOf(op) + (isOfAll(op) ? EXTENT_BLOCKS : op.blocks);
}

function isChange({ kind }: ExtentOp): boolean {
  return (
    kind === ExtentOpKind.Write ||
    kind === ExtentOpKind.Zero ||
    kind === ExtentOpKind.Free ||
    kind === ExtentOpKind.Stamp
  );
}

/** What clients rely on, of a volume. */
export interface StableRegisters {
  /** Whether write `id`, or a later one, must not be missed any more. */
  isStable(register: number, id: number): boolean;
}

/** Of all nodes and volumes of a run. */
export class Holdings {
  readonly #firstVolume: number;
  readonly #registers: readonly StableRegisters[];
  /** By node, then by volume. */
  readonly #all: readonly (readonly Holding[])[];

  /** `registers`: what clients know of each volume; `firstVolume`: number of the first of them. */
  constructor(nodes: number, registers: readonly StableRegisters[], firstVolume: number) {
    this.#firstVolume = firstVolume;
    this.#registers = registers;
    this.#all = Array.from({ length: nodes }, () => registers.map(() => new Holding()));
  }

  /** `volume`: its number. Undefined: it is none of the run's. */
  of(node: number, volume: number): Holding | undefined {
    return this.#all[node]?.[volume - this.#firstVolume];
  }

  /** A node's store was given an operation; what is to be called when it has answered. */
  submitted(node: number, op: ExtentOp): (() => void) | null {
    const holding = this.of(node, op.volume);
    if (holding === undefined) return null;
    const registers = this.#registers[op.volume - this.#firstVolume]!;
    if (op.kind === ExtentOpKind.Flush) {
      const done = holding.flush();
      return () => {
        if (op.status === Status.Ok) done();
      };
    }
    if (!isChange(op)) return null;
    return () => {
      if (op.status === Status.Ok) holding.done(op, (register, id) => registers.isStable(register, id));
      else if (op.kind !== ExtentOpKind.Stamp) holding.doubt(op);
    };
  }

  /** The node's process has ended with these operations in its store. */
  died(node: number, inStore: Iterable<ExtentOp>): void {
    for (const op of inStore) {
      if (isChange(op) && op.kind !== ExtentOpKind.Stamp) this.of(node, op.volume)?.doubt(op);
    }
  }

  powerLost(node: number): void {
    for (const holding of this.#all[node]!) holding.powerLost();
  }
}
