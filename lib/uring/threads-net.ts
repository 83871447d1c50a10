/** Listening and connecting with node:net. */
import { unlinkSync } from "node:fs";
import { connect, createServer, type ListenOptions, type Server, type Socket } from "node:net";
import { LaminaError } from "../core/errors.js";
import type { ByteStream } from "../core/stream.js";
import { Errno } from "./abi.js";
import { addressText, BACKLOG, isStale, refusalText, UNIX_PATH_BYTES_MAX } from "./address.js";
import type { ListenAddress, Listener } from "./api.js";
import { errnoText } from "./errno.js";
import { type ThreadsNetContext, ThreadsStream } from "./threads-stream.js";

export async function threadsListen(
  context: ThreadsNetContext,
  wanted: ListenAddress,
  onStream: (stream: ByteStream) => void,
): Promise<Listener> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    const stream = new ThreadsStream(context, socket);
    context.loop.run(() => onStream(stream));
  });
  try {
    await bind(server, wanted);
  } catch (error) {
    throw new LaminaError(
      "LISTEN_REFUSED",
      { address: addressText(wanted), what: refusalText(error) },
      error,
    );
  }
  return {
    address: boundAddress(server),
    close: () => closeServer(server),
  };
}

async function bind(server: Server, wanted: ListenAddress): Promise<void> {
  refuseLongPath(wanted);
  try {
    await bindOnce(server, listenOptions(wanted));
  } catch (error) {
    const inUse = (error as NodeJS.ErrnoException).code === "EADDRINUSE";
    if (!inUse || wanted.kind !== "unix" || !(await isStale(wanted.path))) throw error;
    unlinkSync(wanted.path);
    await bindOnce(server, listenOptions(wanted));
  }
}

function refuseLongPath(address: ListenAddress): void {
  if (address.kind !== "unix" || Buffer.byteLength(address.path) <= UNIX_PATH_BYTES_MAX) return;
  throw new Error(errnoText(Errno.ENAMETOOLONG));
}

function bindOnce(server: Server, options: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(options, () => {
      server.off("error", reject);
      // Out of descriptors: clients wait in the backlog until there are some.
      server.on("error", () => {});
      resolve();
    });
  });
}

function listenOptions(address: ListenAddress): ListenOptions {
  switch (address.kind) {
    case "tcp":
      return { host: address.host, port: address.port, backlog: BACKLOG };
    case "unix":
      return { path: address.path, backlog: BACKLOG };
    case "fd":
      return { fd: address.fd } as ListenOptions;
  }
}

function boundAddress(server: Server): ListenAddress {
  const address = server.address();
  if (typeof address === "string") return { kind: "unix", path: address };
  return { kind: "tcp", host: address?.address ?? "", port: address?.port ?? 0 };
}

/** Streams that were accepted live on: the listener is closed once it accepts no more. */
function closeServer(server: Server): Promise<void> {
  server.close();
  return Promise.resolve();
}

export function threadsConnect(context: ThreadsNetContext, address: ListenAddress): Promise<ByteStream> {
  return new Promise((resolve, reject) => {
    const refused = (error: unknown): void => {
      const params = { address: addressText(address), what: refusalText(error) };
      reject(new LaminaError("CONNECT_REFUSED", params, error));
    };
    let socket: Socket;
    try {
      refuseLongPath(address);
    } catch (error) {
      refused(error);
      return;
    }
    if (address.kind === "tcp") {
      socket = connect({ host: address.host, port: address.port, allowHalfOpen: true });
    } else if (address.kind === "unix") {
      socket = connect({ path: address.path, allowHalfOpen: true });
    } else {
      refused(new Error("an inherited descriptor is for listening"));
      return;
    }
    socket.pause();
    socket.once("error", refused);
    socket.once("connect", () => {
      socket.off("error", refused);
      resolve(new ThreadsStream(context, socket));
    });
  });
}
