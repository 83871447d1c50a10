/**
 * The simulated world: one seed, a virtual clock, a queue of events, and processes that can be killed.
 *
 * Invariants
 *  1. Nothing happens but by an event taken from the queue, one after the other; their order is a function of
 *     the seed. `hash` digests every one of them, so two runs of one seed can be compared.
 *  2. As with a real engine, a batch of events is delivered, then the tasks that asked for the end of the
 *     batch run, then the next batch begins. How many events make a batch is random.
 *  3. What belongs to a process (timers, completions, tasks) dies with it: nothing of it is delivered after
 *     its kill.
 *
 * An event is one delivered completion, timer, client action or fault.
 */
import type { Clock, Random, Ticker, TickTask, Timer } from "../../lib/core/clock.js";
import { Coverage } from "./coverage.js";
import { Prng } from "./prng.js";
import { EventQueue, type EventTarget } from "./queue.js";

/** Wall clock at the start of every run: a label only, but the same in every run. */
const WALL_AT_START_MS = Date.UTC(2026, 0, 1);
/** Events that arrive within this time of each other may be delivered as one batch. */
const BATCH_WINDOW_US = 20;

export type TraceSink = (line: string) => void;

export class SimWorld {
  readonly seed: number;
  readonly random: Prng;
  readonly coverage = new Coverage();
  readonly queue = new EventQueue();
  readonly trace: TraceSink | null;
  /** Virtual time in microseconds. */
  nowUs = 0;
  readonly #batching: Prng;
  /** Largest number of events of one batch; drawn once for a run. */
  readonly #batchMax: number;
  #hashLow = 0x811c9dc5 | 0;
  #hashHigh = 0x01234567 | 0;
  /** Since tasks were run last, some process has asked for the end of the batch. */
  tasksAsked = false;
  /** Those that run now; one, but in a simulated cluster. */
  #processes: SimProcess[] = [];

  constructor(seed: number, trace: TraceSink | null = null) {
    this.seed = seed;
    this.random = Prng.ofSeed(seed);
    this.trace = trace;
    this.#batching = this.random.fork("batches");
    this.#batchMax = this.#batching.pick([1, 1, 2, 4, 16]);
  }

  get hash(): string {
    return [this.#hashHigh, this.#hashLow].map((half) => (half >>> 0).toString(16).padStart(8, "0")).join("");
  }

  /** Digests `value` as part of the event log. */
  note(value: number): void {
    this.#hashLow = Math.imul(this.#hashLow ^ (value | 0), 0x01000193);
    this.#hashHigh = Math.imul((this.#hashHigh ^ this.#hashLow) + 0x9e3779b9, 0x85ebca6b);
  }

  /** A line of the trace. Callers check `trace !== null` first where building the line costs something. */
  say(line: string): void {
    this.trace?.(`${(this.nowUs / 1000).toFixed(3).padStart(12)} ms  ${line}`);
  }

  at(delayUs: number, target: EventTarget, owner: SimProcess | null, code: number, tag: number): void {
    this.queue.push(this.nowUs + delayUs, target, owner, code, tag);
  }

  /** Delivers one batch; false when nothing is left to happen. */
  step(): boolean {
    if (!this.#deliver()) return false;
    let left = this.#batchMax === 1 ? 0 : this.#batching.below(this.#batchMax);
    while (left-- > 0 && this.queue.nextTime <= this.nowUs + BATCH_WINDOW_US) this.#deliver();
    if (this.tasksAsked) {
      this.tasksAsked = false;
      for (const process of this.#processes) process.runTasks();
    }
    return true;
  }

  #deliver(): boolean {
    const queue = this.queue;
    for (;;) {
      if (!queue.pop()) return false;
      const owner = queue.owner;
      if (owner !== null) {
        if (!owner.alive) continue;
        if (owner.pausedUntilUs > queue.time) {
          queue.push(owner.pausedUntilUs, queue.target!, owner, queue.code, queue.tag);
          continue;
        }
      }
      this.nowUs = queue.time;
      this.coverage.events++;
      this.note(queue.time);
      this.note(queue.code);
      this.note(queue.tag);
      queue.target!.simEvent(queue.code, queue.tag);
      return true;
    }
  }

  /** Starts a process; those before it are dead from now on. */
  spawn(): SimProcess {
    for (const process of this.#processes) process.kill();
    this.#processes = [];
    return this.spawnBeside();
  }

  /** Starts a process beside those that run. */
  spawnBeside(): SimProcess {
    const process = new SimProcess(this, this.random.fork("process"));
    this.#processes = this.#processes.filter(({ alive }) => alive);
    this.#processes.push(process);
    return process;
  }
}

/** One life of the program under test: its clock, timers, tasks and randomness. */
export class SimProcess implements Clock, Ticker, Random {
  readonly world: SimWorld;
  readonly #random: Prng;
  alive = true;
  /** SIGSTOP: until then nothing reaches the process; then everything at once. */
  pausedUntilUs = 0;
  /** Clock rate of this machine, a few per cent around 1: nobody may rely on exact rates. */
  readonly #rate: number;
  /** The first so many of the list are asked for; what is behind them is of batches before. */
  #tasks: TickTask[] = [];
  #taskCount = 0;
  #running: TickTask[] = [];

  constructor(world: SimWorld, random: Prng) {
    this.world = world;
    this.#random = random;
    this.#rate = 1 + (random.below(101) - 50) / 1000;
  }

  /** kill −9: nothing of this process happens any more. */
  kill(): void {
    this.alive = false;
    this.#taskCount = 0;
  }

  now(): number {
    return (this.world.nowUs * this.#rate) / 1000;
  }

  wall(): number {
    return WALL_AT_START_MS + Math.floor(this.world.nowUs / 1000);
  }

  setTimer(delayMs: number, fire: () => void): Timer {
    const timer = new SimTimer(fire);
    this.world.at(Math.max(1, (delayMs * 1000) / this.#rate), timer, this, EVENT_TIMER, 0);
    return timer;
  }

  u32(): number {
    return this.#random.u32();
  }

  atTickEnd(task: TickTask): void {
    this.#tasks[this.#taskCount++] = task;
    this.world.tasksAsked = true;
  }

  /** Runs what asked for the end of the batch, and what those asked for, until nothing is left. */
  runTasks(): void {
    while (this.#taskCount > 0 && this.alive) {
      const tasks = this.#tasks;
      const count = this.#taskCount;
      this.#tasks = this.#running;
      this.#taskCount = 0;
      for (let i = 0; i < count && this.alive; i++) tasks[i]!.tick();
      this.#running = tasks;
    }
  }
}

const EVENT_TIMER = 1;

class SimTimer implements Timer, EventTarget {
  #fire: (() => void) | null;

  constructor(fire: () => void) {
    this.#fire = fire;
  }

  cancel(): void {
    this.#fire = null;
  }

  simEvent(): void {
    const fire = this.#fire;
    this.#fire = null;
    fire?.();
  }
}

/** Lets promises run: a turn of the real event loop. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
