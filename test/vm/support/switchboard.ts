/**
 * A TCP relay between a guest and a server whose lines a test can cut, or connect to someone else: a gateway that
 * breaks, goes away, or comes back as another.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import type { Test } from "tap";

/** Speaks to a client instead of the server. */
export type Impostor = (socket: Socket) => void;

export class Switchboard {
  readonly #target: () => number;
  readonly #lines = new Set<Socket>();
  #server: Server;
  #port = 0;
  #impostor: Impostor | null = null;
  /** Connections so far. */
  accepted = 0;

  private constructor(target: () => number) {
    this.#target = target;
    this.#server = this.#make();
  }

  static async open(t: Test, target: () => number): Promise<Switchboard> {
    const board = new Switchboard(target);
    await board.raise();
    t.teardown(() => {
      board.cutAll();
      board.#server.close();
    });
    return board;
  }

  get port(): number {
    return this.#port;
  }

  /** Listens (again), on the port that it had. */
  async raise(): Promise<void> {
    this.#server = this.#make();
    await new Promise<void>((resolve) => this.#server.listen(this.#port, "127.0.0.1", resolve));
    const address = this.#server.address();
    if (typeof address === "object" && address !== null) this.#port = address.port;
  }

  /** Refuses connections and ends those that there are. */
  async leave(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.cutAll();
    await closed;
  }

  /** Ends the oldest line. */
  cutOne(): void {
    const [line] = this.#lines;
    line?.destroy();
  }

  cutAll(): void {
    for (const line of this.#lines) line.destroy();
  }

  /** Who answers from now on; null for the server itself. */
  answerWith(impostor: Impostor | null): void {
    this.#impostor = impostor;
  }

  #make(): Server {
    return createServer((socket) => this.#accept(socket));
  }

  #accept(socket: Socket): void {
    this.accepted++;
    this.#lines.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => this.#lines.delete(socket));
    socket.setNoDelay(true);
    if (this.#impostor !== null) {
      this.#impostor(socket);
      return;
    }
    const server = connect({ host: "127.0.0.1", port: this.#target(), noDelay: true });
    server.on("error", () => socket.destroy());
    server.on("close", () => socket.destroy());
    socket.on("close", () => server.destroy());
    socket.pipe(server);
    server.pipe(socket);
  }
}
