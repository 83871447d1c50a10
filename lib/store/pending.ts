/**
 * What recovery found in the log about blocks of hot slots: entries that their bytes may have. Kept as
 * columns, newest first per slot, until the slot is settled.
 */
const NONE = -1;

interface SlotPending {
  head: number;
  /** Sequence of the oldest: holds the log. */
  oldest: number;
}

/** Called with each candidate of a slot, newest first. */
export type CandidateVisitor = (sequence: number, block: number, entry: number) => void;

export class PendingDeltas {
  #block = new Uint16Array(1024);
  #entry = new Uint32Array(1024);
  #sequence = new Float64Array(1024);
  #older = new Int32Array(1024);
  #count = 0;
  readonly #slots = new Map<number, SlotPending>();

  add(sequence: number, slot: number, block: number, entry: number): void {
    if (this.#count === this.#block.length) this.#grow();
    const at = this.#count++;
    const pending = this.#slots.get(slot);
    this.#block[at] = block;
    this.#entry[at] = entry;
    this.#sequence[at] = sequence;
    this.#older[at] = pending?.head ?? NONE;
    if (pending === undefined) this.#slots.set(slot, { head: at, oldest: sequence });
    else pending.head = at;
  }

  forget(slot: number): void {
    this.#slots.delete(slot);
    if (this.#slots.size === 0) this.#count = 0;
  }

  has(slot: number): boolean {
    return this.#slots.has(slot);
  }

  slots(): IterableIterator<number> {
    return this.#slots.keys();
  }

  /** Oldest record about the slot; `otherwise` when there is none. */
  oldest(slot: number, otherwise: number): number {
    return this.#slots.get(slot)?.oldest ?? otherwise;
  }

  visit(slot: number, from: number, visitor: CandidateVisitor): void {
    for (let at = this.#slots.get(slot)?.head ?? NONE; at !== NONE; at = this.#older[at]!) {
      if (this.#sequence[at]! < from) return;
      visitor(this.#sequence[at]!, this.#block[at]!, this.#entry[at]!);
    }
  }

  #grow(): void {
    const size = this.#block.length * 2;
    this.#block = grown(this.#block, new Uint16Array(size));
    this.#entry = grown(this.#entry, new Uint32Array(size));
    this.#sequence = grown(this.#sequence, new Float64Array(size));
    this.#older = grown(this.#older, new Int32Array(size));
  }
}

function grown<T extends { set(from: T): void }>(from: T, to: T): T {
  to.set(from);
  return to;
}
