/** How long requests took: counts in buckets of which each is 1/64 of its power of two wide, so figures are exact to 1.6 %. */

const STEPS_SHIFT = 6;
const STEPS = 1 << STEPS_SHIFT;
/** Longer than 4.2 s is counted as that. */
const NANOS_MAX = 2 ** 32 - 1;
const BUCKETS = (33 - STEPS_SHIFT) * STEPS;

export class Latencies {
  readonly #counts = new Float64Array(BUCKETS);
  #total = 0;

  add(millis: number): void {
    const nanos = Math.min(Math.max(0, millis * 1e6), NANOS_MAX) >>> 0;
    this.#counts[bucketOf(nanos)]!++;
    this.#total++;
  }

  get count(): number {
    return this.#total;
  }

  /** Microseconds within which `share` (0 … 1) of the requests were answered; 0 when there was none. */
  percentileUs(share: number): number {
    const wanted = share * this.#total;
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += this.#counts[bucket]!;
      if (seen >= wanted && seen > 0) return endOf(bucket) / 1000;
    }
    return 0;
  }
}

/** The first steps are of one nanosecond; then each power of two has its own. */
function bucketOf(nanos: number): number {
  if (nanos < STEPS) return nanos;
  const shift = 31 - Math.clz32(nanos) - STEPS_SHIFT;
  return shift * STEPS + (nanos >>> shift);
}

function endOf(bucket: number): number {
  if (bucket < 2 * STEPS) return bucket;
  const shift = (bucket >>> STEPS_SHIFT) - 1;
  return ((bucket % STEPS) + STEPS + 1) * 2 ** shift - 1;
}
