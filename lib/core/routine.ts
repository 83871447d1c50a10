/**
 * Routines: long sequences of I/O (opening, formatting, checkpoints, freeing) as straight code without
 * promises, so that the simulator runs them step by step and in one order. Never used per request.
 *
 *     function* open(): Routine<Superblock> {
 *       const result = yield* diskRead(disk, offset, memory, length);
 *
 * A routine yields a function that starts one thing and calls `resume` once when it is over, from the
 * engine's batch or at once.
 */
import type { Disk } from "./disk.js";

export type Start = (resume: (result: number) => void) => void;
export type Routine<T> = Generator<Start, T, number>;

export type RoutineEnd<T> = (error: unknown, value: T | undefined) => void;

/** Runs `routine` to its end and calls `end` once. What it throws arrives there as `error`. */
export function startRoutine<T>(routine: Routine<T>, end: RoutineEnd<T>): void {
  const step = (input: number): void => {
    let result = input;
    for (;;) {
      let turn: IteratorResult<Start, T>;
      try {
        turn = routine.next(result);
      } catch (error) {
        end(error, undefined);
        return;
      }
      if (turn.done === true) {
        end(null, turn.value);
        return;
      }
      // A start that resumes at once must not recurse: a loop of thousands would use up the stack.
      let inside = true;
      let ready = false;
      turn.value((value) => {
        if (inside) {
          ready = true;
          result = value;
        } else {
          step(value);
        }
      });
      inside = false;
      if (!ready) return;
    }
  };
  step(0);
}

function oneDisk(start: (listener: { diskDone(tag: number, result: number): void }) => void): Start {
  return (resume) => start({ diskDone: (_tag, result) => resume(result) });
}

/** Bytes read or −errno. */
export function* diskRead(disk: Disk, offset: number, memory: number, length: number): Routine<number> {
  return yield oneDisk((listener) => disk.read(offset, memory, length, listener, 0));
}

/** Bytes written or −errno. */
export function* diskWrite(disk: Disk, offset: number, memory: number, length: number): Routine<number> {
  return yield oneDisk((listener) => disk.write(offset, memory, length, listener, 0));
}

/** ≥ 0 or −errno. */
export function* diskZero(disk: Disk, offset: number, length: number): Routine<number> {
  return yield oneDisk((listener) => disk.zero(offset, length, listener, 0));
}

/** ≥ 0 or −errno. */
export function* diskSync(disk: Disk): Routine<number> {
  return yield oneDisk((listener) => disk.sync(listener, 0));
}

/** Runs all of them side by side; the first error is thrown once all have ended. */
export function* all(routines: readonly Routine<void>[]): Routine<void> {
  let failed: unknown = null;
  if (routines.length > 0) {
    yield (resume) => {
      let open = routines.length;
      for (const routine of routines) {
        startRoutine(routine, (error) => {
          if (error !== null && failed === null) failed = error;
          open--;
          if (open === 0) resume(0);
        });
      }
    };
  }
  if (failed !== null) throw failed;
}
