/** Sockets that this process was started with. */
import { LaminaError } from "../core/errors.js";
import { addon } from "./addon.js";
import { listenAddressOf } from "./address.js";
import type { ListenAddress } from "./api.js";
import { errnoText } from "./errno.js";

/** Where the socket `fd` is bound. Throws LISTEN_REFUSED when that is neither a TCP address nor a path. */
export function boundAddress(fd: number): ListenAddress {
  const refused = (what: string): LaminaError =>
    new LaminaError("LISTEN_REFUSED", { address: `descriptor ${fd}`, what });
  const name = addon().socketName(fd);
  if (typeof name === "number") throw refused(errnoText(name));
  // Families without a name of this kind (vsock, abstract sockets) may be open to others than they seem.
  if (name.family === "unix" && name.path === "")
    throw refused("it is neither a TCP nor a named unix socket");
  return listenAddressOf(name);
}
