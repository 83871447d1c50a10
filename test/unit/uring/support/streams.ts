/** Streams with promises, for tests: one receive and one send at a time, as the interface has it. */
import type { ByteStream, StreamListener } from "../../../../lib/core/stream.js";
import type { Engine, ListenAddress, Listener } from "../../../../lib/uring/api.js";

export class TestStream implements StreamListener {
  readonly stream: ByteStream;
  /** In the order of their arrival: "received N", "sent N", "closed". */
  readonly events: string[] = [];
  readonly closed: Promise<void>;
  #onReceived: ((result: number) => void) | null = null;
  #onSent: ((result: number) => void) | null = null;
  #onClosed: () => void = () => {};
  #asking = false;

  constructor(stream: ByteStream) {
    this.stream = stream;
    this.closed = new Promise((resolve) => {
      this.#onClosed = resolve;
    });
    stream.setListener(this);
  }

  streamReceived(result: number): void {
    this.#event(`received ${result}`);
    const done = this.#onReceived;
    this.#onReceived = null;
    done?.(result);
  }

  streamSent(result: number): void {
    this.#event(`sent ${result}`);
    const done = this.#onSent;
    this.#onSent = null;
    done?.(result);
  }

  streamClosed(): void {
    this.#event("closed");
    this.#onClosed();
  }

  receive(offset: number, length: number, whole = false): Promise<number> {
    return new Promise((resolve) => {
      this.#onReceived = resolve;
      this.#ask(() => this.stream.receive(offset, length, whole));
    });
  }

  send(pieces: readonly number[]): Promise<number> {
    return new Promise((resolve) => {
      this.#onSent = resolve;
      const numbers = Uint32Array.from(pieces);
      this.#ask(() => this.stream.send(numbers, numbers.length / 2));
      // The list may be reused on return.
      numbers.fill(0xffffffff);
    });
  }

  /** Exactly `length` bytes, or as many as there were before the end. */
  async receiveAll(offset: number, length: number): Promise<number> {
    let got = 0;
    while (got < length) {
      const result = await this.receive(offset + got, length - got);
      if (result <= 0) break;
      got += result;
    }
    return got;
  }

  async close(): Promise<void> {
    this.#ask(() => this.stream.close());
    await this.closed;
  }

  #ask(ask: () => void): void {
    this.#asking = true;
    ask();
    this.#asking = false;
  }

  #event(text: string): void {
    if (this.#asking) throw new Error(`${text}: inside the call that asked`);
    if (this.events.at(-1) === "closed") throw new Error(`${text}: after closed`);
    this.events.push(text);
  }
}

export interface Pair {
  readonly server: TestStream;
  readonly client: TestStream;
  readonly listener: Listener;
  close(): Promise<void>;
}

export const LOOPBACK: ListenAddress = { kind: "tcp", host: "127.0.0.1", port: 0 };

/** Two ends of one connection. */
export async function connectedPair(engine: Engine, address: ListenAddress = LOOPBACK): Promise<Pair> {
  let accepted: (stream: ByteStream) => void = () => {};
  const arriving = new Promise<ByteStream>((resolve) => {
    accepted = resolve;
  });
  const listener = await engine.listen(address, (stream) => accepted(stream));
  const client = new TestStream(await engine.connect(listener.address));
  const server = new TestStream(await arriving);
  return {
    server,
    client,
    listener,
    async close() {
      await Promise.all([server.close(), client.close(), listener.close()]);
    },
  };
}
