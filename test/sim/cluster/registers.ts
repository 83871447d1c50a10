/**
 * What the clients of one volume know, whoever serves them. Every write has a number of its own, rising per register
 * (block), and no two operations of a register overlap; so what a read may show is an interval.
 */
import { Violation } from "../violation.js";
import { EXTENT_BLOCKS } from "./node-host.js";

export const VOLUME_EXTENTS = 16;
/** Volumes of a run, at most: the number of a write says of which one it is. */
export const VOLUMES_MAX = 4;
export const REGISTERS = VOLUME_EXTENTS * EXTENT_BLOCKS;
const ZEROS = 0;
export const NOTHING: ReadonlySet<number> = new Set([ZEROS]);

/** How often clients ask for what, as parts of the sum. */
export interface Shares {
  readonly flush: number;
  readonly free: number;
  readonly zero: number;
  readonly write: number;
  readonly read: number;
}

/** What clients do, until they change it. */
export interface Habits {
  readonly inUse: readonly number[];
  /** Only the first blocks of an extent: operations meet in few places. */
  readonly isNarrow: boolean;
  /** Most ms that a client waits before it asks for the next thing, when it does not hurry. */
  readonly pauseMs: number;
  readonly isResting: boolean;
  readonly shares: Shares;
  /** How often a change is to be stable when it is answered. */
  readonly fua: number;
}

export const USUAL_FUA = 0.15;
export const USUAL_SHARES: Shares = { flush: 2, free: 1, zero: 1, write: 8, read: 8 };

export function allExtents(): number[] {
  return Array.from({ length: VOLUME_EXTENTS }, (_, extent) => extent);
}

export class VolumeRegisters {
  /** Place of the volume among those of the run. */
  readonly index: number;
  /** Highest number that must not be missed any more, whatever happens. */
  readonly #floor = new Float64Array(REGISTERS);
  /** Highest number that was acknowledged or shown, and must not be missed until somebody loses power. */
  readonly #kept = new Float64Array(REGISTERS);
  /** Highest number that was acknowledged, of what a flush makes stable. */
  readonly #acked = new Float64Array(REGISTERS);
  /** Free for what the next flush covers. */
  readonly #snapshots: Float64Array[] = [];
  readonly #invoked = new Float64Array(REGISTERS);
  /** Highest number whose content is zeros. */
  readonly #zeroed = new Float64Array(REGISTERS);
  /** By write, its first register and how many it changes. */
  readonly #firstOf: number[] = [];
  readonly #countOf: number[] = [];
  /** Nobody loses power in this run. */
  readonly hasPower: boolean;
  writes = 0;
  reads = 0;
  flushes = 0;
  habits: Habits = {
    inUse: allExtents(),
    isNarrow: false,
    pauseMs: 500,
    isResting: false,
    shares: USUAL_SHARES,
    fua: USUAL_FUA,
  };
  /** Operations that follow the one before at once, from now on. */
  hurry = 0;
  /** Power losses so far that may have taken what was not flushed. */
  #losses = 0;

  constructor(hasPower: boolean, index = 0) {
    this.hasPower = hasPower;
    this.index = index;
  }

  /** Whatever was not flushed may be gone, also of what is answered from now on; a later flush does not bring it back. */
  powerLost(): void {
    this.#losses++;
    this.#acked.set(this.#floor);
    this.#kept.set(this.#floor);
  }

  /** A flush is asked for: what it makes stable when it is answered. */
  beginFlush(): () => void {
    const acked = this.#snapshots.pop() ?? new Float64Array(REGISTERS);
    acked.set(this.#acked);
    return () => {
      for (let i = 0; i < REGISTERS; i++) this.#raise(this.#floor, i, acked[i]!);
      this.#snapshots.push(acked);
      this.flushes++;
    };
  }

  /** A new number for a change of registers from `first` on. */
  numberOf(first: number, count: number, isZero: boolean): number {
    const id = (this.#firstOf.length + 1) * VOLUMES_MAX + this.index;
    this.#firstOf.push(first);
    this.#countOf.push(count);
    for (let i = first; i < first + count; i++) {
      this.#invoked[i] = id;
      if (isZero) this.#zeroed[i] = id;
    }
    return id;
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
    if (id === ZEROS) {
      if (floor > 0 && this.#zeroed[register]! < floor) this.#wrong(register, id, `after ${floor}`);
      return;
    }
    if (id < floor) this.#wrong(register, id, `after ${floor}`);
    if (id % VOLUMES_MAX !== this.index)
      throw new Violation("I18", `register ${register} of volume ${this.index} showed ${id}`);
    const write = Math.floor(id / VOLUMES_MAX) - 1;
    const first = this.#firstOf[write] ?? REGISTERS;
    if (id < 0 || register < first || register >= first + this.#countOf[write]!)
      this.#wrong(register, id, "which nobody wrote");
    if (id > this.#invoked[register]!) this.#wrong(register, id, "before it was asked for");
  }

  /** Whether nothing that must not be missed any more is missing where `id` is the newest one. */
  isStillGood(register: number, id: number): boolean {
    const floor = this.#floor[register]!;
    return id === ZEROS ? floor === 0 || this.#zeroed[register]! >= floor : id >= floor;
  }

  /** Whether write `id`, or a later one, must not be missed any more. */
  isStable(register: number, id: number): boolean {
    return id <= this.#floor[register]!;
  }

  /** Somebody asked for zeros after write `id`. */
  wasZeroedAfter(register: number, id: number): boolean {
    return this.#zeroed[register]! > id;
  }

  #wrong(register: number, id: number, why: string): never {
    throw new Violation("I3", `register ${register} of volume ${this.index} showed ${id} ${why}`);
  }

  #raise(numbers: Float64Array, register: number, id: number): void {
    numbers[register] = Math.max(numbers[register]!, id);
  }
}
