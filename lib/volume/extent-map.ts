/**
 * Which extents of a volume may exist: one bit each, in pages that are made when their first bit is set, so
 * that an empty 100 TiB volume costs nothing.
 *
 * Invariant: an extent that holds any byte has its bit set before the write that creates it is sent. A set
 * bit without extent is harmless (the store answers "absent"); a clear bit is answered without asking anyone.
 */
const PAGE_SHIFT = 15;
const PAGE_WORDS = 1 << (PAGE_SHIFT - 5);
const PAGE_MASK = (1 << PAGE_SHIFT) - 1;

export class ExtentMap {
  readonly #pages: (Uint32Array | undefined)[] = [];
  #count = 0;

  /** Set bits. */
  get count(): number {
    return this.#count;
  }

  has(extent: number): boolean {
    const page = this.#pages[Math.floor(extent / (1 << PAGE_SHIFT))];
    if (page === undefined) return false;
    const bit = extent & PAGE_MASK;
    return (page[bit >>> 5]! & (1 << (bit & 31))) !== 0;
  }

  add(extent: number): void {
    const number = Math.floor(extent / (1 << PAGE_SHIFT));
    let page = this.#pages[number];
    if (page === undefined) {
      page = new Uint32Array(PAGE_WORDS);
      // Keep the array dense: a sparse one turns into a dictionary.
      while (this.#pages.length < number) this.#pages.push(undefined);
      this.#pages[number] = page;
    }
    const bit = extent & PAGE_MASK;
    const word = page[bit >>> 5]!;
    const mask = 1 << (bit & 31);
    if ((word & mask) === 0) {
      page[bit >>> 5] = word | mask;
      this.#count++;
    }
  }

  delete(extent: number): void {
    const page = this.#pages[Math.floor(extent / (1 << PAGE_SHIFT))];
    if (page === undefined) return;
    const bit = extent & PAGE_MASK;
    const word = page[bit >>> 5]!;
    const mask = 1 << (bit & 31);
    if ((word & mask) !== 0) {
      page[bit >>> 5] = word & ~mask;
      this.#count--;
    }
  }

  /** The first set extent at or behind `from`, or Infinity. */
  next(from: number): number {
    let number = Math.floor(from / (1 << PAGE_SHIFT));
    let bit = from & PAGE_MASK;
    for (; number < this.#pages.length; number++, bit = 0) {
      const page = this.#pages[number];
      if (page === undefined) continue;
      let index = bit >>> 5;
      let word = page[index]! & (-1 << (bit & 31));
      for (;;) {
        if (word !== 0) {
          const lowest = 31 - Math.clz32(word & -word);
          return number * (1 << PAGE_SHIFT) + index * 32 + lowest;
        }
        index++;
        if (index === PAGE_WORDS) break;
        word = page[index]!;
      }
    }
    return Number.POSITIVE_INFINITY;
  }
}
