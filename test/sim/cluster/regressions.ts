/** Runs of the simulated cluster that once failed, each with what was wrong. They are run with every test, for ever. */
import type { ClusterRunOptions } from "./run.js";

export interface ClusterRegression {
  readonly options: ClusterRunOptions;
  /** What it found. */
  readonly was: string;
}

export const CLUSTER_REGRESSIONS: readonly ClusterRegression[] = [
  {
    options: { seed: 695_899_580_392, subject: "volume" },
    was: "resync called a member in sync that had older bytes of a block which no in-sync member could read",
  },
  {
    options: { seed: 695_900_038_234, subject: "volume", focus: "sick" },
    was: "the simulator's own: copies were read into memory that the node's store cannot fill with zeros",
  },
  {
    options: { seed: 265, subject: "volume", focus: "sick" },
    was: "a read waited for a repair of the one copy left that nobody had asked for",
  },
  {
    options: { seed: 695_910_878_823, subject: "volume", configChanges: true },
    was: "a config node that had copied two owners' promises of one epoch gave the second of them a majority",
  },
  {
    options: { seed: 695_913_432_669, subject: "volume" },
    was: "a reconcile took another member's bytes of a block that its source could not read, and left the source's",
  },
  {
    options: { seed: 7, subject: "volume", focus: "in-turn" },
    was: "an owner took a member for LOSSY as long as the session lived in which it had said so, and copied from one that was",
  },
  {
    options: { seed: 695_920_759_247, subject: "volume" },
    was: "the simulator's own: the record of an owner that was fenced and had not noticed said whose copies are equal",
  },
  {
    options: { seed: 695_933_641_492, subject: "volume" },
    was: "an owner went on without a member whose process was gone, with one whose host had lost its power",
  },
  {
    options: { seed: 695_933_643_039, subject: "volume" },
    was: "the same, in a calm cluster: one loss of power took what was acknowledged",
  },
  {
    options: { seed: 695_936_807_022, subject: "volume" },
    was: "the simulator's own: what an old backup has was taken for what its node had reconciled",
  },
];
