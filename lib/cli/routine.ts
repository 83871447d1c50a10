/** A routine's end as a promise. */
import { type Routine, startRoutine } from "../core/routine.js";

export function runRoutine<T>(routine: Routine<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    startRoutine(routine, (error, value) => {
      if (error === null) resolve(value as T);
      else reject(error instanceof Error ? error : new Error(String(error)));
    });
  });
}
