/** Sockets that systemd or libnbd hands over to `lamina serve`. */
import { inheritedListeners } from "../../gateway/activation.js";
import { boundAddress } from "../../uring/inherited.js";
import type { InheritedListener } from "./options.js";

/**
 * The listening sockets that this process was started with; the variables that announce them are removed from
 * its environment. Throws LISTEN_REFUSED when one is no TCP or unix socket.
 */
export function takeInherited(): InheritedListener[] {
  return inheritedListeners(process.env, process.pid).map((listen) => ({
    listen,
    bound: listen.kind === "fd" ? boundAddress(listen.fd) : listen,
  }));
}
