/**
 * Encryption of the links between processes of a cluster (docs/architecture/cluster.md "Links over TLS").
 *
 * Both ends show a certificate that the cluster's authority signed, and the one that dials checks that the other's
 * names the host that it dialled. That is not instead of the cluster key: what is handed on here still has to prove it,
 * and both proofs cover `channelBinding`, so somebody in between who has certificates and no key gets nowhere.
 *
 * Invariant: with TLS nothing is ever said in plaintext. There is no negotiation that could be talked out of it.
 */
import { isIP } from "node:net";
import type { SecureContextOptions, TLSSocket } from "node:tls";
import type { Timer } from "../core/clock.js";
import { LaminaError } from "../core/errors.js";
import type { ByteStream } from "../core/stream.js";
import { HELLO_DEADLINE_MS } from "../replica/limits.js";
import { addressText } from "../uring/address.js";
import type { Engine, ListenAddress } from "../uring/api.js";
import type { CipherBudget } from "../uring/cipher-memory.js";
import { acceptTls, connectTls, type Handshaking, type TlsEvents } from "../uring/tls-handshake.js";
import type { DialEnvironment, NodeAddress } from "./dial.js";

/** RFC 9266, "tls-exporter". */
const BINDING_LABEL = "EXPORTER-Channel-Binding";
const BINDING_BYTES = 32;

export type Accepted = (stream: ByteStream | null, reason: string) => void;

export class LinkTls {
  readonly #clock: Engine["clock"];
  readonly #budget: CipherBudget;
  readonly #open = new Set<Handshaking>();
  #credentials: SecureContextOptions;
  #closed: (() => void) | null = null;

  /** `credentials`: see link-credentials.ts. */
  constructor(clock: Engine["clock"], budget: CipherBudget, credentials: SecureContextOptions) {
    this.#clock = clock;
    this.#budget = budget;
    this.#credentials = credentials;
  }

  /** What connections to come show and ask for. */
  use(credentials: SecureContextOptions): void {
    this.#credentials = credentials;
  }

  /** `done` once, never from inside the call: with the encrypted stream, or null when the stream has been closed. */
  accept(stream: ByteStream, done: Accepted): Handshaking {
    const options = { ...this.#credentials, requestCert: true, rejectUnauthorized: true };
    return this.#bounded((events) => acceptTls(stream, this.#budget, options, events), done);
  }

  /** Encrypts a stream that was connected to `host`. */
  connect(stream: ByteStream, host: string, done: Accepted): Handshaking {
    const name = isIP(host) === 0 ? { servername: host } : {};
    const options = { ...this.#credentials, ...name, host, rejectUnauthorized: true };
    return this.#bounded((events) => connectTls(stream, this.#budget, options, events), done);
  }

  /** Cuts what is left, so that the engine can be closed. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#closed = resolve;
      for (const handshake of this.#open) handshake.abort();
      if (this.#open.size === 0) resolve();
    });
  }

  #bounded(begin: (events: TlsEvents) => Handshaking, done: Accepted): Handshaking {
    let deadline: Timer | null = null;
    const handshake = begin({
      done: (secured, reason) => {
        deadline?.cancel();
        if (secured === null) {
          done(null, reason);
          return;
        }
        secured.stream.channelBinding = bindingOf(secured.socket);
        done(secured.stream, "");
      },
      closed: () => {
        this.#open.delete(handshake);
        if (this.#open.size === 0) this.#closed?.();
      },
    });
    this.#open.add(handshake);
    deadline = this.#clock.setTimer(HELLO_DEADLINE_MS, () => handshake.abort());
    if (this.#closed !== null) handshake.abort();
    return handshake;
  }
}

function bindingOf(socket: TLSSocket): Uint8Array {
  return socket.exportKeyingMaterial(BINDING_BYTES, BINDING_LABEL, Buffer.alloc(0));
}

/** Ways to other processes: encrypted if there is `tls`, and otherwise plain. */
export class Dialer implements DialEnvironment {
  readonly pool: DialEnvironment["pool"];
  readonly clock: DialEnvironment["clock"];
  /** Certificates are for hosts. */
  readonly nearby: boolean;
  readonly #engine: DialEnvironment;
  readonly #tls: LinkTls | null;
  #stopped = false;

  constructor(engine: DialEnvironment, tls: LinkTls | null) {
    this.pool = engine.pool;
    this.clock = engine.clock;
    this.nearby = tls === null;
    this.#engine = engine;
    this.#tls = tls;
  }

  async connect(address: ListenAddress): Promise<ByteStream> {
    const stream = await this.#engine.connect(address);
    // The engine and its memory may be gone by now, and with them whoever waits for this.
    if (this.#stopped) return NEVER;
    return this.#tls === null || address.kind !== "tcp" ? stream : secured(this.#tls, stream, address);
  }

  /** Before the engine is closed: connections that come about later are nobody's. */
  stop(): void {
    this.#stopped = true;
  }
}

const NEVER = new Promise<never>(() => undefined);

function secured(tls: LinkTls, stream: ByteStream, address: NodeAddress): Promise<ByteStream> {
  return new Promise((resolve, reject) => {
    tls.connect(stream, address.host, (secure, what) => {
      if (secure !== null) resolve(secure);
      else reject(new LaminaError("CONNECT_REFUSED", { address: addressText(address), what }));
    });
  });
}
