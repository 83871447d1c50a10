/** Node's sockets as the ground of a client's handshake. */
import { once } from "node:events";
import type { Socket } from "node:net";
import type { ClientHandshake } from "nbd-protocol-ts";

/** Hands bytes back and forth until `until`. Throws when the handshake, or the connection, has ended before. */
export async function pump(socket: Socket, handshake: ClientHandshake, until: () => boolean): Promise<void> {
  while (!until()) {
    if (handshake.state === "dead" || handshake.state === "closed") throw new Error(handshake.reason);
    const chunk = await next(socket);
    const taken = handshake.feed(chunk);
    if (taken < chunk.length) socket.unshift(chunk.subarray(taken));
    socket.write(handshake.takeOutput());
  }
}

/** What has arrived. Throws when nothing comes any more. */
export async function next(socket: Socket): Promise<Buffer> {
  for (;;) {
    const chunk = socket.read() as Buffer | null;
    if (chunk !== null) return chunk;
    if (socket.readableEnded || socket.destroyed) throw new Error("the server closed the connection");
    await Promise.race([once(socket, "readable"), once(socket, "end"), once(socket, "close")]);
  }
}
