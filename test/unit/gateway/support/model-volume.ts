/**
 * A volume in plain memory that checks its asker: ranges, pieces, memory. Requests complete in an order that
 * the loop's seed decides, overlapping ones in the order of their submission. Data moves at completion, so
 * memory that was given back too early shows.
 */
import { epoch, generation, volumeId } from "../../../../lib/core/ids.js";
import { BLOCK_BYTES, PIECE_BYTES } from "../../../../lib/core/limits.js";
import { Status } from "../../../../lib/core/status.js";
import type { VolumeRecord } from "../../../../lib/replica/record.js";
import { type Volume, VolumeFlag, VolumeOp, type VolumeRequest } from "../../../../lib/volume/api.js";
import type { Loop } from "./loop.js";

export class ModelVolume implements Volume {
  readonly id: number;
  readonly name: string;
  readOnly = false;
  readonly preferredBytes = BLOCK_BYTES;
  readonly #loop: Loop;
  bytes: Uint8Array;
  present: Uint8Array;
  #pending: VolumeRequest[] = [];
  /** While true nothing completes. */
  #held = false;
  submitted = 0;
  flushes = 0;
  mostInFlight = 0;
  /** Says which requests fail. */
  fails: (request: VolumeRequest) => number = () => 0;
  /** Every change that was carried out, in order. */
  readonly applied: { op: VolumeOp; offset: number; length: number }[] = [];

  constructor(loop: Loop, name: string, sizeBytes: number, id = 1) {
    this.#loop = loop;
    this.name = name;
    this.id = id;
    this.bytes = new Uint8Array(sizeBytes);
    this.present = new Uint8Array(Math.ceil(sizeBytes / BLOCK_BYTES));
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  get inFlight(): number {
    return this.#pending.length;
  }

  get record(): VolumeRecord {
    return {
      id: volumeId(this.id),
      name: this.name,
      size: this.sizeBytes,
      description: `volume ${this.name}`,
      readOnly: this.readOnly,
      policy: { replicas: 1, minReplicas: 1, stripeCount: 1, stripeUnit: 262_144, onFull: "wait" },
      access: [],
      epoch: epoch(1),
      generation: generation(1),
      version: 1,
      createdAt: 0,
      state: "live",
    };
  }

  grow(sizeBytes: number): void {
    const bytes = new Uint8Array(sizeBytes);
    bytes.set(this.bytes);
    const present = new Uint8Array(Math.ceil(sizeBytes / BLOCK_BYTES));
    present.set(this.present);
    this.bytes = bytes;
    this.present = present;
  }

  hold(held: boolean): void {
    this.#held = held;
    if (!held) for (let i = 0; i < this.#pending.length; i++) this.#loop.post(() => this.#completeOne());
  }

  submit(request: VolumeRequest): void {
    this.#check(request);
    this.submitted++;
    this.#pending.push(request);
    this.mostInFlight = Math.max(this.mostInFlight, this.#pending.length);
    if (!this.#held) this.#loop.post(() => this.#completeOne());
  }

  #check(request: VolumeRequest): void {
    const { op, offset, length, memory } = request;
    if (op === VolumeOp.Flush) return;
    if (length <= 0 || offset < 0 || offset + length > this.sizeBytes)
      throw new Error("range outside the volume");
    if (op !== VolumeOp.Read && op !== VolumeOp.Write) return;
    const enclosing = Math.ceil(((offset % BLOCK_BYTES) + length) / BLOCK_BYTES) * BLOCK_BYTES;
    if (enclosing > PIECE_BYTES) throw new Error("longer than a piece");
    if (memory % BLOCK_BYTES !== 0) throw new Error("memory is not aligned");
    for (const other of this.#pending) {
      if (other.op !== VolumeOp.Read && other.op !== VolumeOp.Write) continue;
      const head = other.offset % BLOCK_BYTES;
      const otherEnd = other.memory + Math.ceil((head + other.length) / BLOCK_BYTES) * BLOCK_BYTES;
      if (memory < otherEnd && other.memory < memory + enclosing) throw new Error("memory used twice");
    }
  }

  #completeOne(): void {
    if (this.#held || this.#pending.length === 0) return;
    const random = this.#loop.random;
    let at = random === null ? 0 : random.below(this.#pending.length);
    for (let before = at - 1; before >= 0; before--) if (this.#ordered(before, at)) at = before;
    const [request] = this.#pending.splice(at, 1);
    this.#complete(request!);
  }

  /** Whether the later of two must wait for the earlier. */
  #ordered(earlier: number, later: number): boolean {
    const a = this.#pending[earlier]!;
    const b = this.#pending[later]!;
    return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
  }

  #complete(request: VolumeRequest): void {
    const failure = this.fails(request);
    request.status = failure as Status;
    request.allHole = false;
    if (failure === 0) this.#apply(request);
    request.listener.volumeDone(request);
  }

  #apply(request: VolumeRequest): void {
    switch (request.op) {
      case VolumeOp.Read:
        this.#read(request);
        break;
      case VolumeOp.Write:
        this.#write(request);
        break;
      case VolumeOp.Trim:
      case VolumeOp.Zero:
        this.#zero(request);
        break;
      case VolumeOp.Flush:
        this.flushes++;
        break;
      case VolumeOp.Map:
        this.#map(request);
        break;
      case VolumeOp.Cache:
        break;
    }
  }

  #read(request: VolumeRequest): void {
    const { offset, length, memory } = request;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    request.present.fill(0);
    let any = false;
    for (let block = first; block <= last; block++) {
      if (this.present[block] === 0) continue;
      any = true;
      request.present[(block - first) >>> 5]! |= 1 << ((block - first) & 31);
    }
    request.allHole = !any;
    if (!any) return;
    const from = first * BLOCK_BYTES;
    const to = Math.min((last + 1) * BLOCK_BYTES, this.sizeBytes);
    this.#loop.pool.bytes.set(this.bytes.subarray(from, to), memory);
  }

  #write(request: VolumeRequest): void {
    const { op, offset, length, memory } = request;
    const from = memory + (offset % BLOCK_BYTES);
    this.bytes.set(this.#loop.pool.bytes.subarray(from, from + length), offset);
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    for (let block = Math.floor(offset / BLOCK_BYTES); block <= last; block++) this.present[block] = 1;
    this.applied.push({ op, offset, length });
  }

  #zero(request: VolumeRequest): void {
    const { op, offset, length } = request;
    this.bytes.fill(0, offset, offset + length);
    const first = Math.ceil(offset / BLOCK_BYTES);
    const end = Math.floor((offset + length) / BLOCK_BYTES);
    const mark = (request.flags & VolumeFlag.NoHole) !== 0 ? 1 : 0;
    for (let block = first; block < end; block++) this.present[block] = mark;
    this.applied.push({ op, offset, length });
  }

  #map(request: VolumeRequest): void {
    const runs: number[] = [];
    let at = request.offset;
    const end = request.offset + request.length;
    while (at < end) {
      const block = Math.floor(at / BLOCK_BYTES);
      const until = Math.min(end, (block + 1) * BLOCK_BYTES);
      const state = this.present[block]!;
      if (runs.length > 0 && runs[runs.length - 1] === state) runs[runs.length - 2]! += until - at;
      else runs.push(until - at, state);
      at = until;
    }
    const count = (request.flags & VolumeFlag.ReqOne) !== 0 ? 1 : runs.length / 2;
    request.runs = new Float64Array(runs.slice(0, 2 * count));
    request.runCount = count;
  }
}

export { Status };
