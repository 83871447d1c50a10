/** What a machine must have for a test; what is missing is the reason that is printed when it is skipped. */
import { existsSync } from "node:fs";
import { hasCommand } from "./process.js";
import { SERVER_KIND } from "./server.js";

export interface Requirements {
  readonly commands?: readonly string[];
  readonly root?: boolean;
  /** Something that only Lamina does (checksums, its command line). */
  readonly lamina?: boolean;
  readonly paths?: readonly string[];
}

/** `{ skip: reason }` or `{}`: the options of t.test. */
export function requires(needed: Requirements): { skip?: string } {
  const reason = missing(needed);
  return reason === null ? {} : { skip: reason };
}

function missing(needed: Requirements): string | null {
  if (needed.lamina === true && SERVER_KIND !== "lamina") return `${SERVER_KIND} has nothing of this kind`;
  if (needed.root === true && process.getuid?.() !== 0) return "needs root";
  for (const command of needed.commands ?? []) {
    if (!hasCommand(command)) return `${command} is not installed (./scripts/test installs it)`;
  }
  for (const path of needed.paths ?? []) {
    if (!existsSync(path)) return `${path} is missing`;
  }
  return null;
}
