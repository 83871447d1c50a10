/** Runs of the simulated cluster that once failed, each with what was wrong. They are run with every test, for ever. */
import type { ClusterRunOptions } from "./run.js";

export interface ClusterRegression {
  readonly options: ClusterRunOptions;
  /** What it found. */
  readonly was: string;
}

export const CLUSTER_REGRESSIONS: readonly ClusterRegression[] = [];
