/**
 * What waits to be delivered in a batch besides the kernel's completions: posted events, and tasks for the
 * batch's end. Both engines drain one of these.
 *
 * Both lists may grow while they are drained. Their positions are fields, so that a listener that throws is
 * not called again by the next batch.
 */
import type { TickTask } from "../core/clock.js";

export interface EventTarget {
  eventDone(result: number): void;
}

export class Batch {
  readonly #targets: EventTarget[] = [];
  readonly #results: number[] = [];
  #nextEvent = 0;
  readonly #tasks: TickTask[] = [];
  #nextTask = 0;

  post(target: EventTarget, result: number): void {
    this.#targets.push(target);
    this.#results.push(result);
  }

  addTask(task: TickTask): void {
    this.#tasks.push(task);
  }

  get empty(): boolean {
    return this.#targets.length === 0 && this.#tasks.length === 0;
  }

  /** Delivers events, then runs tasks, until there are none of either. */
  drain(): void {
    while (!this.empty) {
      this.#deliverEvents();
      this.#runTasks();
    }
  }

  #deliverEvents(): void {
    while (this.#nextEvent < this.#targets.length) {
      const at = this.#nextEvent++;
      this.#targets[at]!.eventDone(this.#results[at]!);
    }
    this.#targets.length = 0;
    this.#results.length = 0;
    this.#nextEvent = 0;
  }

  #runTasks(): void {
    while (this.#nextTask < this.#tasks.length) this.#tasks[this.#nextTask++]!.tick();
    this.#tasks.length = 0;
    this.#nextTask = 0;
  }
}
