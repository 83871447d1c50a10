import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { Pool } from "../../../lib/core/pool.js";
import type { ByteStream, StreamListener } from "../../../lib/core/stream.js";
import { CipherBudget } from "../../../lib/uring/cipher-memory.js";
import { StreamDuplex } from "../../../lib/uring/tls-stream.js";

/** A socket that has received what the test says, and uses its buffer for the next bytes at once. */
class Wire implements ByteStream {
  readonly peer = { family: "unix", host: "", port: 0 } as const;
  readonly #pool: Pool;
  #listener: StreamListener | null = null;
  #at = -1;
  #length = 0;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  setListener(listener: StreamListener): void {
    this.#listener = listener;
  }

  receive(offset: number, length: number): void {
    t.equal(this.#at, -1, "one receive at a time");
    this.#at = offset;
    this.#length = length;
    this.#pool.bytes.fill(0xee, offset, offset + length);
  }

  /** As many of the bytes as fit; 0 when nobody receives. */
  deliver(bytes: Uint8Array): number {
    if (this.#at < 0) return 0;
    const count = Math.min(bytes.length, this.#length);
    this.#pool.bytes.set(bytes.subarray(0, count), this.#at);
    this.#at = -1;
    this.#listener!.streamReceived(count);
    return count;
  }

  send(): void {}
  shutdown(): void {}
  close(): void {
    this.#listener!.streamClosed();
  }
}

type Act = "deliver" | "pause" | "resume" | "turn";

/** How many bytes passed. */
async function bytesComeOut(acts: readonly Act[], chunkBytes: number): Promise<number> {
  const pool = new Pool(new Uint8Array(4 * MIB), 0, 4 * MIB);
  const free = pool.freeBytes;
  const wire = new Wire(pool);
  const memory = new CipherBudget(pool).take()!;
  const duplex = new StreamDuplex(wire, pool, memory, () => {});
  const sent: Buffer[] = [];
  const got: Buffer[] = [];
  // What node:tls does: it copies the bytes before it returns.
  duplex.on("data", (chunk: Buffer) => got.push(Buffer.from(chunk)));
  let next = 0;
  for (const act of [...acts, "resume"] as const) {
    if (act === "pause") duplex.pause();
    else if (act === "resume") duplex.resume();
    else if (act === "turn") await turn();
    else {
      next = (next + 1) % 200;
      const bytes = Buffer.alloc(chunkBytes, next);
      sent.push(bytes.subarray(0, wire.deliver(bytes)));
    }
  }
  for (let i = 0; i < 4; i++) await turn();
  t.ok(Buffer.concat(got).equals(Buffer.concat(sent)), `${acts.join(" ")}, ${chunkBytes} bytes at a time`);
  duplex.destroy();
  await turn();
  t.equal(pool.freeBytes, free, "all memory is back in the pool");
  return Buffer.concat(sent).length;
}

t.test("whoever reads, and whenever: what was received is what comes out", async () => {
  const act = fc.constantFrom<Act>("deliver", "deliver", "deliver", "pause", "resume", "turn", "turn");
  // The first fills no buffer, the second the small one, so that it is replaced by a larger one.
  const chunkBytes = fc.constantFrom(100, 200_000);
  const property = fc.asyncProperty(fc.array(act, { maxLength: 30 }), chunkBytes, async (acts, bytes) => {
    await bytesComeOut(acts, bytes);
  });
  await fc.assert(property, { numRuns: 40 });
});

t.test("without a pause nothing is copied twice, and large buffers come and go", async () => {
  const acts: Act[] = [];
  for (let i = 0; i < 20; i++) acts.push("turn", "deliver");
  t.ok((await bytesComeOut(acts, 200_000)) > 20 * 32_768, "the buffer has grown");
});
