/**
 * Whether a volume's record leaves room in its page. Its numbers get longer: one that fitted no more could not be changed, or
 * not even be called removed.
 */
import { LaminaError } from "../core/errors.js";
import { epoch, generation } from "../core/ids.js";
import type { VolumeRecord } from "../replica/record.js";

/** No number of a record has more digits. */
export const LONGEST_NUMBER = Number.MAX_SAFE_INTEGER;

/** What people have put into the record, beside the longest numbers and the longest state. */
export function longestOf<Kind extends VolumeRecord>(record: Kind): Kind {
  return {
    ...record,
    state: "removed",
    size: LONGEST_NUMBER,
    epoch: epoch(LONGEST_NUMBER),
    generation: generation(LONGEST_NUMBER),
    version: LONGEST_NUMBER,
  };
}

/** Throws RECORD_TOO_LARGE. `bytes`: of the record at its longest; `limit`: of its page. */
export function refuseLonger(name: string, bytes: number, limit: number): void {
  if (bytes > limit) throw new LaminaError("RECORD_TOO_LARGE", { name, bytes, limit });
}
