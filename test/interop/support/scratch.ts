/**
 * Directories that a test makes and removes. A private Redis outlives the server that started it for a moment and still
 * writes into its own directory meanwhile; Node's `rmSync` lists a directory once and then only tries `rmdir` again,
 * so a file that appears in between makes every one of its retries fail. Here a retry starts with a new listing.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const STEP_MS = 100;
/** Far longer than a Redis needs to notice that its server is gone. */
const ATTEMPTS_MAX = 300;

/** A new directory with a short path: unix sockets inside it must fit into 107 bytes. */
export function scratchDirectory(parent: string = process.env["LAMINA_TEST_DIR"] ?? tmpdir()): string {
  return mkdtempSync(join(parent, "lamina-"));
}

/** Removes `path` and what is below it; throws when something is still put there after half a minute. */
export async function removeScratch(path: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      rmSync(path, { recursive: true, force: true });
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOTEMPTY" || attempt === ATTEMPTS_MAX) throw error;
    }
    await pause(STEP_MS);
  }
}
