/**
 * A simulated connection. The server's side is lib/core's ByteStream; the client's side are the methods that begin
 * with `client`.
 *
 * Fault model: bytes arrive in order, after a while, in parts of any size; the server's output is fetched from
 * memory when it is sent, so memory that is reused too early shows; a slow reader takes little at a time; a
 * connection breaks at any byte, and what the server had not received by then it may still receive, or not.
 */
import type { SimPool } from "./memory.js";
import type { Prng } from "./prng.js";
import { StreamEnd, StreamEvent } from "./stream-end.js";
import type { SimProcess, SimWorld } from "./world.js";

export interface SimStreamOptions {
  readonly delayUs: number;
  /** Most bytes that one receive gets, or that a send gives away at a time. */
  readonly partMax: number;
}

export class SimStream extends StreamEnd {
  readonly #world: SimWorld;
  readonly #process: SimProcess;
  readonly #random: Prng;
  readonly #options: SimStreamOptions;
  #onBytes: ((bytes: Uint8Array) => void) | null = null;
  #onEnd: (() => void) | null = null;

  constructor(world: SimWorld, process: SimProcess, pool: SimPool, random: Prng, options: SimStreamOptions) {
    super(pool, random, options.partMax);
    this.#world = world;
    this.#process = process;
    this.#random = random;
    this.#options = options;
  }

  // --- server's side -----------------------------------------------------------------------------------------

  peerGone(): boolean {
    return this.reset || this.incoming.ended;
  }

  protected post(code: number): void {
    const delay = 1 + this.#random.below(this.#options.delayUs);
    this.#world.at(delay, this, this.#process, code, 0);
  }

  protected wantSend(): void {
    this.post(StreamEvent.Send);
  }

  sendPart(bytes: Uint8Array): void {
    this.#onBytes?.(bytes);
  }

  protected received(): void {}

  protected closed(): void {
    this.#onEnd?.();
  }

  // --- client's side -----------------------------------------------------------------------------------------

  clientListen(onBytes: (bytes: Uint8Array) => void, onEnd: () => void): void {
    this.#onBytes = onBytes;
    this.#onEnd = onEnd;
  }

  /** `bytes` are the stream's from now on. */
  clientSend(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.closing) return;
    this.incoming.push(bytes);
    this.tryReceive();
  }

  /** The client ends its side in order. */
  clientEnd(): void {
    this.incoming.ended = true;
    this.tryReceive();
  }

  /** The connection breaks; the client hears nothing more. */
  clientReset(): void {
    this.reset = true;
    this.#onBytes = null;
    this.#onEnd = null;
    this.tryReceive();
  }
}
