/** The machine's time and randomness. */
import { randomFillSync } from "node:crypto";
import type { Clock, Random, Timer } from "../core/clock.js";

/** `run` delivers what a timer asks for as an event of the engine. */
export function systemClock(run: (event: () => void) => void): Clock {
  return {
    now: () => performance.now(),
    wall: () => Date.now(),
    setTimer(delayMs: number, fire: () => void): Timer {
      let live = true;
      const timeout = setTimeout(() => {
        // Cancelled by an event of the batch that delivers it: it must not fire any more.
        run(() => {
          if (live) fire();
        });
      }, delayMs);
      return {
        cancel(): void {
          live = false;
          clearTimeout(timeout);
        },
      };
    },
  };
}

/** Random numbers are drawn from the system this many at a time. */
const BATCH = 1024;

export class SystemRandom implements Random {
  readonly #numbers = new Uint32Array(BATCH);
  #next = BATCH;

  u32(): number {
    if (this.#next === BATCH) {
      randomFillSync(this.#numbers);
      this.#next = 0;
    }
    return this.#numbers[this.#next++]!;
  }
}
