/** A hand-driven engine: a queue of completions, virtual time, ends of batches, and a small pool. */
import type { Checksums } from "../../../../lib/core/checksum.js";
import { blockSeed, entryOfCrc } from "../../../../lib/core/checksum.js";
import type { Clock, Random, Ticker, TickTask, Timer } from "../../../../lib/core/clock.js";
import { BLOCK_BYTES, MIB } from "../../../../lib/core/limits.js";
import { Pool } from "../../../../lib/core/pool.js";
import { type Routine, startRoutine } from "../../../../lib/core/routine.js";

interface Alarm {
  readonly at: number;
  readonly order: number;
  fire: (() => void) | null;
}

export class Engine implements Clock, Random, Ticker {
  readonly pool: Pool;
  readonly checksums: Checksums;
  #now = 1000;
  #order = 0;
  #seed = 1;
  #queue: (() => void)[] = [];
  #tasks: TickTask[] = [];
  #alarms: Alarm[] = [];
  #running = false;

  constructor(poolBytes = 16 * MIB) {
    this.pool = new Pool(new Uint8Array(poolBytes));
    this.checksums = plainChecksums(this.pool);
  }

  now(): number {
    return this.#now;
  }
  wall(): number {
    return 1_700_000_000_000 + this.#now;
  }
  u32(): number {
    this.#seed = (Math.imul(this.#seed, 1664525) + 1013904223) >>> 0;
    return this.#seed;
  }
  atTickEnd(task: TickTask): void {
    this.#tasks.push(task);
  }
  setTimer(delayMs: number, fire: () => void): Timer {
    const alarm: Alarm = { at: this.#now + delayMs, order: this.#order++, fire };
    this.#alarms.push(alarm);
    return {
      cancel: () => {
        alarm.fire = null;
      },
    };
  }

  complete(run: () => void): void {
    this.#queue.push(run);
  }

  /** Delivers batches until nothing is left to do without time passing. */
  settle(): void {
    if (this.#running) throw new Error("the engine does not call itself");
    this.#running = true;
    try {
      while (this.#queue.length > 0 || this.#tasks.length > 0) {
        const batch = this.#queue;
        this.#queue = [];
        for (const run of batch) run();
        while (this.#tasks.length > 0) this.#tasks.shift()!.tick();
      }
    } finally {
      this.#running = false;
    }
  }

  /** Time passes; timers fire in order. */
  advance(ms: number): void {
    const until = this.#now + ms;
    this.settle();
    for (;;) {
      const due = this.#alarms
        .filter((alarm) => alarm.fire !== null && alarm.at <= until)
        .sort((a, b) => a.at - b.at || a.order - b.order)[0];
      if (due === undefined) break;
      this.#alarms = this.#alarms.filter((alarm) => alarm !== due && alarm.fire !== null);
      this.#now = Math.max(this.#now, due.at);
      due.fire?.();
      this.settle();
    }
    this.#now = until;
  }

  /** Runs a routine to its end; throws what it throws. Time passes if it waits for time. */
  run<T>(routine: Routine<T>): T {
    let result: { error: unknown; value: T | undefined } | null = null;
    startRoutine(routine, (error, value) => {
      result = { error, value };
    });
    for (let i = 0; result === null && i < 1000; i++) {
      this.settle();
      if (result === null) this.advance(10);
    }
    const ended = result as { error: unknown; value: T | undefined } | null;
    if (ended === null) throw new Error("the routine did not end");
    if (ended.error !== null) throw ended.error;
    return ended.value as T;
  }

  /** The process dies: nothing that was asked for happens any more. */
  kill(): void {
    this.#queue = [];
    this.#tasks = [];
    this.#alarms = [];
  }
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

export function crc32c(bytes: Uint8Array, from: number, to: number, seed: number): number {
  let crc = ~seed;
  for (let i = from; i < to; i++) crc = CRC_TABLE[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

function plainChecksums(pool: Pool): Checksums {
  return {
    crc32c: (memory, length, seed) => crc32c(pool.bytes, memory, memory + length, seed),
    crc32cBytes: (bytes, seed) => crc32c(bytes, 0, bytes.length, seed),
    blockEntries(memory, count, extentSeed, firstBlock, out, at) {
      for (let i = 0; i < count; i++) {
        const start = memory + i * BLOCK_BYTES;
        out[at + i] = entryOfCrc(
          crc32c(pool.bytes, start, start + BLOCK_BYTES, blockSeed(extentSeed, firstBlock + i)),
        );
      }
    },
  };
}
