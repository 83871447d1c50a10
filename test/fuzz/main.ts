/**
 * scripts/fuzz: inputs over the state machines, then over a live server, for as long as one likes.
 *
 *     node dist/test/fuzz/main.js [--inputs N] [--live N] [--bursts N] [--seed N]
 *
 * --inputs over the machines; --live conversations to a server, each a connection of its own; --bursts messages to
 * the same server, many to a connection. A line now and then, with memory; ends with 1 and the seed and number of
 * what failed.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { openSession } from "../conformance/raw-client.js";
import type { Place } from "../conformance/raw-socket.js";
import { removeScratch, scratchDirectory } from "../interop/support/scratch.js";
import { LaminaServer, processMemory } from "../interop/support/server.js";
import { until } from "../interop/support/until.js";
import { fuzzOne } from "../unit/nbd/fuzzer.js";
import { fuzzBursts } from "./burst-fuzzer.js";
import { fuzzLive } from "./live-fuzzer.js";

const MIB = 1 << 20;
const MACHINE_STEP = 100_000;
const LIVE_STEP = 1000;
const LIVE_LINE = 10_000;
const BURST_STEP = 100_000;
/** Small against the store: on a full device writes wait, which is right and would look like a hang. */
const VOLUME = "64M";
const VOLUME_BYTES = 64 * MIB;
/**
 * Objects that the server may keep, in MiB: three times what it keeps under this load. Left to itself the collector
 * lets garbage grow by hundreds of MiB before it looks at it, which cannot be told from a leak; with this bound a leak
 * of objects ends the server.
 */
const HEAP_MIB = 32;
/**
 * Memory swings by tens of MiB, so single numbers prove nothing. A leak raises the least that is seen in a whole
 * window; more than this above the most of the warm-up is one.
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

/** A server, and memory of it that must not grow. */
class Target {
  readonly server: LaminaServer;
  readonly places: readonly [Place, Place];
  readonly #growth = new Growth();

  private constructor(server: LaminaServer, path: string) {
    this.server = server;
    const tcp = { kind: "tcp", host: server.host, port: server.port } as const;
    this.places = [tcp, { kind: "unix", path }];
  }

  static async start(): Promise<Target> {
    const data = scratchDirectory();
    const path = join(data, "nbd.sock");
    const server = new LaminaServer({
      data,
      args: ["--listen", `unix:${path}`],
      capacity: "1G",
      // One that keeps more ends, instead of growing until somebody looks.
      nodeArgs: [`--max-old-space-size=${HEAP_MIB}`],
    });
    await server.start();
    await server.createVolume("vol", VOLUME);
    await server.createVolume("other", VOLUME);
    return new Target(server, path);
  }

  /** A real client is served, and memory has not grown. Returns it in MiB. */
  async check(): Promise<number> {
    const session = await openSession(this.places[0], "vol");
    await session.read(0, 4096);
    await session.leave();
    // Not the pool: it is shared memory of a fixed size, whose pages come into use one by one.
    const anonymous = processMemory(this.server.pid, "RssAnon");
    this.#growth.check(anonymous);
    return Math.round(anonymous / MIB);
  }

  /** Every connection was let go of, the server ends in order, and its store is whole. */
  async end(): Promise<void> {
    await until("every connection is let go of", async () => {
      return JSON.stringify(await this.server.json("status")).includes('"connections":0');
    });
    await this.server.stop();
    const fsck = await this.server.fsck();
    if (fsck.code !== 0) throw new Error(`fsck after it:\n${fsck.stdout}`);
  }

  async dispose(): Promise<void> {
    await this.server.dispose();
    await removeScratch(this.server.data);
  }
}

async function fuzzServer(conversations: number, messages: number, seed: number): Promise<void> {
  if (conversations + messages === 0) return;
  const target = await Target.start();
  try {
    await fuzzConversations(target, conversations, seed);
    await fuzzMessages(target, messages, seed);
    await target.end();
  } catch (error) {
    // What the server leaves behind must not hide what was wrong.
    await target.dispose().catch(() => {});
    throw error;
  }
  await target.dispose();
}

async function fuzzConversations(target: Target, inputs: number, seed: number): Promise<void> {
  for (let done = 0; done < inputs; ) {
    const count = Math.min(LIVE_STEP, inputs - done);
    const { answered } = await fuzzLive(target.places, seed, done, count);
    done += count;
    const mib = await target.check();
    if (done % LIVE_LINE === 0 || done === inputs) {
      console.log(`live: seed ${seed}, ${done} inputs, ${answered} bytes answered, ${mib} MiB`);
    }
  }
}

async function fuzzMessages(target: Target, inputs: number, seed: number): Promise<void> {
  let conversations = 0;
  let refused = 0;
  for (let done = 0; done < inputs; ) {
    const count = Math.min(BURST_STEP, inputs - done);
    const run = await fuzzBursts(target.places, VOLUME_BYTES, seed, conversations, count);
    done += run.inputs;
    refused += run.refused;
    conversations += run.conversations;
    const mib = await target.check();
    const what = `${done} inputs, ${conversations} connections, ${refused} refused`;
    console.log(`bursts: seed ${seed}, ${what}, ${mib} MiB`);
  }
}

const { values } = parseArgs({
  options: {
    inputs: { type: "string", default: "1000000" },
    live: { type: "string", default: "20000" },
    bursts: { type: "string", default: "1000000" },
    seed: { type: "string", default: String(Math.floor(Date.now() / 1000)) },
  },
});
const seed = Number(values.seed);
fuzzMachines(Number(values.inputs), seed);
await fuzzServer(Number(values.live), Number(values.bursts), seed);
