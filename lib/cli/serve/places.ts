/** Where a server is to listen: addresses that were found to be free, or sockets that it has already. */
import type { ListenAddress } from "../../uring/api.js";
import { openListening } from "../../uring/listening.js";
import { tryAddress } from "./listeners.js";
import type { ServeOptions } from "./options.js";
import type { TakeOver } from "./take-over.js";

export interface Places {
  /** In the order of `ServeOptions.listen`. */
  readonly listen: readonly ListenAddress[];
  /** Descriptors; −1: to be made. */
  readonly admin: { readonly local: number; readonly remote: number };
}

/** Throws LISTEN_REFUSED. In place of another server everything is bound here: later there is no way back. */
export async function findPlaces(options: ServeOptions, takeOver: TakeOver | null): Promise<Places> {
  if (takeOver === null) {
    for (const address of options.listen) {
      if (address.kind === "tcp") await tryAddress(address.host, address.port);
    }
    await tryAddress(options.admin.host, options.admin.port);
    return { listen: options.listen, admin: { local: -1, remote: -1 } };
  }
  const listen: ListenAddress[] = [];
  for (const address of options.listen) {
    if (address.kind === "fd") listen.push(address);
    else listen.push(takeOver.listening(address) ?? (await made(address)));
  }
  const remote = takeOver.admin(options.admin) ?? (await openListening({ kind: "tcp", ...options.admin })).fd;
  return { listen, admin: { local: takeOver.adminLocal() ?? -1, remote } };
}

async function made(address: ListenAddress): Promise<ListenAddress> {
  const { fd, unlink } = await openListening(address);
  return { kind: "fd", fd, unlink };
}
