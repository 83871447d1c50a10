/**
 * Whether the end of a turn should wait a little in the kernel for the next completion. Going to sleep in
 * Node's loop and being woken by the bell costs three system calls more than waiting in the very call that
 * submits, so with a client that answers at once it pays. Where it does not pay, waiting is given up for
 * exponentially more turns.
 *
 * Node's own events are delayed by at most one wait.
 */
/** Longest wait in microseconds. */
const WAIT_MICROS = 50;
/** Turns without a wait after one that was in vain: doubled each time up to this. */
const PENALTY_MAX = 64;

export class Patience {
  #penalty = 1;
  #skip = 0;

  /** How long to wait now: 0 or WAIT_MICROS. After a wait, `learn` is called before this is asked again. */
  waitMicros(): number {
    if (this.#skip === 0) return WAIT_MICROS;
    this.#skip--;
    return 0;
  }

  /** Whether the wait ended with something to do. */
  learn(fruitful: boolean): void {
    if (fruitful) {
      this.#penalty = 1;
    } else {
      this.#penalty = Math.min(this.#penalty * 2, PENALTY_MAX);
      this.#skip = this.#penalty;
    }
  }
}
