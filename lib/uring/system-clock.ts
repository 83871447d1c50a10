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
      const due = performance.now() + delayMs;
      const expired = (): void => {
        // Node counts whole milliseconds of its loop's time, and so may be early by nearly one.
        const left = due - performance.now();
        if (left > 0) {
          timeout = setTimeout(expired, left);
          return;
        }
        // Cancelled by an event of the batch that delivers it: it must not fire any more.
        run(() => {
          if (live) fire();
        });
      };
      let timeout = setTimeout(expired, delayMs);
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
