/** systemd's readiness protocol (sd_notify(3)). */
import { addon } from "./addon.js";

const NO_DESCRIPTORS = new Int32Array(0);

/**
 * Sends `state` ("READY=1", "STOPPING=1", "STATUS=…") to the service manager that started this process. Does
 * nothing, and returns false, when there is none or it does not listen.
 */
export function sdNotify(state: string, socket: string | undefined = process.env["NOTIFY_SOCKET"]): boolean {
  // Other kinds of address (vsock:) are for machines, not for processes.
  if (socket === undefined || !/^[/@]/.test(socket)) return false;
  return addon().datagramSend(socket, state, NO_DESCRIPTORS) === 0;
}
