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

export const REGRESSIONS: readonly Regression[] = [];
