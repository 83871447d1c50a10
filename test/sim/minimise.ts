/**
 * Makes a failing run smaller: leaves out every feature and as many operations as it can while the same invariant
 * still breaks. What is left is what matters.
 */
import { FEATURES, type Feature, type RunOptions } from "./config.js";
import { type RunResult, run } from "./run.js";
import type { Subject } from "./subject.js";

/** Runs that one minimisation may cost. */
const TRIES_MAX = 120;

export interface Minimised {
  readonly options: RunOptions;
  readonly result: RunResult;
  readonly tries: number;
}

export async function minimise(subject: Subject, failing: RunOptions, first: RunResult): Promise<Minimised> {
  const invariant = first.violation!.invariant;
  let options: RunOptions = { ...failing, operations: failing.operations ?? first.config.operations };
  let result = first;
  let tries = 0;
  const attempt = async (smaller: RunOptions): Promise<boolean> => {
    if (tries >= TRIES_MAX) return false;
    tries++;
    const outcome = await run(subject, smaller);
    if (outcome.violation?.invariant !== invariant) return false;
    options = smaller;
    result = outcome;
    return true;
  };
  for (const feature of FEATURES) {
    if (!first.config.features.has(feature)) continue;
    const without: Feature[] = [...(options.without ?? []), feature];
    await attempt({ ...options, without });
  }
  // Neighbouring numbers of operations give unrelated runs: a smaller one fails by luck, so try several.
  for (let operations = options.operations!; operations > 4; operations = Math.floor(operations / 1.5)) {
    for (let i = 0; i < 4; i++) {
      if (await attempt({ ...options, operations: Math.max(1, operations - i) })) break;
    }
  }
  return { options, result, tries };
}
