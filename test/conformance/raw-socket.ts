/**
 * A socket of which a test takes exactly the bytes it wants, and sends any. Over TCP, over a unix socket, and
 * over TLS once a handshake has agreed on it. What has arrived and was not taken stays here, in the test's
 * memory: `pause` makes a slow reader of it.
 */
import { connect as connectPlain, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";

/** Where a server listens. */
export type Place =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** The peer ended the connection before what was asked for had arrived. */
export class PeerClosed extends Error {
  override readonly name = "PeerClosed";
}

/** A test that hangs says nothing; one that waited this long says for what. */
const PATIENCE_MS = 60_000;

export class RawSocket {
  #socket: Socket;
  #chunks: Buffer[] = [];
  #waiting = 0;
  #over = false;
  #wake: (() => void) | null = null;
  /** Called with every piece that arrives, in place of keeping it. */
  onBytes: ((bytes: Buffer) => void) | null = null;
  onClosed: (() => void) | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#listen(socket);
  }

  static async connect(place: Place): Promise<RawSocket> {
    const socket =
      place.kind === "tcp"
        ? connectPlain({ host: place.host, port: place.port, noDelay: true })
        : connectPlain({ path: place.path });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new RawSocket(socket);
  }

  /** The same of a connection that somebody else has begun. */
  static of(socket: Socket): RawSocket {
    return new RawSocket(socket);
  }

  /** Whether the peer has ended the connection, in whatever way. */
  get closed(): boolean {
    return this.#over;
  }

  /** Bytes that have arrived and were not taken. */
  get available(): number {
    return this.#waiting;
  }

  /** Sends bytes; a peer that has gone is no error here, `closed` tells. */
  send(...parts: readonly Uint8Array[]): void {
    if (this.#socket.destroyed) return;
    this.#socket.cork();
    for (const part of parts) this.#socket.write(part);
    this.#socket.uncork();
  }

  /** Sends bytes and waits until the kernel has them. False when the peer has gone. */
  async sent(bytes: Uint8Array): Promise<boolean> {
    const socket = this.#socket;
    if (socket.destroyed) return false;
    return new Promise((resolve) => {
      const gone = (): void => resolve(false);
      socket.once("close", gone);
      socket.write(bytes, (error) => {
        socket.off("close", gone);
        resolve(error === undefined || error === null);
      });
    });
  }

  /** The next `length` bytes. Throws PeerClosed when they never come. */
  async exactly(length: number): Promise<Buffer> {
    await this.#until(() => this.#waiting >= length || this.#over, `${length} bytes`);
    if (this.#waiting < length) {
      throw new PeerClosed(`the peer closed with ${this.#waiting} of ${length} bytes sent`);
    }
    return this.take(length);
  }

  /** Bytes that are there. */
  take(length: number): Buffer {
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
    this.#chunks = length < all.length ? [all.subarray(length)] : [];
    this.#waiting -= length;
    return all.subarray(0, length);
  }

  /** Waits for the end of the connection and returns what came before it. */
  async rest(): Promise<Buffer> {
    this.#socket.resume();
    await this.#until(() => this.#over, "the end of the connection");
    return this.take(this.#waiting);
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Ends our side; the peer may still send. */
  end(): void {
    this.#socket.end();
  }

  /** Drops the connection without a word beyond what the kernel says. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Drops a TCP connection with a reset instead of an end. */
  reset(): void {
    this.#socket.resetAndDestroy();
  }

  /** Goes on over TLS; returns the protocol that was agreed on, such as "TLSv1.3". */
  async startTls(options: ConnectionOptions): Promise<string> {
    const plain = this.#socket;
    plain.removeAllListeners("data");
    plain.removeAllListeners("end");
    plain.removeAllListeners("close");
    const secure = connectTls({ ...options, socket: plain });
    const protocol = await new Promise<string>((resolve, reject) => {
      secure.once("secureConnect", () => resolve(secure.getProtocol() ?? "none"));
      secure.once("error", reject);
      secure.once("close", () => reject(new PeerClosed("the peer closed during the TLS handshake")));
    });
    secure.removeAllListeners("error");
    this.#socket = secure;
    this.#listen(secure);
    return protocol;
  }

  #listen(socket: Socket): void {
    const over = (): void => {
      if (this.#over) return;
      this.#over = true;
      this.onClosed?.();
      this.#wakeUp();
    };
    socket.on("data", (bytes: Buffer) => {
      if (this.onBytes !== null) {
        this.onBytes(bytes);
        return;
      }
      this.#chunks.push(bytes);
      this.#waiting += bytes.length;
      this.#wakeUp();
    });
    // Whether it was an end or a reset is the peer's business: nothing more will come.
    socket.on("error", over);
    socket.on("end", over);
    socket.on("close", over);
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = null;
  }

  async #until(holds: () => boolean, what: string): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    while (!holds()) {
      if (Date.now() > deadline) throw new Error(`waited ${PATIENCE_MS} ms for ${what}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, PATIENCE_MS + 1);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
