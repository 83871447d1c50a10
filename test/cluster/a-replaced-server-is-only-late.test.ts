/**
 * A server that another process takes over from, again and again, under a load that verifies itself: nobody is
 * refused, nothing is lost, no request fails. How long clients waited is printed, not judged.
 */
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import t, { type Test } from "tap";
import { NbdClient } from "../interop/support/nbd-client.js";
import { requires } from "../interop/support/requirements.js";
import { LaminaServer, pause } from "../interop/support/server.js";
import { until } from "../interop/support/until.js";
import { VOLUME } from "../interop/support/volume.js";
import { History } from "./support/history.js";
import { Load, verify } from "./support/load.js";
import { SeededRandom } from "./support/random.js";
import { SECTOR_BYTES } from "./support/sector-codec.js";

const MIB = 1 << 20;
const SIZE_BYTES = 32 * MIB;
const REPLACEMENTS = 20;
const VERIFY_EVERY = 5;
const SIGNALS = 3;
const LAMINA_ONLY = requires({ lamina: true });

async function serving(t: Test, args: readonly string[] = []): Promise<LaminaServer> {
  const server = new LaminaServer({ capacity: "1G", args });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "32M");
  return server;
}

/** Connects again and again; counts refusals. */
class Prober {
  refused = 0;
  connected = 0;
  #stopping = false;
  readonly #ended: Promise<void>;

  constructor(port: number) {
    this.#ended = this.#run(port);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#ended;
  }

  async #run(port: number): Promise<void> {
    while (!this.#stopping) {
      await new Promise<void>((resolve) => {
        const socket = connect({ host: "127.0.0.1", port });
        socket.on("error", (error: NodeJS.ErrnoException) => {
          if (error.code === "ECONNREFUSED") this.refused++;
        });
        socket.once("connect", () => {
          this.connected++;
          socket.destroy();
        });
        socket.once("close", () => resolve());
      });
      await sleep(2);
    }
  }
}

/** Reads one block without a pause, on a connection that is made anew whenever it ends; measures the gaps. */
class Witness {
  readonly gapsMs: number[] = [];
  readonly failures: string[] = [];
  #stopping = false;
  readonly #ended: Promise<void>;

  constructor(server: LaminaServer) {
    this.#ended = this.#run(server);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#ended;
  }

  async #run(server: LaminaServer): Promise<void> {
    let last = 0;
    while (!this.#stopping) {
      let client: NbdClient | null = null;
      try {
        client = await NbdClient.connect(server.host, server.port, VOLUME);
        for (let first = true; !this.#stopping; first = false) {
          await client.read(0, 4096);
          const now = performance.now();
          if (first && last > 0) this.gapsMs.push(now - last);
          last = now;
        }
      } catch (error) {
        if (/ECONNREFUSED|server answered/.test(String(error))) this.failures.push(String(error));
      }
      client?.destroy();
    }
  }
}

t.test(`${REPLACEMENTS} replacements under a verified load`, LAMINA_ONLY, async (t) => {
  const server = await serving(t);
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  const random = new SeededRandom(seed);
  const history = new History(SIZE_BYTES / SECTOR_BYTES);
  const load = new Load(history, random);
  const prober = new Prober(server.port);
  const witness = new Witness(server);
  for (let round = 1; round <= REPLACEMENTS; round++) {
    await load.start(server, VOLUME);
    await pause(random.between(20, 200));
    await server.replace();
    await load.cutOff();
    history.settleUnfinished();
    if (round % VERIFY_EVERY === 0) await verify(server, VOLUME, history, "touched");
  }
  await witness.stop();
  await prober.stop();
  await server.stop();
  t.same(history.violations, [], "no acknowledged write is lost");
  t.same(load.errors, [], "no request was answered with an error");
  t.same(witness.failures, [], "no client was refused, and none was told of an error");
  t.equal(prober.refused, 0, `of ${prober.connected} connections none was refused`);
  t.ok(prober.connected > 10 * REPLACEMENTS, "there were many");
  t.ok(load.counts.writes > REPLACEMENTS, `${load.counts.writes} writes were acknowledged`);
  const { code, stdout } = await server.fsck();
  t.equal(code, 0, stdout);
  const gaps = witness.gapsMs.map(Math.round).sort((a, b) => a - b);
  t.comment(`a client that reads without a pause waited ${gaps.join(", ")} ms`);
});

t.test("SIGUSR2: the program replaces itself", LAMINA_ONLY, async (t) => {
  const server = await serving(t, ["--redis", "none"]);
  const history = new History(SIZE_BYTES / SECTOR_BYTES);
  const load = new Load(history, new SeededRandom(7));
  const pids = new Set([server.pid]);
  for (let round = 1; round <= SIGNALS; round++) {
    await load.start(server, VOLUME);
    const { pid } = (await server.json("status")) as { pid: number };
    process.kill(pid, "SIGUSR2");
    await load.cutOff();
    history.settleUnfinished();
    await verify(server, VOLUME, history, "touched");
    pids.add(((await server.json("status")) as { pid: number }).pid);
  }
  t.equal(pids.size, 1 + SIGNALS, "each time another process");
  t.same([...history.violations, ...load.errors], []);
  await server.lamina("stop");
  const { code, stdout } = await server.fsck();
  t.equal(code, 0, stdout);
  await until("all have ended", () => Promise.resolve(![...pids].some(isAlive)));
});

t.test("connection threads are replaced too", LAMINA_ONLY, async (t) => {
  const server = await serving(t, ["--redis", "none", "--threads", "2"]);
  const history = new History(SIZE_BYTES / SECTOR_BYTES);
  const load = new Load(history, new SeededRandom(8));
  for (let round = 1; round <= 3; round++) {
    await load.start(server, VOLUME);
    await server.replace();
    await load.cutOff();
    history.settleUnfinished();
    await verify(server, VOLUME, history, "touched");
  }
  t.same([...history.violations, ...load.errors], []);
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
