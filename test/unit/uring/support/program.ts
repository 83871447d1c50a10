/**
 * Programs that the tests run as processes or threads of their own: `program.ts NAME KIND ARGUMENTS…`.
 */
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parentPort, Worker, workerData } from "node:worker_threads";
import { KIB, MIB } from "../../../../lib/core/limits.js";
import type { ByteStream } from "../../../../lib/core/stream.js";
import type { Engine, EngineKind, PoolShare } from "../../../../lib/uring/api.js";
import { openEngine } from "../../../../lib/uring/engine.js";
import { diskRead, diskWrite, diskZero, fillPattern } from "./engines.js";
import { connectedPair, LOOPBACK, type TestStream } from "./streams.js";

interface Order {
  readonly name: string;
  readonly kind: EngineKind | "auto";
  readonly args: readonly string[];
  readonly share?: PoolShare;
}

const order: Order =
  parentPort === null
    ? { name: process.argv[2]!, kind: process.argv[3] as EngineKind | "auto", args: process.argv.slice(4) }
    : (workerData as Order);

function open(): Engine {
  const share = order.share === undefined ? {} : { poolShare: order.share };
  return openEngine({ kind: order.kind, poolBytes: 16 * MIB, ...share });
}

function say(line: string): void {
  if (parentPort === null) process.stdout.write(`${line}\n`);
  else parentPort.postMessage(line);
}

/** Reads and writes without end, and two connections that never rest. */
async function keepBusy(engine: Engine, path: string): Promise<void> {
  const { disk } = await engine.openDisk({ path, createBytes: 4 * MIB });
  const memory = engine.pool.allocate(MIB);
  const listener = {
    diskDone(tag: number): void {
      if (tag % 2 === 0)
        disk.read((tag % 64) * 4 * KIB, memory + (tag % 64) * 4 * KIB, 4 * KIB, listener, tag);
      else disk.write((tag % 64) * 4 * KIB, memory + (tag % 64) * 4 * KIB, 4 * KIB, listener, tag);
    },
  };
  for (let tag = 0; tag < 64; tag++) listener.diskDone(tag);
  disk.zero(2 * MIB, MIB, { diskDone: () => disk.zero(2 * MIB, MIB, listener, 1) }, 0);
  const pair = await connectedPair(engine);
  const bounce = async (from: TestStream, to: TestStream, at: number): Promise<void> => {
    for (;;) {
      const [sent, got] = await Promise.all([from.send([at, 1000]), to.receive(at + 4096, 4096)]);
      if (sent < 0 || got <= 0) return;
    }
  };
  void bounce(pair.client, pair.server, engine.pool.allocate(8 * KIB));
  void bounce(pair.server, pair.client, engine.pool.allocate(8 * KIB));
}

/** Everything once, with every byte of memory given back: for the sanitizer. */
async function exercise(engine: Engine, path: string): Promise<void> {
  const { disk, reserve } = await engine.openDisk({ path, createBytes: 4 * MIB });
  const memory = engine.pool.allocate(MIB);
  fillPattern(engine.pool.bytes.subarray(memory, memory + MIB), 5);
  await reserve(0, MIB);
  await diskWrite(disk, 0, memory, MIB);
  await diskRead(disk, 0, memory, MIB);
  await diskZero(disk, 0, MIB);
  disk.appendNow(77, memory, 999);
  engine.checksums.blockEntries(memory, 256, 1, 2, new Uint32Array(256), 0);
  for (let length = 0; length < 300; length++) engine.checksums.crc32c(memory + MIB - length, length, length);
  disk.close();
  const pair = await connectedPair(engine);
  const pieces = Array.from({ length: 512 }, (_, i) => [memory + i * 100, 100]).flat();
  const sent = pair.client.send(pieces);
  await pair.server.receiveAll(engine.pool.allocate(MIB), 51_200);
  await sent;
  void pair.server.receive(memory, 10);
  await pair.close();
}

const programs: Record<string, (engine: Engine) => Promise<void>> = {
  /** Opens a disk, uses it, leaves everything open: the process ends by itself. */
  async idle(engine) {
    const { disk } = await engine.openDisk({ path: order.args[0]!, createBytes: MIB });
    const memory = engine.pool.allocate(4 * KIB);
    say(`read ${await diskRead(disk, 0, memory, 4 * KIB)}`);
  },
  /** Says which engine runs, and why not the other one. */
  async describe(engine) {
    say(engine.kind);
    say(String(engine.fallbackReason));
    await engine.close();
  },
  /** Listens and stays. */
  async listen(engine) {
    const listener = await engine.listen(LOOPBACK, () => {});
    say(`listening ${listener.address.kind === "tcp" ? listener.address.port : 0}`);
  },
  /** Holds a connection on which nothing happens, and stays. */
  async connection(engine) {
    const port = Number(order.args[0]);
    const stream: ByteStream = await engine.connect({ kind: "tcp", host: "127.0.0.1", port });
    stream.setListener({ streamReceived() {}, streamSent() {}, streamClosed() {} });
    say("connected");
  },
  /** A timer alone keeps the process until it has fired. */
  async timer(engine) {
    engine.clock.setTimer(50, () => say("fired"));
  },
  /** Exits with status 7 while reads, writes, sends and receives are in flight. */
  async exit(engine) {
    await keepBusy(engine, order.args[0]!);
    setTimeout(() => process.exit(7), 50);
  },
  async busy(engine) {
    await keepBusy(engine, order.args[0]!);
    setTimeout(() => say("busy"), 30);
  },
  /** Holds the device until it is killed. */
  async hold(engine) {
    await engine.openDisk({ path: order.args[0]! });
    say(`holding ${process.pid}`);
    setInterval(() => {}, 1000);
  },
  /** Has one write of recognisable bytes in flight for ever, and says so. */
  async "write-slowly"(engine) {
    const { disk } = await engine.openDisk({ path: order.args[0]! });
    const memory = engine.pool.allocate(4 * KIB);
    engine.pool.bytes.fill(0xee, memory, memory + 4 * KIB);
    disk.write(0, memory, 4 * KIB, { diskDone: () => say("landed") }, 0);
    setTimeout(() => say("writing"), 100);
  },
  /** Shares the pool of another thread: answers a word in its memory with another. */
  async shared(engine) {
    const { pool } = engine;
    const theirs = Number(order.args[0]);
    const seen = pool.view.getUint32(theirs);
    pool.view.setUint32(theirs, seen + 1);
    const mine: number[] = [];
    for (let at = pool.allocate(MIB); at >= 0; at = pool.allocate(MIB)) mine.push(at);
    pool.bytes.fill(0xab, mine[0]!, mine[0]! + 4096);
    say(JSON.stringify({ seen, mine, crc: engine.checksums.crc32c(theirs, 4, 0) }));
    await engine.close();
  },
  /** Ends two threads of its own that are busy, then itself. */
  async terminate(engine) {
    const workers = [0, 1].map(
      (i) =>
        new Worker(fileURLToPath(import.meta.url), {
          workerData: { name: "busy", kind: order.kind, args: [`${order.args[0]!}${i}`] },
        }),
    );
    await Promise.all(workers.map((worker) => once(worker, "message")));
    await Promise.all(workers.map((worker) => worker.terminate()));
    await engine.close();
  },
  async exercise(engine) {
    await exercise(engine, order.args[0]!);
    await engine.close();
    say("exercised");
  },
};

const program = programs[order.name];
if (program === undefined) throw new Error(`no program ${order.name}`);
await program(open());
