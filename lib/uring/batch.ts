/**
 * What waits to be delivered in a batch besides the kernel's completions: posted events, and tasks for the
 * batch's end. Both engines drain one of these.
 *
 * Both lists may grow while they are drained. Their positions are fields, so that a listener that throws is
 * not called again by the next batch. The arrays keep their length and are filled from the front again: setting
 * a length is a call into the runtime, and gives the memory away that the next batch needs.
 */
import type { TickTask } from "../core/clock.js";

export interface EventTarget {
  eventDone(result: number): void;
}

export class Batch {
  readonly #targets: EventTarget[] = [];
  readonly #results: number[] = [];
  #eventCount = 0;
  #nextEvent = 0;
  readonly #tasks: TickTask[] = [];
  #taskCount = 0;
  #nextTask = 0;

  post(target: EventTarget, result: number): void {
    const at = this.#eventCount++;
    this.#targets[at] = target;
    this.#results[at] = result;
  }

  addTask(task: TickTask): void {
    this.#tasks[this.#taskCount++] = task;
  }

  get empty(): boolean {
    return this.#eventCount === 0 && this.#taskCount === 0;
  }

  /** Delivers events, then runs tasks, until there are none of either. */
  drain(): void {
    while (!this.empty) {
      this.#deliverEvents();
      this.#runTasks();
    }
  }

  #deliverEvents(): void {
    while (this.#nextEvent < this.#eventCount) {
      const at = this.#nextEvent++;
      const target = this.#targets[at]!;
      // Nothing is kept alive by having been told once.
      this.#targets[at] = NOBODY;
      target.eventDone(this.#results[at]!);
    }
    this.#eventCount = 0;
    this.#nextEvent = 0;
  }

  #runTasks(): void {
    while (this.#nextTask < this.#taskCount) {
      const at = this.#nextTask++;
      const task = this.#tasks[at]!;
      this.#tasks[at] = NOBODY;
      task.tick();
    }
    this.#taskCount = 0;
    this.#nextTask = 0;
  }
}

const NOBODY: EventTarget & TickTask = {
  eventDone(): void {
    throw new Error("an event was delivered twice");
  },
  tick(): void {
    throw new Error("a task ran twice");
  },
};
