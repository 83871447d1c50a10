/**
 * Hot bits: a slot whose bit is set may differ from its stored checksums or from other copies.
 *
 * Invariants
 *  1. `isHot(slot)` means that the bit is durable. It is, before any record about the slot's blocks is
 *     appended and before any of its bytes change (invariant 19).
 *  2. A slot counts as cool from the moment its clear is asked for; making it hot again waits for a write of
 *     its page that begins afterwards.
 *  3. At most one write is in flight per page, and the two copies are never in flight together. Reading ORs
 *     them, so a torn copy or one of two ages can only name too many slots.
 *  4. A bit that was asked for becomes durable, whatever becomes of its slot meanwhile: only what is hot is cleared. So
 *     who needs a slot hot may ask for it when somebody else has, and `drain`.
 */
import { type Routine, startRoutine } from "../core/routine.js";
import type { Device } from "./device.js";
import { HOT_BITS_PER_PAGE, type Layout, PAGE_BYTES, PAGE_HEADER_WORDS, PageKind } from "./format.js";
import type { PageWrite } from "./metadata-io.js";
import type { SyncService } from "./sync.js";

const COOL = 0;
/** Waits for the next round. */
const QUEUED = 1;
/** Its bit is being written. */
const SETTING = 2;
const HOT = 3;

/** Pages of one round, and of its buffer. */
export const HOT_ROUND_PAGES = 16;

/** Told which slots have become durably hot. */
export interface HotListener {
  slotIsHot(slot: number): void;
}

export class HotBits {
  readonly #device: Device;
  readonly #layout: Layout;
  readonly #sync: SyncService;
  readonly #listener: HotListener;
  readonly #buffer: number;
  readonly #state: Uint8Array;
  /** What the disk should say: one bit per slot. */
  readonly #wanted: Uint32Array;
  readonly #dirtyPages: Uint8Array;
  readonly #versions: Float64Array;
  #setting: number[] = [];
  #queued: number[] = [];
  #running = false;
  #lazy = false;
  #hot = 0;
  #drained: ((result: number) => void)[] = [];

  /** `buffer` is a pool buffer of HOT_ROUND_PAGES pages. */
  constructor(device: Device, sync: SyncService, listener: HotListener, buffer: number) {
    this.#device = device;
    this.#layout = device.layout;
    this.#sync = sync;
    this.#listener = listener;
    this.#buffer = buffer;
    this.#state = new Uint8Array(this.#layout.slots);
    this.#wanted = new Uint32Array(Math.ceil(this.#layout.slots / 32));
    this.#dirtyPages = new Uint8Array(this.#layout.hotPages);
    this.#versions = new Float64Array(this.#layout.hotPages);
  }

  static pageOf(slot: number): number {
    return Math.floor(slot / HOT_BITS_PER_PAGE);
  }

  get count(): number {
    return this.#hot;
  }
  get running(): boolean {
    return this.#running;
  }

  isHot(slot: number): boolean {
    return this.#state[slot] === HOT;
  }

  isCool(slot: number): boolean {
    return this.#state[slot] === COOL;
  }

  /** At open: the disk says that the slot is hot. */
  loaded(slot: number): void {
    if (this.#state[slot] === HOT) return;
    this.#state[slot] = HOT;
    this.#wanted[slot >>> 5]! |= 1 << (slot & 31);
    this.#hot++;
  }

  /** At open: version of a page's newer copy. */
  loadedPage(page: number, version: number): void {
    this.#versions[page] = version;
  }

  /**
   * At open, when the copies of a page differ: both get what the two say together, the stale one first. A round
   * begins with copy A; were it torn while B is old, a bit that only A had would be gone.
   */
  *mendPage(page: number, staleB: boolean): Routine<void> {
    const { hotA, hotB } = this.#layout;
    this.#encode(page, this.#buffer);
    for (const area of staleB ? [hotB, hotA] : [hotA, hotB]) yield* this.#writeCopy(area, [page]);
  }

  /** The listener is told once the slot is durably hot. Asking again while that goes on is harmless. */
  request(slot: number): void {
    if (this.#state[slot] !== COOL) return;
    this.#state[slot] = QUEUED;
    this.#wanted[slot >>> 5]! |= 1 << (slot & 31);
    this.#dirtyPages[HotBits.pageOf(slot)] = 1;
    this.#queued.push(slot);
    this.#start();
  }

  /** The slot is cool from now on; the bit goes with the next write of its page. */
  clear(slot: number): void {
    if (this.#state[slot] !== HOT) return;
    this.#state[slot] = COOL;
    this.#wanted[slot >>> 5]! &= ~(1 << (slot & 31));
    this.#dirtyPages[HotBits.pageOf(slot)] = 1;
    this.#hot--;
    this.#lazy = true;
  }

  /** Writes what was cleared. Called at leisure. */
  flushClears(): void {
    if (this.#lazy) this.#start();
  }

  /** Everything that was asked for is durable afterwards. */
  *drain(): Routine<void> {
    this.#start();
    if (this.#running) yield (resume) => this.#drained.push(resume);
    this.#device.check();
  }

  /** Visits every slot that is durably hot. */
  forEachHot(visit: (slot: number) => void): void {
    for (let word = 0; word < this.#wanted.length; word++) {
      let bits = this.#wanted[word]!;
      while (bits !== 0) {
        const slot = word * 32 + (31 - Math.clz32(bits & -bits));
        bits &= bits - 1;
        if (this.#state[slot] === HOT) visit(slot);
      }
    }
  }

  #start(): void {
    if (this.#running || this.#device.failed !== null) return;
    this.#running = true;
    startRoutine(this.#rounds(), (error) => {
      this.#running = false;
      if (error !== null) this.#device.failWith(error);
      const drained = this.#drained;
      this.#drained = [];
      for (const resume of drained) resume(0);
      this.#device.onIdle();
    });
  }

  *#rounds(): Routine<void> {
    // The rest of this batch of events may ask for more slots: they join the first round.
    yield* endOfBatch(this.#device);
    for (;;) {
      const pages = this.#takeDirty();
      if (pages.length === 0) return;
      this.#setting = this.#queued.filter((slot) => pages.includes(HotBits.pageOf(slot)));
      this.#queued = this.#queued.filter((slot) => !pages.includes(HotBits.pageOf(slot)));
      for (const slot of this.#setting) this.#state[slot] = SETTING;
      for (let i = 0; i < pages.length; i++) this.#encode(pages[i]!, this.#buffer + i * PAGE_BYTES);
      yield* this.#writeCopy(this.#layout.hotA, pages);
      this.#announce();
      yield* this.#writeCopy(this.#layout.hotB, pages);
    }
  }

  *#writeCopy(area: number, pages: readonly number[]): Routine<void> {
    const writes: PageWrite[] = pages.map((page, i) => ({
      offset: area + page * PAGE_BYTES,
      memory: this.#buffer + i * PAGE_BYTES,
      length: PAGE_BYTES,
    }));
    yield* this.#device.io.writeAll(writes);
    yield* this.#sync.sync();
  }

  #takeDirty(): number[] {
    const pages: number[] = [];
    for (let page = 0; page < this.#dirtyPages.length && pages.length < HOT_ROUND_PAGES; page++) {
      if (this.#dirtyPages[page] === 0) continue;
      this.#dirtyPages[page] = 0;
      pages.push(page);
    }
    if (pages.length < HOT_ROUND_PAGES) this.#lazy = false;
    return pages;
  }

  #encode(page: number, memory: number): void {
    const words = this.#device.words;
    const at = memory >>> 2;
    const first = (page * HOT_BITS_PER_PAGE) >>> 5;
    const last = Math.min(this.#wanted.length, first + HOT_BITS_PER_PAGE / 32);
    words.fill(0, at, at + PAGE_BYTES / 4);
    for (let word = first; word < last; word++)
      words[at + PAGE_HEADER_WORDS + word - first] = this.#wanted[word]!;
    this.#versions[page]!++;
    this.#device.io.seal(memory, PAGE_BYTES, {
      kind: PageKind.Hot,
      index: page,
      incarnation: this.#device.incarnation,
      version: this.#versions[page]!,
      position: 0,
    });
  }

  #announce(): void {
    const slots = this.#setting;
    this.#setting = [];
    for (const slot of slots) {
      this.#state[slot] = HOT;
      this.#hot++;
      this.#listener.slotIsHot(slot);
    }
  }
}

/** Goes on at the end of the current batch of events. */
export function* endOfBatch(device: Device): Routine<void> {
  yield (resume) => device.env.ticker.atTickEnd({ tick: () => resume(0) });
  device.check();
}
