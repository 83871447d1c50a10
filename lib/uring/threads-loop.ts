/**
 * Batches without a ring: what Node's callbacks bring in one pass of its loop is queued and delivered
 * together, right after that pass has polled.
 */
import type { Ticker, TickTask } from "../core/clock.js";
import { Batch, type EventTarget } from "./batch.js";

export class ThreadsLoop implements Ticker {
  readonly #batch = new Batch();
  #scheduled = false;
  /** Requests given to the thread pool and not over. */
  #inFlight = 0;
  #onIdle: (() => void) | null = null;
  batches = 0;
  readonly #onImmediate = (): void => this.#run();

  atTickEnd(task: TickTask): void {
    this.#batch.addTask(task);
    this.#schedule();
  }

  post(target: EventTarget, result: number): void {
    this.#batch.post(target, result);
    this.#schedule();
  }

  run(event: () => void): void {
    this.post({ eventDone: event }, 0);
  }

  requestStarted(): void {
    this.#inFlight++;
  }

  requestOver(target: EventTarget, result: number): void {
    this.#inFlight--;
    this.post(target, result);
  }

  /** Resolves when nothing is in flight. */
  idle(): Promise<void> {
    if (this.#inFlight === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#onImmediate);
  }

  #run(): void {
    this.batches++;
    try {
      // What is asked for meanwhile belongs to this batch: `#scheduled` stays true until it is over.
      this.#batch.drain();
    } finally {
      this.#scheduled = false;
      if (!this.#batch.empty) this.#schedule();
      if (this.#inFlight === 0 && this.#onIdle !== null) {
        this.#onIdle();
        this.#onIdle = null;
      }
    }
  }
}
