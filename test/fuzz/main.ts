/**
 * scripts/fuzz: inputs over the state machines, then over a live server, for as long as one likes.
 *
 *     node dist/test/fuzz/main.js [--inputs N] [--live N] [--seed N]
 *
 * A line after every hundred thousand (machines) or thousand (live) inputs, with memory; ends with 1 and the seed,
 * the number and the bytes of the first input that fails.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openSession } from "../conformance/raw-client.js";
import { LaminaServer, processMemory, scratchDirectory } from "../interop/support/server.js";
import { fuzzOne } from "../unit/nbd/fuzzer.js";
import { fuzzLive } from "./live-fuzzer.js";

const MIB = 1 << 20;
const MACHINE_STEP = 100_000;
const LIVE_STEP = 1000;
/**
 * A collector lets memory swing by tens of MiB, so single numbers prove nothing. A leak raises the least that is
 * seen in a whole window; more than this above the most of the warm-up is one.
 */
const GROWTH_BYTES_MAX = 64 * MIB;
const WINDOW_STEPS = 25;

/** Throws when memory has grown since the first window. */
class Growth {
  #steps = 0;
  #base = 0;
  #least = Number.POSITIVE_INFINITY;

  check(bytes: number): void {
    this.#steps++;
    if (this.#steps <= WINDOW_STEPS) {
      this.#base = Math.max(this.#base, bytes);
      return;
    }
    this.#least = Math.min(this.#least, bytes);
    if (this.#steps % WINDOW_STEPS !== 0) return;
    if (this.#least > this.#base + GROWTH_BYTES_MAX) {
      throw new Error(
        `memory has grown from ${Math.round(this.#base / MIB)} to ${Math.round(this.#least / MIB)} MiB`,
      );
    }
    this.#least = Number.POSITIVE_INFINITY;
  }
}

function fuzzMachines(inputs: number, seed: number): void {
  const growth = new Growth();
  for (let done = 0; done < inputs; ) {
    const end = Math.min(inputs, done + MACHINE_STEP);
    for (; done < end; done++) fuzzOne(seed, done);
    const rss = process.memoryUsage.rss();
    growth.check(rss);
    console.log(`machines: seed ${seed}, ${done} inputs, ${Math.round(rss / MIB)} MiB`);
  }
}

async function fuzzServer(inputs: number, seed: number): Promise<void> {
  const data = scratchDirectory();
  const path = join(data, "nbd.sock");
  const server = new LaminaServer({ args: ["--listen", `unix:${path}`], capacity: "1G" });
  const growth = new Growth();
  try {
    await server.start();
    await server.createVolume("vol", "1G");
    await server.createVolume("other", "64M");
    const tcp = { kind: "tcp", host: server.host, port: server.port } as const;
    const places = [tcp, { kind: "unix", path } as const];
    for (let done = 0; done < inputs; ) {
      const count = Math.min(LIVE_STEP, inputs - done);
      const { answered } = await fuzzLive(places, seed, done, count);
      done += count;
      const session = await openSession(tcp, "vol");
      await session.read(0, 4096);
      await session.leave();
      // Not the pool: it is shared memory of a fixed size, whose pages come into use one by one.
      const rss = processMemory(server.pid, "RssAnon");
      growth.check(rss);
      if (done % (10 * LIVE_STEP) === 0 || done === inputs) {
        console.log(
          `live: seed ${seed}, ${done} inputs, ${answered} bytes answered, ${Math.round(rss / MIB)} MiB`,
        );
      }
    }
    await server.stop();
    const fsck = await server.fsck();
    if (fsck.code !== 0) throw new Error(`fsck after it:\n${fsck.stdout}`);
  } catch (error) {
    // What the server leaves behind must not hide what was wrong.
    await server.dispose().catch(() => {});
    throw error;
  }
  await server.dispose();
}

const { values } = parseArgs({
  options: {
    inputs: { type: "string", default: "1000000" },
    live: { type: "string", default: "20000" },
    seed: { type: "string", default: String(Math.floor(Date.now() / 1000)) },
  },
});
const seed = Number(values.seed);
fuzzMachines(Number(values.inputs), seed);
await fuzzServer(Number(values.live), seed);
