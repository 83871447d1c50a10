/** Listening and connecting with node:net. */
import { connect, createServer, type Server, type Socket } from "node:net";
import { LaminaError } from "../core/errors.js";
import type { ByteStream } from "../core/stream.js";
import { Errno } from "./abi.js";
import { addressText, isAbstract, refusalText, UNIX_PATH_BYTES_MAX } from "./address.js";
import type { ListenAddress, Listener } from "./api.js";
import { errnoText } from "./errno.js";
import { openListening, unlinkSocket } from "./listening.js";
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
  const listening = await openListening(wanted);
  try {
    await listenOn(server, listening.fd);
  } catch (error) {
    unlinkSocket(listening);
    throw new LaminaError(
      "LISTEN_REFUSED",
      { address: addressText(wanted), what: refusalText(error) },
      error,
    );
  }
  // Streams that were accepted live on: the listener is closed once it accepts no more.
  const leave = async (): Promise<void> => void server.close();
  return {
    address: listening.address,
    fd: listening.fd,
    leave,
    async close() {
      await leave();
      unlinkSocket(listening);
    },
  };
}

function refuseOddPath(address: ListenAddress): void {
  if (address.kind !== "unix") return;
  if (Buffer.byteLength(address.path) > UNIX_PATH_BYTES_MAX) throw new Error(errnoText(Errno.ENAMETOOLONG));
  // Node pads an abstract name with zeros to the end of the address (libuv), which is another name.
  if (isAbstract(address.path)) throw new Error("without io_uring abstract sockets cannot be reached");
}

/** Node goes on with a socket that it did not make, and removes no path at its end. */
function listenOn(server: Server, fd: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ fd }, () => {
      server.off("error", reject);
      // Out of descriptors: clients wait in the backlog until there are some.
      server.on("error", () => {});
      resolve();
    });
  });
}

export function threadsConnect(context: ThreadsNetContext, address: ListenAddress): Promise<ByteStream> {
  return new Promise((resolve, reject) => {
    const refused = (error: unknown): void => {
      const params = { address: addressText(address), what: refusalText(error) };
      reject(new LaminaError("CONNECT_REFUSED", params, error));
    };
    let socket: Socket;
    try {
      refuseOddPath(address);
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
