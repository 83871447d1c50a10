/**
 * A world of one thread without time of its own: events run one at a time in an order that a seed decides
 * (first come, first served without one), and after each the tasks of the tick. What is freed is poisoned.
 */
import type { Clock, Random, Ticker, TickTask, Timer } from "../../../../lib/core/clock.js";
import { MIB } from "../../../../lib/core/limits.js";
import { Pool } from "../../../../lib/core/pool.js";

export const POISON = 0xdb;

/** Every freed byte is overwritten: whoever reads it afterwards, or answers with it, is found out. */
export class PoisonPool extends Pool {
  readonly #capacities = new Map<number, number>();

  override allocate(length: number): number {
    const offset = super.allocate(length);
    if (offset >= 0) this.#capacities.set(offset, Pool.capacityOf(length));
    return offset;
  }

  override free(offset: number): void {
    const capacity = this.#capacities.get(offset) ?? 0;
    this.#capacities.delete(offset);
    this.bytes.fill(POISON, offset, offset + capacity);
    super.free(offset);
  }
}

/** Small, fast, seeded (xorshift32). */
export class SeededRandom implements Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed ^ 0x9e3779b9) >>> 0 || 1;
  }

  u32(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }

  below(bound: number): number {
    return this.u32() % bound;
  }

  chance(oneIn: number): boolean {
    return this.below(oneIn) === 0;
  }
}

interface PendingTimer {
  readonly at: number;
  readonly fire: () => void;
  cancelled: boolean;
}

export class Loop implements Ticker, Clock {
  readonly pool: PoisonPool;
  readonly random: SeededRandom | null;
  #events: (() => void)[] = [];
  #tasks: TickTask[] = [];
  #timers: PendingTimer[] = [];
  #now = 0;

  constructor(poolBytes = 4 * MIB, random: SeededRandom | null = null) {
    this.pool = new PoisonPool(new Uint8Array(poolBytes).fill(POISON));
    this.random = random;
  }

  now(): number {
    return this.#now;
  }

  wall(): number {
    return this.#now;
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    const timer: PendingTimer = { at: this.#now + delayMs, fire, cancelled: false };
    this.#timers.push(timer);
    return {
      cancel: () => {
        timer.cancelled = true;
      },
    };
  }

  atTickEnd(task: TickTask): void {
    this.#tasks.push(task);
  }

  post(event: () => void): void {
    this.#events.push(event);
  }

  /** One event and the end of its batch; false when there was none. */
  step(): boolean {
    if (this.#events.length === 0 && this.#tasks.length === 0) return false;
    if (this.#events.length > 0) {
      const at = this.random === null ? 0 : this.random.below(this.#events.length);
      const [event] = this.#events.splice(at, 1);
      this.#now += 0.01;
      event!();
    }
    // Sometimes several events are one batch.
    if (this.random === null || !this.random.chance(3) || this.#events.length === 0) this.#endBatch();
    return true;
  }

  #endBatch(): void {
    for (let i = 0; i < this.#tasks.length; i++) this.#tasks[i]!.tick();
    this.#tasks = [];
  }

  /** Runs until nothing is left to do; throws when that never comes. */
  settle(stepsMax = 2_000_000): void {
    let steps = 0;
    while (this.step()) {
      steps++;
      if (steps > stepsMax) throw new Error("the world does not settle");
    }
  }

  /** The process is stopped for so long: time goes by and nothing is done; then timers are the first to speak. */
  standStill(milliseconds: number): void {
    this.#now += milliseconds;
    this.advance(0);
  }

  /** Moves time on and runs what is due, then settles. */
  advance(milliseconds: number): void {
    const until = this.#now + milliseconds;
    this.settle();
    for (;;) {
      const due = this.#timers
        .filter((timer) => !timer.cancelled && timer.at <= until)
        .sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.#timers.splice(this.#timers.indexOf(due), 1);
      this.#now = Math.max(this.#now, due.at);
      due.fire();
      this.#endBatch();
      this.settle();
    }
    this.#timers = this.#timers.filter((timer) => !timer.cancelled);
    this.#now = Math.max(this.#now, until);
    this.settle();
  }
}
