/**
 * One Map: which ranges have bytes. Extents that do not exist are skipped in one step, so an empty volume of
 * any size is one run. No locks: the answer is true of some moment between question and answer, which is all
 * that BLOCK_STATUS promises.
 */
import { assert } from "../core/assert.js";
import { type ExtentListener, type ExtentOp, ExtentOpKind, PRESENT_WORDS } from "../core/extent-io.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { Status } from "../core/status.js";
import { MAP_RUNS_MAX, VolumeFlag, type VolumeRequest } from "./api.js";
import type { VolumeCore } from "./volume.js";

/** Groups that one answer looks into; a longer range is answered in part and asked again by the client. */
const MAP_GROUPS_MAX = 256;

const HOLE = 0;
const DATA = 1;

export class MapJob implements ExtentListener {
  readonly #volume: VolumeCore;
  /** Presence bits of the extents of the current group, PRESENT_WORDS each. */
  readonly #present: Uint32Array;
  readonly #lengths = new Float64Array(MAP_RUNS_MAX);
  readonly #states = new Uint8Array(MAP_RUNS_MAX);
  #runs = 0;
  #request: VolumeRequest | null = null;
  #cursor = 0;
  #end = 0;
  #groups = 0;
  #pending = 0;
  #status: Status = Status.Ok;

  constructor(volume: VolumeCore) {
    this.#volume = volume;
    this.#present = new Uint32Array(volume.layout.stripeCount * PRESENT_WORDS);
  }

  start(request: VolumeRequest): void {
    this.#request = request;
    this.#cursor = Math.floor(request.offset / BLOCK_BYTES);
    this.#end = Math.ceil((request.offset + request.length) / BLOCK_BYTES);
    this.#next();
  }

  #next(): void {
    const { layout, extents, owner } = this.#volume;
    if (this.#status !== Status.Ok || this.#cursor >= this.#end || this.#full()) {
      this.#answer();
      return;
    }
    const group = layout.groupOf(this.#cursor);
    const next = Math.floor(extents.next(group * layout.stripeCount) / layout.stripeCount);
    if (next > group) {
      const to = Math.min(this.#end, next * layout.groupBlocks);
      this.#emit(to - this.#cursor, HOLE);
      this.#cursor = to;
      // At most one step deep: the next group has an extent, or the range has ended.
      this.#next();
      return;
    }
    this.#groups++;
    this.#present.fill(0);
    this.#pending = 1;
    for (let column = 0; column < layout.stripeCount; column++) {
      const extent = group * layout.stripeCount + column;
      if (!extents.has(extent)) continue;
      const op = owner.takeOp(this, column);
      op.kind = ExtentOpKind.Map;
      this.#volume.address(op, extent, 0, layout.extentBlocks);
      this.#pending++;
      owner.io.submit(op);
    }
    this.#opDone();
  }

  extentDone(op: ExtentOp): void {
    if (op.status !== Status.Ok && this.#status === Status.Ok) this.#status = op.status;
    this.#present.set(op.present, op.tag * PRESENT_WORDS);
    this.#volume.owner.giveOp(op);
    this.#opDone();
  }

  #opDone(): void {
    this.#pending--;
    if (this.#pending > 0) return;
    if (this.#status === Status.Ok) this.#readGroup();
    this.#next();
  }

  #readGroup(): void {
    const { layout } = this.#volume;
    const group = layout.groupOf(this.#cursor);
    const end = Math.min(this.#end, (group + 1) * layout.groupBlocks);
    while (this.#cursor < end && !this.#full()) {
      layout.locate(this.#cursor);
      const base = (layout.extent - group * layout.stripeCount) * PRESENT_WORDS * 32 + layout.block;
      const run = Math.min(layout.run, end - this.#cursor);
      for (let i = 0; i < run && !this.#full(); i++) {
        const bit = base + i;
        this.#emit(1, (this.#present[bit >>> 5]! >>> (bit & 31)) & 1);
        this.#cursor++;
      }
    }
  }

  #full(): boolean {
    if (this.#groups >= MAP_GROUPS_MAX && this.#runs > 0) return this.#cursorAtGroup();
    // With ReqOne the first run is complete once a second has begun.
    if ((this.#request!.flags & VolumeFlag.ReqOne) !== 0) return this.#runs > 1;
    return this.#runs === MAP_RUNS_MAX;
  }

  #cursorAtGroup(): boolean {
    return this.#cursor % this.#volume.layout.groupBlocks === 0;
  }

  #emit(blocks: number, state: number): void {
    if (this.#runs > 0 && this.#states[this.#runs - 1] === state) {
      this.#lengths[this.#runs - 1]! += blocks;
      return;
    }
    assert(this.#runs < MAP_RUNS_MAX, "a map has room for its runs");
    this.#lengths[this.#runs] = blocks;
    this.#states[this.#runs] = state;
    this.#runs++;
  }

  #answer(): void {
    const request = this.#request!;
    const count = (request.flags & VolumeFlag.ReqOne) !== 0 ? Math.min(1, this.#runs) : this.#runs;
    // Not a hot path: the answer is a fresh array, which the asker may keep.
    const runs = new Float64Array(count * 2);
    let left = request.length;
    let skip = request.offset % BLOCK_BYTES;
    for (let i = 0; i < count; i++) {
      const bytes = Math.min(left, this.#lengths[i]! * BLOCK_BYTES - skip);
      skip = 0;
      left -= bytes;
      runs[2 * i] = bytes;
      runs[2 * i + 1] = this.#states[i]!;
    }
    request.runs = runs;
    request.runCount = count;
    this.#volume.owner.answer(request, this.#status);
    this.#volume.endMap();
  }
}

export { DATA as MAP_DATA, HOLE as MAP_HOLE };
