/**
 * Volumes as a connection thread sees them: requests go to the owner as records of the channel, answers come
 * back the same way. Payloads do not move: both threads see the pool at the same offsets.
 *
 * Invariants
 *  1. Requests are handed over in the order of their submission, also those that had to wait for a record. So
 *     overlapping requests of one thread are executed in that order, whichever connections they came on.
 *  2. What was submitted in one batch is published once, at its end.
 *  3. What an asker has abandoned is not handed over any more, and the owner can see it of what was.
 *  4. An asker is told of an answer from `take` only, never from inside `submit`.
 */
import { assert } from "../../core/assert.js";
import type { Ticker, TickTask } from "../../core/clock.js";
import { BLOCK_BYTES } from "../../core/limits.js";
import { Status } from "../../core/status.js";
import type { Mailbox } from "../../uring/api.js";
import { type Volume, type VolumeListener, VolumeOp, type VolumeRequest } from "../../volume/api.js";
import { MAPS_MAX } from "../limits.js";
import {
  ANSWER_ALL_HOLE,
  type Channel,
  HANDLES_MAX,
  MAP_AREA_NUMBERS,
  OP_BITS,
  RECORD,
  RECORD_WORDS,
  RECORDS,
  storeDouble,
} from "./channel.js";

/** What does not change about an open volume. */
export interface VolumeFacts {
  readonly handle: number;
  readonly id: number;
  readonly preferredBytes: number;
}

/** What changes rarely, and by messages; the owner looks at its own truth before it does anything. */
export interface VolumeNow {
  readonly name: string;
  readonly readOnly: boolean;
}

export class RemoteVolume implements Volume {
  readonly handle: number;
  readonly id: number;
  readonly preferredBytes: number;
  readonly #owner: RemoteVolumes;
  now: VolumeNow;

  constructor(owner: RemoteVolumes, facts: VolumeFacts, now: VolumeNow) {
    this.#owner = owner;
    this.handle = facts.handle;
    this.id = facts.id;
    this.preferredBytes = facts.preferredBytes;
    this.now = now;
  }

  get name(): string {
    return this.now.name;
  }

  get readOnly(): boolean {
    return this.now.readOnly;
  }

  /** Read where the owner writes it: growing is seen at once. */
  get sizeBytes(): number {
    return this.#owner.sizeOf(this.handle);
  }

  submit(request: VolumeRequest): void {
    this.#owner.submit(this, request);
  }

  abandon(listener: VolumeListener): void {
    this.#owner.abandon(listener);
  }
}

export interface RemoteEnvironment {
  readonly channel: Channel;
  readonly ticker: Ticker;
  /** The owner sleeps and has something to do. */
  readonly ringOwner: () => void;
  /** This thread is about to sleep. */
  readonly beforeSleep: () => void;
}

export class RemoteVolumes implements Mailbox, TickTask {
  readonly #channel: Channel;
  readonly #ticker: Ticker;
  readonly #ringOwner: () => void;
  readonly #beforeSleep: () => void;
  /** By record: the request that it carries. */
  readonly #requests: (VolumeRequest | null)[] = new Array<null>(RECORDS).fill(null);
  /** Stack of free records, the first `#freeCount` of it. */
  readonly #free = Uint16Array.from({ length: RECORDS }, (_, i) => RECORDS - 1 - i);
  #freeCount = RECORDS;
  /** Requests without a record, in order, and the volumes they are for; those before `#waitingAt` have got one. */
  #waiting: VolumeRequest[] = [];
  #waitingFor: RemoteVolume[] = [];
  #waitingAt = 0;
  readonly #freeMaps = Array.from({ length: MAPS_MAX }, (_, i) => i);
  #tickAsked = false;

  constructor(environment: RemoteEnvironment) {
    this.#channel = environment.channel;
    this.#ticker = environment.ticker;
    this.#ringOwner = environment.ringOwner;
    this.#beforeSleep = environment.beforeSleep;
  }

  /** Requests not yet answered. */
  get inFlight(): number {
    return RECORDS - this.#freeCount + this.#waiting.length - this.#waitingAt;
  }

  sizeOf(handle: number): number {
    return this.#channel.sizes[handle]!;
  }

  submit(volume: RemoteVolume, request: VolumeRequest): void {
    if (this.#freeCount > 0 && this.#waiting.length === 0) {
      this.#hand(volume, request);
    } else {
      this.#waiting.push(request);
      this.#waitingFor.push(volume);
    }
  }

  /** The owner is not told: it looks before it begins another part of a request. */
  abandon(listener: VolumeListener): void {
    for (let record = 0; record < RECORDS; record++) {
      if (this.#requests[record]?.listener === listener) Atomics.store(this.#channel.abandoned, record, 1);
    }
  }

  /** What has been submitted in this batch becomes visible to the owner. */
  tick(): void {
    this.#tickAsked = false;
    if (this.#channel.submissions.publish()) this.#ringOwner();
  }

  #hand(volume: RemoteVolume, request: VolumeRequest): void {
    this.#freeCount--;
    const record = this.#free[this.#freeCount]!;
    this.#requests[record] = request;
    const { abandoned, records } = this.#channel;
    // Rarely needed, and a load is cheaper than a store.
    if (Atomics.load(abandoned, record) !== 0) Atomics.store(abandoned, record, 0);
    const at = record * RECORD_WORDS;
    records[at + RECORD.opFlags] = request.op | (request.flags << OP_BITS);
    records[at + RECORD.handle] = volume.handle;
    storeDouble(records, at + RECORD.offset, request.offset);
    storeDouble(records, at + RECORD.length, request.length);
    records[at + RECORD.memory] = request.op === VolumeOp.Map ? this.#takeMap() : request.memory;
    this.#channel.submissions.push(record);
    if (this.#tickAsked) return;
    this.#tickAsked = true;
    this.#ticker.atTickEnd(this);
  }

  #takeMap(): number {
    const area = this.#freeMaps.pop();
    assert(area !== undefined, "no more maps are asked for than there are areas");
    return area;
  }

  // ---- Answers ----------------------------------------------------------------------------------------------

  get ready(): boolean {
    return this.#channel.completions.ready;
  }

  take(): void {
    const { completions } = this.#channel;
    for (let left = completions.length; left > 0; left--) this.#complete(completions.take());
    this.#handWaiting();
  }

  setAsleep(asleep: boolean): void {
    if (asleep) this.#beforeSleep();
    this.#channel.completions.setAsleep(asleep);
  }

  #complete(record: number): void {
    const request = this.#requests[record]!;
    this.#requests[record] = null;
    const { records } = this.#channel;
    const at = record * RECORD_WORDS;
    const answer = records[at + RECORD.status]!;
    request.status = (answer & (ANSWER_ALL_HOLE - 1)) as Status;
    request.allHole = (answer & ANSWER_ALL_HOLE) !== 0;
    if (request.op === VolumeOp.Read && request.status !== Status.Ok) {
      const into = records[at + RECORD.present]!;
      request.badOffset = into < 0 ? -1 : request.offset + into;
    } else if (request.op === VolumeOp.Read) {
      const words = presentWords(request);
      for (let i = 0; i < words; i++) request.present[i] = records[at + RECORD.present + i]!;
    } else if (request.op === VolumeOp.Map) {
      this.#takeRuns(request, records[at + RECORD.memory]!, records[at + RECORD.present]!);
    }
    this.#free[this.#freeCount++] = record;
    request.listener.volumeDone(request);
  }

  /** A copy: the area is free again before the asker, who may ask for the next map at once, is told. */
  #takeRuns(request: VolumeRequest, area: number, count: number): void {
    const begin = area * MAP_AREA_NUMBERS;
    request.runs = this.#channel.maps.slice(begin, begin + 2 * count);
    request.runCount = count;
    this.#freeMaps.push(area);
  }

  #handWaiting(): void {
    if (this.#waiting.length === 0) return;
    while (this.#freeCount > 0 && this.#waitingAt < this.#waiting.length) {
      const at = this.#waitingAt++;
      const request = this.#waiting[at]!;
      if (request.listener.stillWanted(request)) {
        this.#hand(this.#waitingFor[at]!, request);
      } else {
        request.status = Status.Shutdown;
        request.listener.volumeDone(request);
      }
    }
    // What has been handed over is let go of now and then: while others wait on, the lists do not grow for ever.
    if (this.#waitingAt < this.#waiting.length && this.#waitingAt < RECORDS) return;
    this.#waiting.splice(0, this.#waitingAt);
    this.#waitingFor.splice(0, this.#waitingAt);
    this.#waitingAt = 0;
  }
}

/** Words of `present` that say something about a Read. */
export function presentWords(request: VolumeRequest): number {
  const blocks = Math.ceil(((request.offset % BLOCK_BYTES) + request.length) / BLOCK_BYTES);
  return (blocks + 31) >>> 5;
}

assert(RECORDS <= 2 ** 16, "record numbers are u16");
assert(HANDLES_MAX <= RECORDS, "every volume can have a request under way");
