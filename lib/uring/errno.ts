/** Names of error numbers, for messages. */
import { getSystemErrorMap } from "node:util";

/** "ENOSPC (no space left on device)" for −28. */
export function errnoText(errno: number): string {
  const known = getSystemErrorMap().get(errno);
  return known === undefined ? `error ${-errno}` : `${known[0]} (${known[1]})`;
}

/** −errno of an error thrown or handed over by Node; −EIO when it carries none. */
export function errnoOf(error: unknown): number {
  const errno = (error as NodeJS.ErrnoException | null)?.errno;
  return typeof errno === "number" && errno < 0 ? errno : -5;
}
