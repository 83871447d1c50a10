/** STARTTLS of NBD clients: who shows which certificate or key, over the engine's streams. */

import type { TLSSocket, TlsOptions } from "node:tls";
import type { TlsMode } from "nbd-protocol-ts";
import type { ByteStream } from "../core/stream.js";
import type { CipherBudget } from "../uring/cipher-memory.js";
import { acceptTls, type Secure } from "../uring/tls-handshake.js";
import type { SecuredStream, TlsUpgrade, Upgrading } from "./connection.js";
import { readTlsCredentials, type TlsCredentials } from "./tls-credentials.js";

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
export function createTls(settings: TlsSettings, budget: CipherBudget): ReloadableTls {
  return createTlsOf(settings.mode, readTlsCredentials(settings.directory), budget);
}

export function createTlsOf(mode: TlsMode, credentials: TlsCredentials, budget: CipherBudget): ReloadableTls {
  return new Tls(mode, credentials, budget);
}

class Tls implements ReloadableTls {
  readonly mode: TlsMode;
  readonly #budget: CipherBudget;
  #credentials: TlsCredentials;

  constructor(mode: TlsMode, credentials: TlsCredentials, budget: CipherBudget) {
    this.mode = mode;
    this.#budget = budget;
    this.#credentials = credentials;
  }

  use(credentials: TlsCredentials): void {
    this.#credentials = credentials;
  }

  upgrade(stream: ByteStream, done: Done): Upgrading {
    const { keys, options } = this.#credentials;
    /** Claimed by the client; worth something only if its key was used in the end. */
    let claimed: string | null = null;
    const keyOf = (identity: string): Buffer | null => {
      const key = keys.get(identity);
      if (key === undefined) return null;
      claimed = identity;
      return key;
    };
    const all: TlsOptions = {
      ...options,
      ...(keys.size === 0 ? {} : { pskCallback: (_socket: TLSSocket, identity: string) => keyOf(identity) }),
    };
    const secure: Secure = (secured, reason) => {
      if (secured === null) {
        done(null, reason);
        return;
      }
      const { socket } = secured;
      const certificate = certificateName(socket);
      done({ stream: secured.stream, certificate, psk: provedKey(socket) ? claimed : null }, "");
    };
    return acceptTls(stream, this.#budget, all, { done: secure });
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
