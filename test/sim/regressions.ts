/**
 * Runs that once failed, each with what was wrong. They are run with every test, for ever; a seed that no longer
 * reaches its scene (the draw of runs has changed) still costs only its time.
 */
import type { RunOptions } from "./config.js";

export interface Regression {
  readonly options: RunOptions;
  /** The bug that it found. */
  readonly was: string;
}

export const REGRESSIONS: readonly Regression[] = [
  {
    options: { seed: 267, front: "store", plain: true },
    was: "the log stalled for ever when its oldest frame spoke of more tables than one checkpoint round writes",
  },
  {
    options: { seed: 7, front: "volume", operations: 240, lives: 8, plain: true },
    was: "maintenance ran while the device was opened: LOSSY ended before anything was settled",
  },
  {
    options: { seed: 1269, front: "store", plain: true },
    was: "a block that had rotted was taken over as good when a write over it met a full file system",
  },
  {
    options: { seed: 201038, front: "volume", operations: 400, plain: true },
    was: "a Map that waited for a slot to be settled was never answered when the extent was freed meanwhile",
  },
  {
    options: { seed: 701109, front: "volume", plain: true },
    was: "a hot bit that only a rotten copy of its page had was forgotten, and with it what the log says about the slot",
  },
  {
    options: { seed: 801430, front: "volume", without: ["full"], plain: true },
    was: "the same, with a rotten copy of a page that the killed process had begun to write",
  },
  {
    options: { seed: 700896, front: "nbd", plain: true },
    was: "the simulator's own: its janitor asked on connections whose clients had said goodbye",
  },
  {
    options: { seed: 522247466547, front: "nbd" },
    was: "a process that had stood still let a new connection in while a dead one's write was on its way to the disk",
  },
  {
    options: { seed: 214132909209, front: "nbd" },
    was: "after a power loss one read that had gone astray was enough: another block's bytes became a block's content",
  },
  {
    options: { seed: 695875248172, operations: 2000, without: ["records"], front: "nbd" },
    was: "a process that had stood still counted that time against a client in its handshake",
  },
  {
    options: { seed: 695877997709, operations: 240, lives: 8, front: "volume", focus: "strays" },
    was: "zeros that a stray read had brought from elsewhere matched the checksum of zeros once written to the block",
  },
  {
    options: {
      seed: 695881605105,
      operations: 600,
      without: ["drop", "records", "kill-while-opening"],
      front: "nbd",
    },
    was: "a dead connection's Zero went on, extent by extent, over what was written after the next one had been let in",
  },
  {
    options: { seed: 216, front: "nbd", focus: "stalls" },
    was: "a Trim passed over an extent that a dead connection's write, still waiting for its range, was to make",
  },
  {
    options: { seed: 695881608735, front: "nbd" },
    was: "a rotten block kept the entry of zeros that it had once held: zeros of a stray read matched it",
  },
  {
    options: { seed: 886000932, front: "volume" },
    was: "the simulator's own: what was free of the pool lay in pieces that were too small for a client's buffer",
  },
];
