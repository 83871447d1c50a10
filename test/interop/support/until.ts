import { pause } from "./server.js";

const STEP_MS = 100;
/** Far more than anything waited for takes; the bound only keeps a broken run from hanging. */
const STEPS_MAX = 600;

/** Waits until `holds`; throws with `what` when it never does. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < STEPS_MAX; i++) {
    if (await holds()) return;
    await pause(STEP_MS);
  }
  throw new Error(`never happened: ${what}`);
}
