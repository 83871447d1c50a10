/** A client that asks at a steady pace, whatever it gets: what others feel while something happens to the cluster. */
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { attach, type Where } from "../../test/cluster/support/load.js";
import type { NbdClient } from "../../test/interop/support/nbd-client.js";

const BLOCK_BYTES = 4096;
/** Requests that wait at a time; at it no further ones are sent. */
const OPEN_MAX = 64;

export interface Answered {
  /** Milliseconds of performance.now. */
  readonly begun: number;
  readonly ended: number;
}

export class SteadyWriter {
  readonly answers: Answered[] = [];
  readonly #client: NbdClient;
  readonly #blocks: number;
  readonly #everyMs: number;
  readonly #open = new Set<Promise<void>>();
  #ends = false;
  #running: Promise<void> = Promise.resolve();

  private constructor(client: NbdClient, blocks: number, everyMs: number) {
    this.#client = client;
    this.#blocks = blocks;
    this.#everyMs = everyMs;
  }

  /** Random blocks of the first `bytes` of the volume, one every `everyMs`. */
  static async start(
    where: Where,
    volume: string,
    options: { readonly bytes: number; readonly everyMs: number },
  ): Promise<SteadyWriter> {
    const client = await attach(where, volume);
    const writer = new SteadyWriter(client, Math.floor(options.bytes / BLOCK_BYTES), options.everyMs);
    writer.#running = writer.#run();
    return writer;
  }

  async #run(): Promise<void> {
    let due = performance.now();
    while (!this.#ends) {
      due = Math.max(due + this.#everyMs, performance.now() - this.#everyMs);
      const left = due - performance.now();
      if (left > 0) await sleep(left);
      if (this.#open.size >= OPEN_MAX) await Promise.race(this.#open);
      const one: Promise<void> = this.#write().finally(() => this.#open.delete(one));
      this.#open.add(one);
    }
    await Promise.all(this.#open);
  }

  async #write(): Promise<void> {
    const begun = performance.now();
    const block = Math.floor(Math.random() * this.#blocks);
    await this.#client.write(block * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 1 + (block & 0x7f)));
    this.answers.push({ begun, ended: performance.now() });
  }

  /** Waits for what is under way. Rejected when the connection was lost or an error was answered. */
  async stop(): Promise<void> {
    this.#ends = true;
    await this.#running;
    await this.#client.close();
  }

  /** Its server is about to be killed: what comes of its requests is nobody's concern any more. */
  abandon(): void {
    this.#ends = true;
    this.#running.catch(() => undefined);
    this.#client.destroy();
  }

  /** Longest time that a request begun in a span of time took. */
  longest(from: number, to: number): number {
    return Math.max(0, ...this.#latencies(from, to));
  }

  percentile(part: number, from: number, to: number): number {
    const sorted = this.#latencies(from, to).sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
  }

  #latencies(from: number, to: number): number[] {
    return this.answers
      .filter(({ begun }) => begun >= from && begun < to)
      .map(({ begun, ended }) => ended - begun);
  }
}
