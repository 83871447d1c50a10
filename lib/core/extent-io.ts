/**
 * What a volume asks of the copies of one extent. The same interface stands between volume and replica set,
 * replica set and replica, and replica and store; LocalReplica and RemoteReplica are two of its faces.
 *
 * Rules for the asker
 *  1. An ExtentOp belongs to the ExtentIo from `submit` until `listener.extentDone(op)`, called once, never
 *     from inside `submit`.
 *  2. The asker holds the range lock of the blocks: no two operations in flight touch one block unless all
 *     of them are reads. (Free and Zero hold theirs too.)
 *     A Map is sent without a lock: its answer is true of some moment between question and answer.
 *  3. Blocks lie inside one extent. Memory is 4096-aligned and at least `blocks` blocks long.
 */
import type { Status } from "./status.js";

export const ExtentOpKind = {
  /**
   * Reads `blocks` blocks. `present` says which have bytes; absent ones are zero-filled in memory unless
   * none is present (`presentCount === 0`), in which case memory is left alone and no disk is touched.
   */
  Read: 1,
  /** Writes `blocks` blocks (at most 256). `entries[0 … blocks − 1]` are their checksums, computed by the asker. */
  Write: 2,
  /**
   * The blocks become absent and their bytes zeros; space is given back where the grain allows. With
   * ExtentFlag.NoHole they become present blocks of written zeros instead. Over absent blocks, without
   * NoHole, nothing is done.
   */
  Zero: 3,
  /** The whole extent becomes absent, by record alone. Its slot is zeroed before anyone can have it again. */
  Free: 4,
  /** Fills `present` for `blocks` blocks without reading data. */
  Map: 5,
  /** Everything that was acknowledged before is stable afterwards. Ignores extent and blocks. */
  Flush: 6,
  /** The extent, if it exists, belongs to `generation` from now on; no byte changes. Ignores blocks. */
  Stamp: 7,
} as const;

export type ExtentOpKind = (typeof ExtentOpKind)[keyof typeof ExtentOpKind];

export const ExtentFlag = {
  /** Done only when stable: the operation's own bytes and records are synced before it completes. */
  Fua: 1,
  /** Zero: leave provisioned, written zeros. */
  NoHole: 2,
  /** On a full device answer NoSpace at once (`--on-full enospc`) instead of waiting for space. */
  NoWait: 4,
  /** Read and Map, of at most 256 blocks: also fills `entries` with what the blocks should match. */
  Entries: 8,
} as const;

/** Largest number of blocks of one Write or Read: one pool buffer. */
export const EXTENT_OP_BLOCKS_MAX = 256;
/** Words of `present`: enough for a whole extent of 1024 blocks. */
export const PRESENT_WORDS = 32;

/** One operation; pooled by the asker, with room for its checksums, so that none is allocated per request. */
export class ExtentOp {
  kind: ExtentOpKind = ExtentOpKind.Read;
  /** VolumeId, layer and extent name the extent. */
  volume = 0;
  layer = 0;
  extent = 0;
  /** First block inside the extent, and how many. */
  block = 0;
  blocks = 0;
  /** Pool offset of the first block. */
  memory = 0;
  /** ExtentFlag bits. */
  flags = 0;
  /** Stamps of DESIGN §6; a lone node carries them and checks nothing. */
  epoch = 0;
  generation = 0;
  sequence = 0;
  readonly entries: Uint32Array = new Uint32Array(EXTENT_OP_BLOCKS_MAX);

  /** Result. */
  status: Status = 0;
  /** Bit i: block `block + i` has bytes. */
  readonly present: Uint32Array = new Uint32Array(PRESENT_WORDS);
  presentCount = 0;
  /** Status Io because of bit rot: number of the first bad block inside the extent; else −1. */
  badBlock = -1;

  listener: ExtentListener = NOBODY;
  /** The asker's own. */
  tag = 0;
  /** Links and scratch of whoever holds the operation now. */
  next: ExtentOp | null = null;
}

export interface ExtentListener {
  extentDone(op: ExtentOp): void;
}

export interface ExtentIo {
  submit(op: ExtentOp): void;
}

const NOBODY: ExtentListener = {
  extentDone(): void {
    throw new Error("an extent operation without listener completed");
  },
};
