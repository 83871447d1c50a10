/** Waiting, as the mirror does it: with a bound, on a clock that is given, so that the simulator can be that clock. */
import { performance } from "node:perf_hooks";
import type { Timer } from "../core/clock.js";

/** What of a clock the mirror needs. */
export interface MirrorClock {
  /** Monotonic milliseconds. */
  now(): number;
  /** `background`: the process need not live for it. */
  setTimer(delayMs: number, fire: () => void, background?: boolean): Timer;
}

export const systemClock: MirrorClock = {
  now: () => performance.now(),
  setTimer(delayMs: number, fire: () => void, background = false): Timer {
    const timer = setTimeout(fire, delayMs);
    if (background) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

export function sleep(ms: number, clock: MirrorClock = systemClock): Promise<void> {
  return new Promise<void>((resolve) => {
    clock.setTimer(ms, resolve);
  });
}

/** Rejects when `work` has no outcome after `ms` milliseconds. What it does afterwards concerns nobody. */
export async function withDeadline<T>(
  work: Promise<T>,
  ms: number,
  clock: MirrorClock = systemClock,
): Promise<T> {
  let timer: Timer | null = null;
  const late = new Promise<never>((_resolve, reject) => {
    timer = clock.setTimer(ms, () => reject(new Error(`no answer within ${ms} ms`)));
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    (timer as Timer | null)?.cancel();
  }
}
