/** Slots that were hot at the opening and have not been settled: they answer nothing, and stay hot. */
export class Unsettled {
  readonly #flags: Uint8Array;
  readonly #slots = new Set<number>();

  constructor(slots: number) {
    this.#flags = new Uint8Array(slots);
  }

  get count(): number {
    return this.#slots.size;
  }

  has(slot: number): boolean {
    return this.#flags[slot] !== 0;
  }

  add(slot: number): void {
    this.#flags[slot] = 1;
    this.#slots.add(slot);
  }

  remove(slot: number): void {
    this.#flags[slot] = 0;
    this.#slots.delete(slot);
  }

  slots(): IterableIterator<number> {
    return this.#slots.values();
  }
}
