/**
 * Sockets handed over by whoever started the program (systemd, or libnbd's `nbdinfo [ lamina … ]`): the
 * protocol of sd_listen_fds(3).
 */
import type { ListenAddress } from "../uring/api.js";

/** First descriptor that can be handed over. */
const SD_LISTEN_FDS_START = 3;
/** More than anyone hands over; a larger number is a mistake. */
const LISTEN_FDS_MAX = 64;

/**
 * The listening sockets that `environment` announces for process `pid`; none when it announces nothing, or
 * announces it for another process. The variables are removed, so that children do not take them for theirs.
 */
export function inheritedListeners(
  environment: Record<string, string | undefined>,
  pid: number,
): ListenAddress[] {
  const count = Number(environment["LISTEN_FDS"]);
  const forUs = environment["LISTEN_PID"] === String(pid);
  delete environment["LISTEN_FDS"];
  delete environment["LISTEN_PID"];
  delete environment["LISTEN_FDNAMES"];
  if (!forUs || !Number.isInteger(count) || count < 1 || count > LISTEN_FDS_MAX) return [];
  return Array.from({ length: count }, (_, i) => ({ kind: "fd", fd: SD_LISTEN_FDS_START + i }));
}
