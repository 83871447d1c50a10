/**
 * The slot directory: which extent each slot holds. All of it is in memory, as columns; about 80 bytes per
 * slot with everything that the store keeps per slot.
 *
 * Invariants
 *  1. A slot belongs to at most one live extent (invariant 17): the index refuses a second.
 *  2. The columns change in the moment when the record that says so is staged. A page is written only after
 *     the log is synced up to every record that it reflects; until both copies are durable, `dirtySince`
 *     holds the log.
 */
import { assert } from "../core/assert.js";
import { ExtentIndex } from "./extent-index.js";
import {
  DIRECTORY_ENTRIES_PER_PAGE,
  DIRECTORY_ENTRY_BYTES,
  getU64,
  type Layout,
  PAGE_BYTES,
  putU64,
} from "./format.js";
import type { ExtentIdentity } from "./log-records.js";

export const SlotState = {
  /** Belongs to nobody; its bytes are durably zero. */
  Free: 0,
  /** Holds an extent. */
  Live: 1,
  /** Belongs to nobody; its bytes still have to become zeros. */
  Freeing: 2,
} as const;
export type SlotState = (typeof SlotState)[keyof typeof SlotState];

/** `dirtySince` of a page that both copies reflect. */
export const CLEAN = Number.POSITIVE_INFINITY;

const ENTRY_WORDS = DIRECTORY_ENTRY_BYTES / 4;
const E_STATE = 0;
const E_LAYER = 1;
const E_VOLUME = 2;
const E_EXTENT = 4;
const E_ALLOC = 6;
const E_GENERATION = 8;
const E_CREATED = 10;

export class Directory {
  readonly slots: number;
  readonly state: Uint8Array;
  readonly volume: Float64Array;
  readonly layer: Uint32Array;
  readonly extent: Uint32Array;
  /** Sequence of the ALLOC that gave the slot to its extent; names this life of the slot. */
  readonly alloc: Float64Array;
  readonly generation: Float64Array;
  readonly created: Float64Array;
  readonly index: ExtentIndex;
  /** Per page: first record that its durable copies do not both reflect. */
  readonly dirtySince: Float64Array;
  readonly pageVersion: Float64Array;
  readonly #perVolume = new Map<number, number>();
  liveSlots = 0;
  freeSlots: number;

  constructor(layout: Layout) {
    const { slots } = layout;
    this.slots = slots;
    this.state = new Uint8Array(slots);
    this.volume = new Float64Array(slots);
    this.layer = new Uint32Array(slots);
    this.extent = new Uint32Array(slots);
    this.alloc = new Float64Array(slots);
    this.generation = new Float64Array(slots);
    this.created = new Float64Array(slots);
    this.index = new ExtentIndex(this, slots);
    this.dirtySince = new Float64Array(layout.directoryPages).fill(CLEAN);
    this.pageVersion = new Float64Array(layout.directoryPages);
    this.freeSlots = slots;
  }

  static pageOf(slot: number): number {
    return Math.floor(slot / DIRECTORY_ENTRIES_PER_PAGE);
  }

  /** ALLOC with this sequence was staged. */
  allocate(slot: number, sequence: number, identity: ExtentIdentity): void {
    assert(this.state[slot] === SlotState.Free, "only a free slot is allocated");
    this.freeSlots--;
    this.replayAlloc(slot, sequence, identity);
    this.#enter(slot);
  }

  /** FREE with this sequence was staged. */
  free(slot: number, sequence: number): void {
    assert(this.state[slot] === SlotState.Live, "only a live slot is freed");
    this.#leave(slot);
    this.replayFree(slot, sequence);
  }

  /** FREED with this sequence was staged. */
  freed(slot: number, sequence: number): void {
    assert(this.state[slot] === SlotState.Freeing, "only a slot being freed becomes free");
    this.freeSlots++;
    this.replayFreed(slot, sequence);
  }

  stamp(slot: number, sequence: number, generation: number): void {
    this.generation[slot] = generation;
    this.#dirty(slot, sequence);
  }

  slotsOf(volume: number): number {
    return this.#perVolume.get(volume) ?? 0;
  }

  volumes(): number[] {
    return [...this.#perVolume.keys()];
  }

  /** Entries of the page at word `at`; the header is sealed by the caller. */
  encodePage(page: number, words: Uint32Array, at: number): void {
    words.fill(0, at, at + PAGE_BYTES / 4);
    const first = page * DIRECTORY_ENTRIES_PER_PAGE;
    const last = Math.min(this.slots, first + DIRECTORY_ENTRIES_PER_PAGE);
    for (let slot = first; slot < last; slot++) {
      const to = at + (slot - first + 1) * ENTRY_WORDS;
      words[to + E_STATE] = this.state[slot]!;
      words[to + E_LAYER] = this.layer[slot]!;
      putU64(words, to + E_VOLUME, this.volume[slot]!);
      words[to + E_EXTENT] = this.extent[slot]!;
      putU64(words, to + E_ALLOC, this.alloc[slot]!);
      putU64(words, to + E_GENERATION, this.generation[slot]!);
      putU64(words, to + E_CREATED, this.created[slot]!);
    }
  }

  /** Takes over the columns of a page at open; `finishLoading` follows when the log is replayed. */
  decodePage(page: number, words: Uint32Array, at: number): boolean {
    const first = page * DIRECTORY_ENTRIES_PER_PAGE;
    const last = Math.min(this.slots, first + DIRECTORY_ENTRIES_PER_PAGE);
    for (let slot = first; slot < last; slot++) {
      const from = at + (slot - first + 1) * ENTRY_WORDS;
      const state = words[from + E_STATE]!;
      if (state > SlotState.Freeing) return false;
      this.state[slot] = state;
      this.layer[slot] = words[from + E_LAYER]!;
      this.volume[slot] = getU64(words, from + E_VOLUME);
      this.extent[slot] = words[from + E_EXTENT]!;
      this.alloc[slot] = getU64(words, from + E_ALLOC);
      this.generation[slot] = getU64(words, from + E_GENERATION);
      this.created[slot] = getU64(words, from + E_CREATED);
    }
    return true;
  }

  /**
   * Replays of the log change the columns only: pages of different age may for a while name one extent twice.
   */
  replayAlloc(slot: number, sequence: number, identity: ExtentIdentity): void {
    this.state[slot] = SlotState.Live;
    this.volume[slot] = identity.volume;
    this.layer[slot] = identity.layer;
    this.extent[slot] = identity.extent;
    this.generation[slot] = identity.generation;
    this.created[slot] = identity.created;
    this.alloc[slot] = sequence;
    this.#dirty(slot, sequence);
  }

  replayFree(slot: number, sequence: number): void {
    this.state[slot] = SlotState.Freeing;
    this.#dirty(slot, sequence);
  }

  replayFreed(slot: number, sequence: number): void {
    this.state[slot] = SlotState.Free;
    this.#dirty(slot, sequence);
  }

  /** Builds index and counts. Returns slots whose extent another slot holds too: none on a sound device. */
  finishLoading(): number[] {
    const doubles: number[] = [];
    // Neighbours mostly belong to one volume: counted in runs.
    let volume = -1;
    let run = 0;
    for (let slot = 0; slot < this.slots; slot++) {
      if (this.state[slot] !== SlotState.Free) this.freeSlots--;
      if (this.state[slot] !== SlotState.Live) continue;
      if (!this.index.addIfNew(slot)) {
        doubles.push(slot);
        continue;
      }
      if (this.volume[slot] !== volume) {
        this.#countSlots(volume, run);
        volume = this.volume[slot]!;
        run = 0;
      }
      run++;
    }
    this.#countSlots(volume, run);
    return doubles;
  }

  /** `change` more live slots of the volume. */
  #countSlots(volume: number, change: number): void {
    if (change === 0) return;
    const count = this.slotsOf(volume) + change;
    if (count === 0) this.#perVolume.delete(volume);
    else this.#perVolume.set(volume, count);
    this.liveSlots += change;
  }

  #enter(slot: number): void {
    this.#countSlots(this.volume[slot]!, 1);
    this.index.add(slot);
  }

  #leave(slot: number): void {
    this.#countSlots(this.volume[slot]!, -1);
    this.index.remove(slot);
  }

  #dirty(slot: number, sequence: number): void {
    const page = Directory.pageOf(slot);
    if (sequence < this.dirtySince[page]!) this.dirtySince[page] = sequence;
  }
}
