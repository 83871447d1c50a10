/**
 * The memory between a connection thread (the asker) and the thread that owns the volumes: records of
 * requests, and two queues of record numbers.
 *
 *   asker   fills a free record ──► submissions ──► owner   carries it out, fills in the answer
 *           frees the record    ◄── completions ◄──
 *
 * Invariants
 *  1. A record belongs to the asker until its number is published in `submissions`, then to the owner until it is
 *     published in `completions`. Whoever does not own it neither reads nor writes it. Its place in `abandoned` is
 *     always the asker's, and the owner looks.
 *  2. There are as many places in a queue as records, and a number is in one place at most: no queue can be
 *     full, so neither side ever waits for room.
 *  3. A queue has one writer and one reader. The writer publishes its tail with a sequentially consistent store
 *     after it wrote the places below it; the reader takes only what lies below the tail that it loaded.
 *  4. Who falls asleep sets its flag and then looks at the tail; who publishes stores the tail and then looks at
 *     the flag. So one of the two sees the other, and nothing is left lying while its reader sleeps.
 */
import { MAP_RUNS_MAX } from "../../volume/api.js";
import { COUNTER_NUMBERS } from "../counters.js";
import { MAPS_MAX } from "../limits.js";
import { THREAD_NUMBERS } from "./numbers.js";

/**
 * Requests of one thread in the volumes, as pieces of at most 1 MiB. A power of two. At the bound further ones
 * wait in the thread, in order.
 */
export const RECORDS = 4096;
/** Volumes held open by one thread: one per connection at most. */
export const HANDLES_MAX = 2048;

/** A record: 16 words, a cache line. Offsets and lengths are doubles cut in two u32: low, high. */
export const RECORD_WORDS = 16;
export const RECORD = {
  /** VolumeOp, and VolumeFlag bits above OP_BITS. */
  opFlags: 0,
  handle: 1,
  offset: 2,
  length: 4,
  /** Pool offset; of a Map the number of the area that takes the runs. */
  memory: 6,
  /** Answer: Status, and ANSWER_ALL_HOLE. */
  status: 7,
  /**
   * Answer of a Read: `present`, or if it failed, word 8 is where in its range the bad bytes begin (−1: not
   * known). Of a Map: word 8 is the number of runs.
   */
  present: 8,
} as const;
export const OP_BITS = 8;
export const ANSWER_ALL_HOLE = 1 << 16;

/** Words that both sides look at, each in a cache line of its own. */
const LINE_WORDS = 16;
const CONTROL_WORDS = 4 * LINE_WORDS;
const CONTROL_BYTES = CONTROL_WORDS * 4;
const QUEUE_BYTES = RECORDS * 4;
/** One word per record. */
const ABANDONED_BYTES = RECORDS * 4;
const RECORDS_BYTES = RECORDS * RECORD_WORDS * 4;
/** Pairs of (length, state). */
export const MAP_AREA_NUMBERS = 2 * MAP_RUNS_MAX;
const MAPS_BYTES = MAPS_MAX * MAP_AREA_NUMBERS * 8;
const SIZES_BYTES = HANDLES_MAX * 8;
const NUMBERS_BYTES = (COUNTER_NUMBERS + THREAD_NUMBERS) * 8;

const SUBMISSIONS_AT = CONTROL_BYTES;
const COMPLETIONS_AT = SUBMISSIONS_AT + QUEUE_BYTES;
const ABANDONED_AT = COMPLETIONS_AT + QUEUE_BYTES;
const RECORDS_AT = ABANDONED_AT + ABANDONED_BYTES;
const MAPS_AT = RECORDS_AT + RECORDS_BYTES;
const SIZES_AT = MAPS_AT + MAPS_BYTES;
const NUMBERS_AT = SIZES_AT + SIZES_BYTES;

/** Bytes of the shared memory of one thread: about 0.9 MiB. */
export const CHANNEL_BYTES: number = NUMBERS_AT + NUMBERS_BYTES;

/** The same memory as both threads see it. */
export class Channel {
  readonly memory: SharedArrayBuffer;
  readonly submissions: Queue;
  readonly completions: Queue;
  readonly records: Int32Array;
  /** By record: 1 when nobody waits for its answer any more. Atomic accesses only. */
  readonly abandoned: Int32Array;
  /** Runs of Map answers, MAPS_MAX areas of MAP_AREA_NUMBERS. */
  readonly maps: Float64Array;
  /**
   * Bytes of each open volume, by handle; written by the owner. An aligned 64-bit store is one store on the
   * machines that Node runs on, so no size is ever read in halves.
   */
  readonly sizes: Float64Array;
  /** What the thread counts (Counters), written by it alone. */
  readonly counters: Float64Array;
  /** Its other numbers (numbers.ts), written by it alone. */
  readonly numbers: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    const control = new Int32Array(memory, 0, CONTROL_WORDS);
    this.submissions = new Queue(control, 0, new Int32Array(memory, SUBMISSIONS_AT, RECORDS));
    this.completions = new Queue(control, 2 * LINE_WORDS, new Int32Array(memory, COMPLETIONS_AT, RECORDS));
    this.abandoned = new Int32Array(memory, ABANDONED_AT, RECORDS);
    this.records = new Int32Array(memory, RECORDS_AT, RECORDS * RECORD_WORDS);
    this.maps = new Float64Array(memory, MAPS_AT, MAPS_MAX * MAP_AREA_NUMBERS);
    this.sizes = new Float64Array(memory, SIZES_AT, HANDLES_MAX);
    this.counters = new Float64Array(memory, NUMBERS_AT, COUNTER_NUMBERS);
    this.numbers = new Float64Array(memory, NUMBERS_AT + COUNTER_NUMBERS * 8, THREAD_NUMBERS);
  }

  static create(): Channel {
    return new Channel(new SharedArrayBuffer(CHANNEL_BYTES));
  }
}

/** Record numbers from one thread to another. Each side has an object of its own over the same memory. */
export class Queue {
  readonly #control: Int32Array;
  readonly #tailAt: number;
  readonly #asleepAt: number;
  readonly #places: Int32Array;
  /** Writer: end of what it wrote. Reader: beginning of what it has not taken. Both count modulo 2³². */
  #position = 0;

  constructor(control: Int32Array, at: number, places: Int32Array) {
    this.#control = control;
    this.#tailAt = at;
    this.#asleepAt = at + LINE_WORDS;
    this.#places = places;
  }

  // ---- The writer's side ------------------------------------------------------------------------------------

  /** Not seen by the reader before `publish`. */
  push(record: number): void {
    this.#places[this.#position & (RECORDS - 1)] = record;
    this.#position = (this.#position + 1) | 0;
  }

  /** True: the reader sleeps and must be rung. Said once per sleep. */
  publish(): boolean {
    Atomics.store(this.#control, this.#tailAt, this.#position);
    return (
      Atomics.load(this.#control, this.#asleepAt) === 1 &&
      Atomics.exchange(this.#control, this.#asleepAt, 0) === 1
    );
  }

  // ---- The reader's side ------------------------------------------------------------------------------------

  get ready(): boolean {
    return Atomics.load(this.#control, this.#tailAt) !== this.#position;
  }

  /** How many can be taken now. */
  get length(): number {
    return (Atomics.load(this.#control, this.#tailAt) - this.#position) | 0;
  }

  /** Only as often as `length` has said. */
  take(): number {
    const record = this.#places[this.#position & (RECORDS - 1)]!;
    this.#position = (this.#position + 1) | 0;
    return record;
  }

  setAsleep(asleep: boolean): void {
    Atomics.store(this.#control, this.#asleepAt, asleep ? 1 : 0);
  }
}

const TWO_32 = 2 ** 32;

/** The low and the high u32 of a double below 2⁵³; stores to an Int32Array take the low one modulo 2³². */
export function storeDouble(words: Int32Array, at: number, value: number): void {
  words[at] = value;
  words[at + 1] = value / TWO_32;
}

export function loadDouble(words: Int32Array, at: number): number {
  return (words[at]! >>> 0) + (words[at + 1]! >>> 0) * TWO_32;
}
