/**
 * Randomness of one run: a tree of generators grown from one seed.
 *
 * Invariants
 *  1. A generator's numbers depend on the seed and on the path of labels to it only, so a draw that is added
 *     in one part of the simulator does not shift the draws of another.
 *  2. Nothing else in a run is random.
 */
import type { Random } from "../../lib/core/clock.js";

/** sfc32 (Doty-Humphrey): 128 bits of state, passes PractRand, a few integer operations a draw. */
export class Prng implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter: number;

  constructor(a: number, b: number, c: number) {
    this.#a = a | 0;
    this.#b = b | 0;
    this.#c = c | 0;
    this.#counter = 1;
    // The first outputs of related seeds are related; twelve rounds mix them (PractRand's own choice).
    for (let i = 0; i < 12; i++) this.u32();
  }

  /** The root of a run's tree. `seed` is any safe integer. */
  static ofSeed(seed: number): Prng {
    return new Prng(seed >>> 0, Math.floor(seed / 2 ** 32), 0x6c616d69);
  }

  u32(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (this.#c << 21) | (this.#c >>> 11);
    this.#c = (this.#c + t) | 0;
    return t >>> 0;
  }

  /** Uniform integer 0 … `bound` − 1; the bias of the multiplication is far below what a run can notice. */
  below(bound: number): number {
    return Math.floor((this.u32() * bound) / 2 ** 32);
  }

  /** Uniform integer `low` … `high`, both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True with `probability` 0 … 1. */
  chance(probability: number): boolean {
    return this.u32() < probability * 2 ** 32;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** A generator of its own for the part of the run named `label`. Draws from this one once. */
  fork(label: string): Prng {
    let hash = 0x811c9dc5;
    for (let i = 0; i < label.length; i++) hash = Math.imul(hash ^ label.charCodeAt(i), 0x01000193);
    return new Prng(this.u32(), hash, this.u32());
  }
}
