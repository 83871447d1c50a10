/**
 * Turns of the ring: one turn takes what has completed, delivers it, runs the tasks for the end of the batch
 * and submits what all of them asked for, again and again while there is something to do; then it leaves the
 * thread to Node's own loop until the bell rings.
 *
 * Invariants
 *  1. Nothing is delivered outside a turn, and turns do not nest.
 *  2. Whatever is asked for outside a turn is submitted by a turn that is scheduled at once.
 *  3. The bell is silent only inside a turn; a turn ends only after a look at the queue with the bell on.
 */
import type { Ticker, TickTask } from "../core/clock.js";
import type { Addon } from "./addon.js";
import { Batch, type EventTarget } from "./batch.js";
import { Ring } from "./ring.js";

/** A turn ends after this time even if there is more to do, so that Node's own events have theirs. */
const TURN_MS_MAX = 2;

export class RingLoop implements Ticker {
  readonly ring: Ring;
  /** Calls of the bell. */
  wakeups = 0;

  #inTurn = false;
  #scheduled = false;
  readonly #batch = new Batch();
  #holders = 0;
  #held = false;
  #closed = false;
  #onIdle: (() => void) | null = null;
  readonly #onImmediate = (): void => {
    this.#scheduled = false;
    if (!this.#closed) this.#turn();
  };

  constructor(native: Addon) {
    this.ring = new Ring(native, () => {
      this.wakeups++;
      if (!this.#closed) this.#turn();
    });
    this.ring.onPrepared = () => {
      if (!this.#inTurn) this.schedule();
    };
  }

  atTickEnd(task: TickTask): void {
    this.#batch.addTask(task);
    if (!this.#inTurn) this.schedule();
  }

  /** Delivers `result` to `target` in this turn or the next: a completion that needs no kernel. */
  post(target: EventTarget, result: number): void {
    this.#batch.post(target, result);
    if (!this.#inTurn) this.schedule();
  }

  /** Runs `event`, which comes from Node's loop (a timer), as the first event of a turn. */
  run(event: () => void): void {
    this.post({ eventDone: event }, 0);
  }

  /** Open sockets keep the process alive also while nothing is asked of them. */
  addHolder(): void {
    this.#holders++;
    this.schedule();
  }

  dropHolder(): void {
    this.#holders--;
    if (!this.#inTurn) this.schedule();
  }

  schedule(): void {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    setImmediate(this.#onImmediate);
  }

  /** Resolves when nothing is in flight. */
  idle(): Promise<void> {
    if (this.ring.inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }

  close(): void {
    this.#closed = true;
    this.ring.close();
  }

  #turn(): void {
    const ring = this.ring;
    const endsAt = performance.now() + TURN_MS_MAX;
    this.#inTurn = true;
    ring.mute();
    try {
      // Work that the kernel put off until we enter is done here.
      ring.submit();
      for (;;) {
        this.#deliver();
        if (this.#closed) return;
        ring.submit();
        if (this.#anythingLeft()) {
          if (performance.now() < endsAt) continue;
          this.schedule();
          break;
        }
        ring.unmute();
        if (!ring.ready()) break;
        ring.mute();
      }
    } finally {
      this.#inTurn = false;
      if (!this.#closed) this.#endTurn();
    }
  }

  #deliver(): void {
    this.ring.collect();
    this.ring.deliver();
    this.#batch.drain();
  }

  #anythingLeft(): boolean {
    return this.ring.ready() || !this.#batch.empty;
  }

  #endTurn(): void {
    this.ring.unmute();
    // Also after an exception: what it left undelivered is delivered by the next turn.
    if (this.#anythingLeft()) this.schedule();
    if (this.ring.inFlight === 0 && this.#onIdle !== null) {
      this.#onIdle();
      this.#onIdle = null;
    }
    const hold = this.#holders > 0 || this.ring.inFlight > 0;
    if (hold !== this.#held) {
      this.#held = hold;
      this.ring.hold(hold);
    }
  }
}
