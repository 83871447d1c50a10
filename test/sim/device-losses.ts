/** In which shapes losses come: what a power loss leaves of the versions that were not durable yet. */
import type { Prng } from "./prng.js";

/** A bit for each sector of a page. */
export const ALL_SECTORS = 0xff;

/** Which sectors of version `index` of `count` are kept; asked in the order of the versions. */
export type KeepRule = (index: number, count: number) => number;

export function keepRule(random: Prng): KeepRule {
  switch (random.below(8)) {
    case 0:
      return () => 0;
    case 1:
      return () => ALL_SECTORS;
    case 2: {
      const cut = random.u32() / 2 ** 32;
      return (index, count) => (index < cut * count ? ALL_SECTORS : 0);
    }
    case 3: {
      const cut = random.u32() / 2 ** 32;
      return (index, count) => (index < cut * count ? 0 : ALL_SECTORS);
    }
    case 4: {
      const probability = random.pick([0.05, 0.5, 0.95]);
      return () => (random.chance(probability) ? ALL_SECTORS : 0);
    }
    case 5: {
      // One lost version among kept ones finds what leans on a single record.
      let lost = -1;
      return (index, count) => {
        if (lost < 0) lost = random.below(count);
        return index === lost ? 0 : ALL_SECTORS;
      };
    }
    default:
      return () => random.u32() & ALL_SECTORS;
  }
}
