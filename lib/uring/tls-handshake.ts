/**
 * TLS over any byte stream, with node:tls, for either end.
 *
 * It runs over the engine's stream instead of a socket of Node's own, so that it works alike on the ring and on
 * threads. An accepting end has a tls.Server of its own for each connection, which never listens: Node documents
 * handing a server a stream (`emit("connection", duplex)`), and so verification, alerts and time-outs are Node's and
 * nothing private is touched.
 */
import { type ConnectionOptions, connect, createServer, type TLSSocket, type TlsOptions } from "node:tls";
import type { Pool } from "../core/pool.js";
import type { ByteStream } from "../core/stream.js";
import type { CipherBudget } from "./cipher-memory.js";
import { makeRoomForTlsGarbage } from "./tls-garbage.js";
import { StreamDuplex, TlsStream, tlsFault } from "./tls-stream.js";

export interface Secured {
  readonly stream: TlsStream;
  /** For questions about the handshake. */
  readonly socket: TLSSocket;
}

/** Null: TLS did not come about, the stream is closed, and one sentence says why. */
export type Secure = (secured: Secured | null, reason: string) => void;

/** A handshake that is under way, or the connection that came of it. */
export interface Handshaking {
  /** Gives up: null follows, or after the handshake the end of the stream. Harmless after that. */
  abort(): void;
}

export interface TlsEvents {
  readonly done: Secure;
  /** The stream below is closed, and the memory for it is back in the pool. */
  readonly closed?: () => void;
}

/** As the end that was connected to. The stream is its own from now on. */
export function acceptTls(
  stream: ByteStream,
  budget: CipherBudget,
  options: TlsOptions,
  events: TlsEvents,
): Handshaking {
  return Handshake.over(stream, budget, events, (handshake, duplex) => {
    const server = createServer(options);
    server.on("tlsClientError", (error, socket) => handshake.failed(refusalOf(socket) ?? error));
    server.on("secureConnection", (socket) => handshake.established(socket));
    server.emit("connection", duplex);
  });
}

/** As the end that connected. The stream is its own from now on. */
export function connectTls(
  stream: ByteStream,
  budget: CipherBudget,
  options: Omit<ConnectionOptions, "socket">,
  events: TlsEvents,
): Handshaking {
  return Handshake.over(stream, budget, events, (handshake, duplex) => {
    const socket = connect({ ...options, socket: duplex });
    const failed = (error: Error): void => handshake.failed(error);
    const closed = (): void => handshake.abort();
    socket.on("error", failed).on("close", closed);
    socket.once("secureConnect", () => {
      handshake.established(socket);
      socket.off("error", failed).off("close", closed);
    });
  });
}

/** Node hangs up on a certificate that it does not believe in, and says so nowhere else. */
function refusalOf({ authorizationError }: TLSSocket): Error | null {
  const code: unknown = authorizationError;
  return typeof code === "string" ? new Error(`the certificate of the other side is refused: ${code}`) : null;
}

/** One TLS handshake. */
class Handshake implements Handshaking {
  readonly #below: ByteStream;
  readonly #pool: Pool;
  readonly #events: TlsEvents;
  readonly #duplex: StreamDuplex | null;
  #secured: TlsStream | null = null;
  #reason = "the TLS handshake was not finished";
  #over = false;

  static over(
    below: ByteStream,
    budget: CipherBudget,
    events: TlsEvents,
    begin: (handshake: Handshake, duplex: StreamDuplex) => void,
  ): Handshake {
    const handshake = new Handshake(below, budget, events);
    const duplex = handshake.#duplex;
    if (duplex !== null) {
      duplex.on("error", (error) => handshake.#note(error));
      // Node would wait for more of a peer that only has ended its side.
      duplex.on("end", () => {
        if (!handshake.#over) handshake.abort();
      });
      begin(handshake, duplex);
      return handshake;
    }
    handshake.#reason = "there is no memory for another TLS connection";
    below.setListener({
      streamReceived(): void {},
      streamSent(): void {},
      streamClosed: () => handshake.#closedBelow(),
    });
    below.close();
    return handshake;
  }

  private constructor(below: ByteStream, budget: CipherBudget, events: TlsEvents) {
    this.#below = below;
    this.#pool = budget.pool;
    this.#events = events;
    makeRoomForTlsGarbage();
    const memory = budget.take();
    this.#duplex =
      memory === null ? null : new StreamDuplex(below, this.#pool, memory, () => this.#closedBelow());
  }

  abort(): void {
    this.#duplex?.destroy();
  }

  failed(error: Error): void {
    this.#note(error);
    this.abort();
  }

  established(socket: TLSSocket): void {
    if (this.#over || this.#duplex?.destroyed !== false) return;
    this.#over = true;
    this.#secured = new TlsStream(socket, this.#below, this.#pool);
    this.#events.done({ stream: this.#secured, socket }, "");
  }

  #note(error: Error): void {
    this.#reason = tlsFault(error);
  }

  #closedBelow(): void {
    this.#events.closed?.();
    if (this.#secured !== null) {
      this.#secured.belowClosed();
      return;
    }
    if (this.#over) return;
    this.#over = true;
    this.#events.done(null, this.#reason);
  }
}
