/** Listening sockets, made the same way for both engines and for the admin API. */
import { unlinkSync } from "node:fs";
import { LaminaError } from "../core/errors.js";
import { Errno } from "./abi.js";
import { type Addon, addon } from "./addon.js";
import {
  addressText,
  BACKLOG,
  isAbstract,
  isStale,
  listenAddressOf,
  resolveHost,
  UNIX_SOCKET,
} from "./address.js";
import type { ListenAddress } from "./api.js";
import { errnoOf, errnoText } from "./errno.js";

export interface ListeningSocket {
  readonly fd: number;
  /** The real address: port 0 shows the port that was given. */
  readonly address: ListenAddress;
  /** The path of a unix socket goes when the last listener does. */
  readonly unlink: boolean;
}

/** Binds and listens; the socket is the caller's. Throws LISTEN_REFUSED. */
export async function openListening(wanted: ListenAddress): Promise<ListeningSocket> {
  const native = addon();
  const fd = await descriptorFor(native, wanted);
  if (fd < 0) throw refused(wanted, fd);
  const name = native.socketName(fd);
  if (typeof name === "number") throw refused(wanted, name);
  const unlink =
    wanted.kind === "unix" ? !isAbstract(wanted.path) : wanted.kind === "fd" && wanted.unlink === true;
  return { fd, address: listenAddressOf(name), unlink };
}

function refused(wanted: ListenAddress, errno: number): LaminaError {
  return new LaminaError("LISTEN_REFUSED", { address: addressText(wanted), what: errnoText(errno) });
}

/** A descriptor, or −errno. */
async function descriptorFor(native: Addon, wanted: ListenAddress): Promise<number> {
  switch (wanted.kind) {
    case "fd": {
      const adopted = native.descriptorAdopt(wanted.fd);
      return adopted < 0 ? adopted : wanted.fd;
    }
    case "tcp": {
      let hosts: string[];
      try {
        hosts = await resolveHost(wanted.host);
      } catch (error) {
        return errnoOf(error);
      }
      return native.socketListen(hosts[0]!, wanted.port, BACKLOG);
    }
    case "unix": {
      const fd = native.socketListen(wanted.path, UNIX_SOCKET, BACKLOG);
      if (fd !== Errno.EADDRINUSE || isAbstract(wanted.path) || !(await isStale(wanted.path))) return fd;
      unlinkSync(wanted.path);
      return native.socketListen(wanted.path, UNIX_SOCKET, BACKLOG);
    }
  }
}

/** Closes a socket that nobody listens on any more. */
export function closeListening(socket: ListeningSocket): void {
  addon().fileClose(socket.fd);
  unlinkSocket(socket);
}

/** The socket is closed for good: its path goes too, if it is ours. */
export function unlinkSocket({ address, unlink }: ListeningSocket): void {
  if (unlink && address.kind === "unix") unlinkQuietly(address.path);
}

function unlinkQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
