/**
 * STARTTLS over any byte stream, with node:tls.
 *
 * It runs over the engine's stream instead of a socket of Node's own, so that it works alike on the ring and
 * on threads. Each connection has a tls.Server of its own, which never listens: Node documents handing a
 * server a stream (`emit("connection", duplex)`), and so verification, alerts and time-outs are Node's and
 * nothing private is touched.
 */

import { createServer, type Server, type TLSSocket } from "node:tls";
import type { TlsMode } from "nbd-protocol-ts";
import type { Pool } from "../core/pool.js";
import type { ByteStream } from "../core/stream.js";
import { CipherBudget, type CipherMemory } from "./cipher-memory.js";
import type { SecuredStream, TlsUpgrade, Upgrading } from "./connection.js";
import { readTlsCredentials, type TlsCredentials } from "./tls-credentials.js";
import { StreamDuplex, TlsStream } from "./tls-stream.js";

export interface TlsSettings {
  readonly mode: TlsMode;
  /** See tls-credentials.ts. */
  readonly directory: string;
}

export interface ReloadableTls extends TlsUpgrade {
  /** What connections to come are shown and asked for. */
  use(credentials: TlsCredentials): void;
}

type Done = (secured: SecuredStream | null, reason: string) => void;

/** Throws LaminaError TLS_FILES. */
export function createTls(settings: TlsSettings, pool: Pool): ReloadableTls {
  return createTlsOf(settings.mode, readTlsCredentials(settings.directory), pool);
}

export function createTlsOf(mode: TlsMode, credentials: TlsCredentials, pool: Pool): ReloadableTls {
  return new Tls(mode, credentials, pool);
}

class Tls implements ReloadableTls {
  readonly mode: TlsMode;
  readonly #pool: Pool;
  #credentials: TlsCredentials;
  readonly #budget: CipherBudget;

  constructor(mode: TlsMode, credentials: TlsCredentials, pool: Pool) {
    this.mode = mode;
    this.#pool = pool;
    this.#budget = new CipherBudget(pool);
    this.#credentials = credentials;
  }

  use(credentials: TlsCredentials): void {
    this.#credentials = credentials;
  }

  upgrade(stream: ByteStream, done: Done): Upgrading {
    const memory = this.#budget.take();
    if (memory === null) {
      stream.setListener({
        streamReceived(): void {},
        streamSent(): void {},
        streamClosed: () => done(null, "there is no memory for another TLS connection"),
      });
      stream.close();
      return { abort(): void {} };
    }
    return new Upgrade(stream, this.#pool, memory, this.#credentials, done);
  }
}

/** One TLS handshake. */
class Upgrade implements Upgrading {
  readonly #below: ByteStream;
  readonly #pool: Pool;
  readonly #done: Done;
  readonly #duplex: StreamDuplex;
  readonly #server: Server;
  /** Claimed by the client; worth something only if its key was used in the end. */
  #identity: string | null = null;
  #secured: TlsStream | null = null;
  #reason = "the TLS handshake was not finished";
  #over = false;

  constructor(below: ByteStream, pool: Pool, memory: CipherMemory, credentials: TlsCredentials, done: Done) {
    this.#below = below;
    this.#pool = pool;
    this.#done = done;
    this.#duplex = new StreamDuplex(below, pool, memory, () => this.#closedBelow());
    this.#duplex.on("error", (error) => this.#note(error));
    const { keys, options } = credentials;
    this.#server = createServer({
      ...options,
      ...(keys.size === 0
        ? {}
        : { pskCallback: (_socket: TLSSocket, identity: string) => this.#keyOf(keys, identity) }),
    });
    this.#server.on("tlsClientError", (error) => {
      this.#note(error);
      this.#duplex.destroy();
    });
    this.#server.on("secureConnection", (socket) => this.#established(socket));
    this.#server.emit("connection", this.#duplex);
  }

  abort(): void {
    this.#duplex.destroy();
  }

  #note(error: Error): void {
    this.#reason = `TLS failed: ${error.message}`;
  }

  #keyOf(keys: ReadonlyMap<string, Buffer>, identity: string): Buffer | null {
    const key = keys.get(identity);
    if (key === undefined) return null;
    this.#identity = identity;
    return key;
  }

  #established(socket: TLSSocket): void {
    if (this.#over || this.#duplex.destroyed) return;
    this.#over = true;
    this.#secured = new TlsStream(socket, this.#below, this.#pool);
    const certificate = certificateName(socket);
    const psk = provedKey(socket) ? this.#identity : null;
    this.#done({ stream: this.#secured, certificate, psk }, "");
  }

  #closedBelow(): void {
    if (this.#secured !== null) {
      this.#secured.belowClosed();
      return;
    }
    if (this.#over) return;
    this.#over = true;
    this.#done(null, this.#reason);
  }
}

/**
 * Whether the handshake rests on a pre-shared key. Looking one up is no proof: a TLS 1.3 client that names an
 * identity and offers only suites of another hash is asked for no binder and goes on with certificates. A
 * session cannot be resumed here (each connection has ticket keys of its own), so "reused" means a key.
 */
function provedKey(socket: TLSSocket): boolean {
  return socket.getProtocol() === "TLSv1.3" ? socket.isSessionReused() : /PSK/.test(socket.getCipher().name);
}

/** Common name of the client's certificate, which has been verified; null when it showed none. */
function certificateName(socket: TLSSocket): string | null {
  if (!socket.authorized) return null;
  const { subject } = socket.getPeerCertificate();
  const name: unknown = subject?.CN;
  return typeof name === "string" ? name : null;
}
