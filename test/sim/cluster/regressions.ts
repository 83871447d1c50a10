/** Runs of the simulated cluster that once failed, each with what was wrong. They are run with every test, for ever. */
import type { ClusterRunOptions } from "./run.js";

export interface ClusterRegression {
  readonly options: ClusterRunOptions;
  /** What it found. */
  readonly was: string;
}

export const CLUSTER_REGRESSIONS: readonly ClusterRegression[] = [
  {
    options: { seed: 100_205, subject: "volume", faultMs: 40_000, plain: true },
    was: "the simulated gateway's own: it heard from a renewal of a newer epoch and went on under the lease that renewal gave",
  },
  {
    options: { seed: 100_935, subject: "volume", faultMs: 40_000, plain: true },
    was: "the checker's own: a write that was answered after its only copy had lost power counted as made stable by the next flush",
  },
  {
    options: { seed: 5_000_988, subject: "volume", faultMs: 9000, plain: true },
    was: "the checker's own: hearing late that one's record was chosen, without a lease to answer, counted as serving",
  },
  {
    options: { seed: 70_000_000, subject: "volume", faultMs: 9000 },
    was: "what was open while people changed the record was never answered: one copy had answered under the record before",
  },
];
