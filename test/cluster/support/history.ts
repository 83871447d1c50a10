/**
 * What a reader may see: every sector is a register, and the history of all requests says which writes its value
 * can be from.
 *
 * A write is a candidate of a sector from its beginning. It stops being one when another write of the sector,
 * begun after this one had ended, is acknowledged. A write whose connection died ends when the server serves
 * again (until then it may still land); whether it happened is not known until somebody reads. A TRIM may do
 * nothing, so it adds a candidate (zeros) and takes none away. A read that met no write in flight settles the
 * sector: every later read sees the same until it is written again.
 *
 * These are the rules for a killed process, whose acknowledged writes are all kept (DESIGN §10, 2 and 3); power
 * loss has weaker ones and is the simulator's matter.
 */
import { GARBAGE, ZEROS } from "./sector-codec.js";

export type OperationKind = "write" | "zero" | "trim";

/** An operation that changes sectors. */
export class Operation {
  readonly kind: OperationKind;
  readonly id: number;
  readonly sector: number;
  readonly count: number;
  readonly begun: number;
  /** When nothing of it can happen any more; Infinity while it can. */
  ended = Number.POSITIVE_INFINITY;
  acknowledged = false;

  constructor(kind: OperationKind, id: number, sector: number, count: number, begun: number) {
    this.kind = kind;
    this.id = id;
    this.sector = sector;
    this.count = count;
    this.begun = begun;
  }

  /** What a reader sees in its sectors. */
  get value(): number {
    return this.kind === "write" ? this.id : ZEROS;
  }

  toString(): string {
    const end = this.acknowledged
      ? `acknowledged at ${this.ended}`
      : `never acknowledged (ended ${this.ended})`;
    return `${this.kind} ${this.id} of sectors ${this.sector}+${this.count}, begun at ${this.begun}, ${end}`;
  }
}

/** A read in flight: what each sector could hold when it began. */
export class Reading {
  readonly sector: number;
  readonly begun: number;
  readonly before: readonly (readonly Operation[])[];

  constructor(sector: number, begun: number, before: readonly (readonly Operation[])[]) {
    this.sector = sector;
    this.begun = begun;
    this.before = before;
  }
}

/** Violations that are described; more are counted. */
const VIOLATIONS_DESCRIBED_MAX = 20;

export class History {
  readonly sectors: number;
  readonly violations: string[] = [];
  violationCount = 0;
  /** Sectors whose content was compared with the history. */
  checkedSectors = 0;
  #now = 1;
  #ids = 0;
  /** Candidates by sector; the arrays are never changed in place, so a reading may keep them. */
  readonly #candidates: (readonly Operation[])[];
  readonly #byId = new Map<number, Operation>();
  /** When zeros were last begun to be written. */
  readonly #zerosBegun: Float64Array;
  readonly #open = new Set<Operation>();
  readonly #touched = new Set<number>();

  constructor(sectors: number) {
    const initial = new Operation("zero", 0, 0, sectors, 0);
    initial.ended = 0;
    initial.acknowledged = true;
    this.sectors = sectors;
    this.#candidates = new Array<readonly Operation[]>(sectors).fill([initial]);
    this.#zerosBegun = new Float64Array(sectors);
  }

  begin(kind: OperationKind, sector: number, count: number): Operation {
    const operation = new Operation(kind, ++this.#ids, sector, count, this.#now++);
    this.#byId.set(operation.id, operation);
    this.#open.add(operation);
    for (let s = sector; s < sector + count; s++) {
      this.#candidates[s] = [...this.#candidates[s]!, operation];
      if (operation.value === ZEROS) this.#zerosBegun[s] = operation.begun;
      this.#touched.add(s);
    }
    return operation;
  }

  acknowledge(operation: Operation): void {
    operation.ended = this.#now++;
    operation.acknowledged = true;
    this.#open.delete(operation);
    if (operation.kind === "trim") return;
    for (let s = operation.sector; s < operation.sector + operation.count; s++) {
      this.#candidates[s] = this.#candidates[s]!.filter(
        (other) => other === operation || other.ended > operation.begun,
      );
    }
  }

  /** The server that may have executed unfinished operations is gone with all it had in flight. */
  settleUnfinished(): void {
    for (const operation of this.#open) operation.ended = this.#now;
    this.#open.clear();
    this.#now++;
  }

  beginRead(sector: number, count: number): Reading {
    return new Reading(sector, this.#now++, this.#candidates.slice(sector, sector + count));
  }

  /** Compares what was read; `values` as decodeSectors returns them. */
  endRead(reading: Reading, values: Int32Array): void {
    for (let i = 0; i < values.length; i++) this.#check(reading, i, values[i]!);
    this.checkedSectors += values.length;
    this.#now++;
  }

  /** Sectors that operations touched since the last call, in order. */
  takeTouched(): number[] {
    const touched = [...this.#touched].sort((a, b) => a - b);
    this.#touched.clear();
    return touched;
  }

  #check(reading: Reading, index: number, value: number): void {
    const sector = reading.sector + index;
    const now = this.#candidates[sector]!;
    if (value === GARBAGE || !this.#possible(reading, index, value)) {
      this.#violation(sector, value, now);
      return;
    }
    // Nothing was in flight while it was read: from now on it is this and nothing else.
    if (now.every((operation) => operation.ended < reading.begun)) {
      this.#candidates[sector] = now.filter((operation) => operation.value === value);
    }
  }

  #possible(reading: Reading, index: number, value: number): boolean {
    const sector = reading.sector + index;
    const matches = (operation: Operation): boolean => operation.value === value;
    if (this.#candidates[sector]!.some(matches) || reading.before[index]!.some(matches)) return true;
    // Begun and superseded while the read was on its way.
    if (value === ZEROS) return this.#zerosBegun[sector]! > reading.begun;
    const operation = this.#byId.get(value);
    return operation !== undefined && operation.begun > reading.begun && covers(operation, sector);
  }

  #violation(sector: number, value: number, candidates: readonly Operation[]): void {
    this.violationCount += 1;
    if (this.violations.length >= VIOLATIONS_DESCRIBED_MAX) return;
    const found =
      value === GARBAGE
        ? "garbage"
        : value === ZEROS
          ? "zeros"
          : String(this.#byId.get(value) ?? `write ${value}?`);
    const allowed = candidates.map((operation) => `\n    ${operation}`).join("");
    this.violations.push(`sector ${sector} reads as ${found}; it can only be from${allowed}`);
  }
}

function covers(operation: Operation, sector: number): boolean {
  return sector >= operation.sector && sector < operation.sector + operation.count;
}
