/**
 * The owner's end of a channel: takes the requests of one connection thread, gives them to its volumes and sends
 * the answers back.
 *
 * Invariants
 *  1. Requests reach the volumes in the order in which the thread handed them over.
 *  2. A handle names one open volume from `open` to `close`; it is closed only when nothing of it is under way.
 */
import { assert } from "../../core/assert.js";
import type { Ticker, TickTask } from "../../core/clock.js";
import { Status } from "../../core/status.js";
import type { Mailbox } from "../../uring/api.js";
import { type VolumeListener, VolumeOp, VolumeRequest } from "../../volume/api.js";
import type { OpenVolume } from "../../volume/registry-api.js";
import {
  ANSWER_ALL_HOLE,
  type Channel,
  HANDLES_MAX,
  loadDouble,
  MAP_AREA_NUMBERS,
  OP_BITS,
  RECORD,
  RECORD_WORDS,
  RECORDS,
} from "./channel.js";
import { presentWords } from "./remote-volumes.js";

/** A request of the other thread; `tag` is its record. */
class PortRequest extends VolumeRequest {
  handle = 0;
  /** Map: the area that takes the runs. */
  area = 0;
}

interface Opened {
  readonly opened: OpenVolume;
  inFlight: number;
}

export class VolumePort implements Mailbox, TickTask, VolumeListener {
  readonly #channel: Channel;
  readonly #ticker: Ticker;
  readonly #ringAsker: () => void;
  /** By record, made when first used. */
  readonly #requests: (PortRequest | null)[] = new Array<null>(RECORDS).fill(null);
  readonly #volumes: (Opened | null)[] = [];
  #tickAsked = false;

  constructor(channel: Channel, ticker: Ticker, ringAsker: () => void) {
    this.#channel = channel;
    this.#ticker = ticker;
    this.#ringAsker = ringAsker;
  }

  // ---- Volumes ----------------------------------------------------------------------------------------------

  /** A handle for the volume; −1 when there are HANDLES_MAX already. */
  open(opened: OpenVolume): number {
    const free = this.#volumes.indexOf(null);
    const handle = free >= 0 ? free : this.#volumes.length;
    if (handle === HANDLES_MAX) return -1;
    this.#volumes[handle] = { opened, inFlight: 0 };
    this.#channel.sizes[handle] = opened.volume.sizeBytes;
    return handle;
  }

  close(handle: number): void {
    const entry = this.#volumes[handle];
    assert(entry !== undefined && entry !== null, "closed a volume that is not open");
    assert(entry.inFlight === 0, "closed a volume with requests under way");
    this.#volumes[handle] = null;
    entry.opened.release();
  }

  /** The volume's size may have changed: shows it to the thread before anybody is told that it has. */
  volumeChanged(id: number): void {
    for (const [handle, entry] of this.#volumes.entries()) {
      if (entry?.opened.volume.id === id) this.#channel.sizes[handle] = entry.opened.volume.sizeBytes;
    }
  }

  // ---- Requests ---------------------------------------------------------------------------------------------

  get ready(): boolean {
    return this.#channel.submissions.ready;
  }

  setAsleep(asleep: boolean): void {
    this.#channel.submissions.setAsleep(asleep);
  }

  take(): void {
    const { submissions } = this.#channel;
    for (let left = submissions.length; left > 0; left--) this.#begin(submissions.take());
  }

  #begin(record: number): void {
    const { records } = this.#channel;
    const at = record * RECORD_WORDS;
    const request = this.#requests[record] ?? this.#make(record);
    const opFlags = records[at + RECORD.opFlags]!;
    request.op = (opFlags & ((1 << OP_BITS) - 1)) as VolumeOp;
    request.flags = opFlags >>> OP_BITS;
    request.handle = records[at + RECORD.handle]!;
    request.offset = loadDouble(records, at + RECORD.offset);
    request.length = loadDouble(records, at + RECORD.length);
    const memory = records[at + RECORD.memory]! >>> 0;
    request.memory = request.op === VolumeOp.Map ? 0 : memory;
    request.area = memory;
    request.status = Status.Ok;
    request.allHole = false;
    request.badOffset = -1;
    const entry = this.#volumes[request.handle];
    assert(entry !== undefined && entry !== null, "a request is for an open volume");
    entry.inFlight++;
    entry.opened.volume.submit(request);
  }

  #make(record: number): PortRequest {
    const request = new PortRequest();
    request.tag = record;
    request.listener = this;
    this.#requests[record] = request;
    return request;
  }

  volumeDone(answered: VolumeRequest): void {
    const request = answered as PortRequest;
    const { records } = this.#channel;
    const at = request.tag * RECORD_WORDS;
    records[at + RECORD.status] = request.status | (request.allHole ? ANSWER_ALL_HOLE : 0);
    if (request.op === VolumeOp.Read && request.status !== Status.Ok) {
      const { badOffset } = request;
      records[at + RECORD.present] = badOffset < 0 ? -1 : badOffset - request.offset;
    } else if (request.op === VolumeOp.Read) {
      const words = presentWords(request);
      for (let i = 0; i < words; i++) records[at + RECORD.present + i] = request.present[i]!;
    } else if (request.op === VolumeOp.Map) {
      this.#giveRuns(request, at);
    }
    this.#volumes[request.handle]!.inFlight--;
    this.#channel.completions.push(request.tag);
    if (this.#tickAsked) return;
    this.#tickAsked = true;
    this.#ticker.atTickEnd(this);
  }

  stillWanted(request: VolumeRequest): boolean {
    return Atomics.load(this.#channel.abandoned, request.tag) === 0;
  }

  #giveRuns(request: PortRequest, at: number): void {
    const { records, maps } = this.#channel;
    const count = request.status === Status.Ok ? request.runCount : 0;
    for (let i = 0; i < 2 * count; i++) maps[request.area * MAP_AREA_NUMBERS + i] = request.runs[i]!;
    records[at + RECORD.present] = count;
  }

  /** What was answered in this batch becomes visible to the thread. */
  tick(): void {
    this.#tickAsked = false;
    if (this.#channel.completions.publish()) this.#ringAsker();
  }
}
