/**
 * Volume records: small opaque pages, each in two copies.
 *
 * Invariants
 *  1. Copy A is durable before copy B is written; `done` is called when both are. A torn page therefore
 *     always leaves the record before it.
 *  2. After an opening both copies are equal again: a copy that rots later never uncovers an older record.
 */
import { assert } from "../core/assert.js";
import { LaminaError } from "../core/errors.js";
import { type Routine, startRoutine } from "../core/routine.js";
import type { Device } from "./device.js";
import { DeviceFailure } from "./device.js";
import {
  getU64,
  PAGE_BYTES,
  PAGE_HEADER_WORDS,
  PageKind,
  putU64,
  RECORD_BYTES_MAX,
  RECORD_HEADER_BYTES,
} from "./format.js";
import { PageState } from "./metadata-io.js";
import type { SyncService } from "./sync.js";

const WORD_VOLUME = PAGE_HEADER_WORDS;
const WORD_LENGTH = PAGE_HEADER_WORDS + 2;

/** Pages read at once when loading. */
export const RECORD_CHUNK_PAGES = 64;

type Done = (error: LaminaError | null) => void;

interface Put {
  readonly volume: number;
  readonly bytes: Uint8Array | null;
  readonly done: Done;
}

export class Records {
  readonly #device: Device;
  readonly #sync: SyncService;
  readonly #memory: number;
  readonly #records = new Map<number, Uint8Array>();
  readonly #pageOf = new Map<number, number>();
  readonly #free: number[] = [];
  readonly #queue: Put[] = [];
  #running = false;
  #version = 0;

  /** `memory` is a pool buffer of one page. */
  constructor(device: Device, sync: SyncService, memory: number) {
    this.#device = device;
    this.#sync = sync;
    this.#memory = memory;
  }

  get all(): ReadonlyMap<number, Uint8Array> {
    return this.#records;
  }
  get idle(): boolean {
    return !this.#running;
  }

  /** Takes over what `loadRecords` found, and makes copies equal that are not. */
  *load(found: LoadedRecords): Routine<void> {
    for (const { page, volume, bytes, agree } of found.pages) {
      if (volume !== 0) {
        this.#records.set(volume, bytes);
        this.#pageOf.set(volume, page);
      } else {
        this.#free.push(page);
      }
      if (!agree) yield* this.#write(page, volume, bytes);
    }
    this.#free.reverse();
  }

  put(volume: number, bytes: Uint8Array | null, done: Done): void {
    assert(bytes === null || bytes.length <= RECORD_BYTES_MAX, "a volume record fits its page");
    this.#queue.push({ volume, bytes: bytes === null ? null : bytes.slice(), done });
    this.#start();
  }

  #start(): void {
    if (this.#running) return;
    this.#running = true;
    startRoutine(this.#run(), (error) => {
      this.#running = false;
      if (error !== null) this.#device.failWith(error);
      this.#device.onIdle();
    });
  }

  *#run(): Routine<void> {
    for (let put = this.#queue.shift(); put !== undefined; put = this.#queue.shift()) {
      const error = yield* this.#putOne(put);
      put.done(error);
    }
  }

  *#putOne({ volume, bytes }: Put): Routine<LaminaError | null> {
    const known = this.#pageOf.get(volume);
    if (known === undefined && bytes === null) return null;
    const page = known ?? this.#free.pop();
    if (page === undefined) return new LaminaError("VOLUMES_FULL", { limit: this.#device.layout.records });
    try {
      this.#device.check();
      yield* this.#write(page, bytes === null ? 0 : volume, bytes ?? new Uint8Array(0));
    } catch (error) {
      if (!(error instanceof DeviceFailure)) throw error;
      this.#device.fail(error.message);
      return new LaminaError("DEVICE_FAILED", { path: "the device", what: error.message });
    }
    if (bytes === null) {
      this.#records.delete(volume);
      this.#pageOf.delete(volume);
      this.#free.push(page);
    } else {
      this.#records.set(volume, bytes);
      this.#pageOf.set(volume, page);
    }
    return null;
  }

  *#write(page: number, volume: number, bytes: Uint8Array): Routine<void> {
    const { words, env, io, incarnation, layout } = this.#device;
    const at = this.#memory >>> 2;
    words.fill(0, at, at + PAGE_BYTES / 4);
    putU64(words, at + WORD_VOLUME, volume);
    words[at + WORD_LENGTH] = bytes.length;
    env.pool.bytes.set(bytes, this.#memory + RECORD_HEADER_BYTES);
    this.#version++;
    io.seal(this.#memory, PAGE_BYTES, {
      kind: PageKind.Record,
      index: page,
      incarnation,
      version: this.#version,
      position: 0,
    });
    for (const area of [layout.recordsA, layout.recordsB]) {
      yield* io.write(area + page * PAGE_BYTES, this.#memory, PAGE_BYTES);
      this.#sync.touch();
      yield* this.#sync.sync();
    }
  }
}

export interface LoadedRecords {
  readonly pages: {
    readonly page: number;
    /** 0 for an empty page. */
    readonly volume: number;
    readonly bytes: Uint8Array;
    readonly agree: boolean;
  }[];
  /** Pages of which no copy is usable. */
  readonly bad: number[];
}

/** Reads all records. `memory` is a buffer of 2 × RECORD_CHUNK_PAGES pages. */
export function* loadRecords(device: Device, memory: number): Routine<LoadedRecords> {
  const { layout, io } = device;
  const found: LoadedRecords = { pages: [], bad: [] };
  for (let first = 0; first < layout.records; first += RECORD_CHUNK_PAGES) {
    const count = Math.min(RECORD_CHUNK_PAGES, layout.records - first);
    const other = memory + RECORD_CHUNK_PAGES * PAGE_BYTES;
    const a = yield* io.read(layout.recordsA + first * PAGE_BYTES, memory, count * PAGE_BYTES);
    const b = yield* io.read(layout.recordsB + first * PAGE_BYTES, other, count * PAGE_BYTES);
    for (let i = 0; i < count; i++) {
      const at = i * PAGE_BYTES;
      takeOne(device, first + i, a < 0 ? -1 : memory + at, b < 0 ? -1 : other + at, found);
    }
  }
  return found;
}

function takeOne(device: Device, page: number, a: number, b: number, found: LoadedRecords): void {
  const { io } = device;
  const stateOf = (memory: number): PageState =>
    memory < 0 ? PageState.Unreadable : io.inspect(memory, PAGE_BYTES, PageKind.Record, page);
  const stateA = stateOf(a);
  const stateB = stateOf(b);
  const agree = stateA === stateB && (stateA === PageState.Blank || io.compareAge(a, b) === 0);
  if (stateA === PageState.Valid && stateB === PageState.Valid) {
    found.pages.push({ page, ...contentOf(device, io.compareAge(a, b) >= 0 ? a : b), agree });
  } else if (stateA === PageState.Valid || stateB === PageState.Valid) {
    found.pages.push({ page, ...contentOf(device, stateA === PageState.Valid ? a : b), agree: false });
  } else if (stateA === PageState.Blank || stateB === PageState.Blank) {
    // A torn first write: the record was never acknowledged.
    found.pages.push({ page, volume: 0, bytes: new Uint8Array(0), agree });
  } else {
    found.bad.push(page);
  }
}

function contentOf(device: Device, memory: number): { volume: number; bytes: Uint8Array } {
  const at = memory >>> 2;
  const length = Math.min(RECORD_BYTES_MAX, device.words[at + WORD_LENGTH]!);
  const from = memory + RECORD_HEADER_BYTES;
  return {
    volume: getU64(device.words, at + WORD_VOLUME),
    bytes: device.env.pool.bytes.slice(from, from + length),
  };
}
