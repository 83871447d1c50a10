/** Time as core rooms see it. The simulator's implementation is a number that it moves itself. */
export interface Clock {
  /** Monotonic milliseconds; only differences mean something. */
  now(): number;
  /** Milliseconds since 1970, for labels that people read. Never compared to decide anything. */
  wall(): number;
  /** Runs `fire` once, `delayMs` from now at the earliest. */
  setTimer(delayMs: number, fire: () => void): Timer;
}

export interface Timer {
  /** The timer will not fire any more. Harmless after it has fired. */
  cancel(): void;
}

export interface Random {
  /** Uniform integer 0 … 2^32 − 1. */
  u32(): number;
}

/**
 * Work at the end of the current batch of events. Completions are queued, then run; what they asked for is
 * gathered and submitted once: one log append, one kernel entry, one send per connection.
 */
export interface Ticker {
  /**
   * `task.tick()` runs once, after the events of this batch have been delivered and before the engine
   * submits what was queued. Asking again before it ran is harmless only if the caller keeps that to once
   * itself: every call is one run. Tasks run in the order of their asking; tasks asked for by a task run in
   * the same batch.
   */
  atTickEnd(task: TickTask): void;
}

export interface TickTask {
  tick(): void;
}
