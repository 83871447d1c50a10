/** Addresses of listeners: tried before anything is written, shown as URIs afterwards. */
import { createServer } from "node:net";
import { LaminaError } from "../../core/errors.js";
import type { ListenAddress } from "../../uring/api.js";

/**
 * Binds and unbinds a TCP address, so that a port in use is found before a device is formatted. Throws
 * LISTEN_REFUSED. Unix sockets are left to the listener itself, which removes dead ones.
 */
export async function tryAddress(host: string, port: number): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const address = `${host.includes(":") ? `[${host}]` : host}:${port}`;
      reject(new LaminaError("LISTEN_REFUSED", { address, what: reason(error) }, error));
    });
    server.listen({ host, port }, () => server.close(() => resolve()));
  });
}

function reason(error: NodeJS.ErrnoException): string {
  if (error.code === "EADDRINUSE") return "it is in use";
  if (error.code === "EACCES") return "permission denied";
  if (error.code === "EADDRNOTAVAIL") return "this machine does not have that address";
  return error.code === "ENOTFOUND" ? "that host is not known" : error.message;
}

/** nbd://HOST:PORT, or nbd+unix:///?socket=PATH; nbds where nothing is served without TLS. */
export function nbdUri(address: ListenAddress, tlsRequired: boolean): string {
  const scheme = tlsRequired ? "nbds" : "nbd";
  switch (address.kind) {
    case "tcp": {
      const host = address.host.includes(":") ? `[${address.host}]` : address.host;
      return `${scheme}://${host}:${address.port}`;
    }
    case "unix":
      return `${scheme}+unix:///?socket=${encodeURI(address.path)}`;
    case "fd":
      return `fd ${address.fd}`;
  }
}
