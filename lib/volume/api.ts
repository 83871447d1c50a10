/**
 * A volume as its owner sees it: what a gateway asks for, in bytes of the volume's address space.
 *
 * Rules for the asker
 *  1. A VolumeRequest belongs to the volume from `submit` until `listener.volumeDone(request)`, called once,
 *     never from inside `submit`. Replies may come in any order; overlapping requests are ordered by the
 *     volume as they were submitted, across all connections. A Trim or Zero over several groups of extents is
 *     one request per group and partial block in this: between two of them a later request may pass.
 *  2. The range lies inside the volume (the asker has validated it: out of range is a broken invariant), and
 *     length > 0 except for Flush.
 *  3. Read and Write are at most one piece: the 4096-aligned blocks that enclose the range are at most
 *     PIECE_BYTES. `memory` is a pool buffer for those enclosing blocks; the byte at `offset` lives at
 *     memory + offset % 4096. Bytes of the enclosing blocks outside the range are scratch.
 *  4. Trim, Zero, Cache and Map take any length up to the volume's end.
 *  5. A change that has to wait (for its range, or between the parts of a Trim or Zero) is begun only if its listener
 *     wants it still: what a dead client asked for must not come late, over what was written since.
 */
import type { Status } from "../core/status.js";

export const VolumeOp = { Read: 0, Write: 1, Flush: 3, Trim: 4, Cache: 5, Zero: 6, Map: 7 } as const;
export type VolumeOp = (typeof VolumeOp)[keyof typeof VolumeOp];

export const VolumeFlag = {
  /** Stable before the answer. */
  Fua: 1,
  /** Zero: provision, do not make a hole. */
  NoHole: 2,
  /** Zero: answer NotSup at once and unchanged where it would not be faster than writing. */
  FastZero: 4,
  /** Map: one run is enough. */
  ReqOne: 8,
} as const;

/** Runs of one Map answer; more are left for the next request. */
export const MAP_RUNS_MAX = 4096;

export class VolumeRequest {
  op: VolumeOp = VolumeOp.Read;
  offset = 0;
  length = 0;
  memory = 0;
  flags = 0;

  status: Status = 0;
  /**
   * Read: every byte of the range is a hole; memory was left alone (not zeroed). Otherwise memory holds all
   * bytes, holes as zeros.
   */
  allHole = false;
  /**
   * Read that failed with Io: where in the volume the first bytes of the range lie that cannot be had, when that
   * is known; else −1. The asker sets it to −1 before it submits.
   */
  badOffset = -1;
  /**
   * Read, partly holes: bit i says whether block i of the enclosing blocks has bytes. Valid when not
   * `allHole`.
   */
  readonly present: Uint32Array = new Uint32Array(8);
  /**
   * Map: `runs` pairs of (length in bytes, 1 where there are bytes or 0 for hole), beginning at `offset`,
   * neighbours merged. Their sum may be less than `length` only when MAP_RUNS_MAX was reached.
   */
  runs: Float64Array = NO_RUNS;
  runCount = 0;

  listener: VolumeListener = NOBODY;
  tag = 0;
  /** Links of whoever holds the request now. */
  next: VolumeRequest | null = null;
}

export interface VolumeListener {
  volumeDone(request: VolumeRequest): void;
  /**
   * False from the moment on at which nobody waits for the answer any more. Asked, on the volume's thread, before a Write
   * and each part of a Trim or Zero changes anything: what has not been begun by then never is, and the answer is
   * Shutdown.
   */
  stillWanted(request: VolumeRequest): boolean;
}

/** An open volume. All sessions of all connections of one volume share one of these (one owner). */
export interface Volume {
  readonly id: number;
  readonly name: string;
  /** Bytes; grows while open. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Size of what is best read and written at once: the stripe unit, at least 4096. */
  readonly preferredBytes: number;
  submit(request: VolumeRequest): void;
  /**
   * A volume of another thread: its owner is to learn that `stillWanted` is false for whatever the listener has
   * asked for. A volume of this thread asks the listener itself.
   */
  abandon?(listener: VolumeListener): void;
}

const NO_RUNS = new Float64Array(0);
const NOBODY: VolumeListener = {
  volumeDone(): void {
    throw new Error("a volume request without listener completed");
  },
  stillWanted(): boolean {
    return true;
  },
};
