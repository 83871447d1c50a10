/**
 * What lies on a simulated device: of each page what reads see, what is durable, and the versions in between.
 *
 * Invariant: whoever keeps the number of a content holds it (arena.ts), each of the three by itself.
 */
import { BLOCK_BYTES, BLOCK_SHIFT } from "../../lib/core/limits.js";
import { type Arena, ZERO_PAGE } from "./arena.js";
import { ALL_SECTORS, type KeepRule } from "./device-losses.js";
import { simMemory } from "./memory.js";

export const SECTOR_BYTES = 512;
const SECTORS_PER_PAGE = BLOCK_BYTES / SECTOR_BYTES;
const VERSIONS_FIRST = 1024;

export interface DeviceImage {
  readonly pages: Int32Array;
}

export class DevicePages {
  readonly count: number;
  /** By page, the content that reads see, and the one that a power loss leaves. */
  readonly current: Int32Array;
  readonly durable: Int32Array;
  /** Offsets below this are provisioned: their pages do not count as used. */
  provisionedBelow = 0;
  usedPages = 0;
  readonly #arena: Arena;

  // Versions that are not durable yet, in the order in which they landed.
  #versionPage = new Int32Array(VERSIONS_FIRST);
  #versionContent = new Int32Array(VERSIONS_FIRST);
  #versionMask = new Uint8Array(VERSIONS_FIRST);
  #versionCount = 0;
  /** Number of the version at index 0. */
  #versionBase = 0;

  constructor(arena: Arena, sizeBytes: number) {
    this.#arena = arena;
    this.count = sizeBytes >>> BLOCK_SHIFT;
    this.current = new Int32Array(this.count);
    this.durable = new Int32Array(this.count);
  }

  /** Number of the version that lands next. */
  get nextVersion(): number {
    return this.#versionBase + this.#versionCount;
  }

  /** Offset in the simulation memory of what a read of `page` would show now. */
  offsetOf(page: number): number {
    return this.#arena.offsetOf(this.current[page]!);
  }

  isZeros(page: number): boolean {
    return this.current[page] === ZERO_PAGE;
  }

  /** What reads see is durable. */
  isDurable(page: number): boolean {
    return this.current[page] === this.durable[page];
  }

  /** Makes the versions below `bound` durable, of which `isKept`; the others stay what reads see. */
  sync(bound: number, isKept: () => boolean): void {
    const covered = Math.max(0, Math.min(this.#versionCount, bound - this.#versionBase));
    for (let i = 0; i < covered; i++) {
      if (isKept()) this.#makeDurable(this.#versionPage[i]!, this.#versionContent[i]!, this.#versionMask[i]!);
      this.#arena.drop(this.#versionContent[i]!);
    }
    this.#versionPage.copyWithin(0, covered, this.#versionCount);
    this.#versionContent.copyWithin(0, covered, this.#versionCount);
    this.#versionMask.copyWithin(0, covered, this.#versionCount);
    this.#versionCount -= covered;
    this.#versionBase += covered;
  }

  /** The power fails: of every version that is not durable what `keep` says is kept. Returns how many there were. */
  losePower(keep: KeepRule): number {
    const count = this.#versionCount;
    for (let i = 0; i < count; i++) {
      const mask = this.#versionMask[i]! & keep(i, count);
      if (mask !== 0) this.#makeDurable(this.#versionPage[i]!, this.#versionContent[i]!, mask);
    }
    this.#forgetVersions();
    for (let page = 0; page < this.count; page++) {
      if (this.isDurable(page)) continue;
      this.#arena.hold(this.durable[page]!);
      this.#setCurrent(page, this.durable[page]!);
    }
    return count;
  }

  /** What reads see now, to be put back later, or elsewhere. It holds the pages until the run is over. */
  image(): DeviceImage {
    const pages = this.current.slice();
    for (const page of pages) this.#arena.hold(page);
    return { pages };
  }

  /** Another content, all of it durable. */
  restore({ pages }: DeviceImage): void {
    this.#forgetVersions();
    for (let page = 0; page < this.count; page++) this.#settle(page, pages[page]!);
  }

  /** Changes one bit of a page that is at rest, for good. */
  flip(page: number, bit: number): void {
    const content = this.#arena.take();
    const at = this.#arena.offsetOf(content);
    const { bytes } = simMemory();
    const from = this.offsetOf(page);
    bytes.copyWithin(at, from, from + BLOCK_BYTES);
    bytes[at + (bit >> 3)]! ^= 1 << (bit & 7);
    this.#settle(page, content);
    this.#arena.drop(content);
  }

  /** Returns what puts back, once, what the page holds now. */
  keep(page: number): () => void {
    const content = this.current[page]!;
    this.#arena.hold(content);
    return () => {
      this.#settle(page, content);
      this.#arena.drop(content);
    };
  }

  /** Durable and seen by reads. */
  #settle(page: number, content: number): void {
    this.#arena.hold(content);
    this.#setCurrent(page, content);
    this.#arena.hold(content);
    this.#setDurable(page, content);
  }

  #forgetVersions(): void {
    for (let i = 0; i < this.#versionCount; i++) this.#arena.drop(this.#versionContent[i]!);
    this.#versionBase += this.#versionCount;
    this.#versionCount = 0;
  }

  /**
   * Changes the bytes from … to − 1 (inside `page`) to those at `source` of the memory, or to zeros when that
   * is −1, but only in the sectors of `keep`.
   */
  land(page: number, from: number, to: number, source: number, keep: number): void {
    const start = page * BLOCK_BYTES;
    const mask = sectorMask(from - start, to - start) & keep;
    if (mask === 0) return;
    const content = this.#newContent(page, from - start, to - start, source, mask);
    this.#addVersion(page, content, mask);
    this.#arena.hold(content);
    this.#setCurrent(page, content);
  }

  #newContent(page: number, from: number, to: number, source: number, mask: number): number {
    const whole = from === 0 && to === BLOCK_BYTES && mask === ALL_SECTORS;
    if (whole && source < 0) return ZERO_PAGE;
    const content = this.#arena.take();
    const { bytes } = simMemory();
    const target = this.#arena.offsetOf(content);
    if (whole) {
      bytes.copyWithin(target, source, source + BLOCK_BYTES);
      return content;
    }
    const before = this.#arena.offsetOf(this.current[page]!);
    bytes.copyWithin(target, before, before + BLOCK_BYTES);
    for (let sector = 0; sector < SECTORS_PER_PAGE; sector++) {
      if ((mask & (1 << sector)) === 0) continue;
      const begin = Math.max(from, sector * SECTOR_BYTES);
      const end = Math.min(to, (sector + 1) * SECTOR_BYTES);
      if (source < 0) bytes.fill(0, target + begin, target + end);
      else bytes.copyWithin(target + begin, source + (begin - from), source + (end - from));
    }
    return content;
  }

  #addVersion(page: number, content: number, mask: number): void {
    if (this.#versionCount === this.#versionPage.length) this.#growVersions();
    const index = this.#versionCount++;
    this.#versionPage[index] = page;
    this.#versionContent[index] = content;
    this.#versionMask[index] = mask;
  }

  #growVersions(): void {
    const wanted = this.#versionPage.length * 2;
    const page = new Int32Array(wanted);
    const content = new Int32Array(wanted);
    const mask = new Uint8Array(wanted);
    page.set(this.#versionPage);
    content.set(this.#versionContent);
    mask.set(this.#versionMask);
    this.#versionPage = page;
    this.#versionContent = content;
    this.#versionMask = mask;
  }

  #makeDurable(page: number, content: number, mask: number): void {
    if (mask === ALL_SECTORS) {
      this.#arena.hold(content);
      this.#setDurable(page, content);
      return;
    }
    const merged = this.#arena.take();
    const { bytes } = simMemory();
    const target = this.#arena.offsetOf(merged);
    const before = this.#arena.offsetOf(this.durable[page]!);
    const after = this.#arena.offsetOf(content);
    bytes.copyWithin(target, before, before + BLOCK_BYTES);
    for (let sector = 0; sector < SECTORS_PER_PAGE; sector++) {
      if ((mask & (1 << sector)) === 0) continue;
      const at = sector * SECTOR_BYTES;
      bytes.copyWithin(target + at, after + at, after + at + SECTOR_BYTES);
    }
    this.#setDurable(page, merged);
  }

  /** Takes over the caller's hold on `content`. */
  #setCurrent(page: number, content: number): void {
    const before = this.current[page]!;
    if (page * BLOCK_BYTES >= this.provisionedBelow) {
      this.usedPages += (content === ZERO_PAGE ? 0 : 1) - (before === ZERO_PAGE ? 0 : 1);
    }
    this.#arena.drop(before);
    this.current[page] = content;
  }

  /** Takes over the caller's hold on `content`. */
  #setDurable(page: number, content: number): void {
    this.#arena.drop(this.durable[page]!);
    this.durable[page] = content;
  }
}

function sectorMask(from: number, to: number): number {
  const first = Math.floor(from / SECTOR_BYTES);
  const last = Math.floor((to - 1) / SECTOR_BYTES);
  return ((1 << (last + 1)) - 1) & ~((1 << first) - 1);
}
