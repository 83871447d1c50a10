/**
 * Curves: what start-up, attaching and memory cost against the mapped size, the number of volumes and the number of
 * connections, in memory (sparse tmpfs takes the large sizes). For each curve the constant is printed: the least-squares
 * line through its points. Started by `scripts/bench --scale`.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { NbdClient } from "../../test/interop/support/nbd-client.js";
import { removeScratch, scratchDirectory } from "../../test/interop/support/scratch.js";
import { LaminaServer, processMemory } from "../../test/interop/support/server.js";
import { median } from "./report.js";
import { type Curve, type Point, scaleMarkdown } from "./scale-report.js";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const EXTENT_BYTES = 4 * MIB;
const BLOCK_BYTES = 4096;
/** Requests in flight while extents are mapped, and volumes while they are created. */
const IN_FLIGHT = 64;
/** Beside the volume: the reserve of free slots, and what a small device needs anyway. */
const SPARE_BYTES = GIB;
/** A device has room for a volume record for each so many bytes (two slots). */
const VOLUME_CAPACITY_BYTES = 2 * EXTENT_BYTES;
/** Starts of a server, of which the median counts. */
const STARTS = 3;
const VOLUME = "v";

function now(): number {
  return performance.now();
}

function capacityFor(bytes: number): string {
  return String(Math.ceil((bytes * 1.1 + SPARE_BYTES) / MIB) * MIB);
}

/** `count` calls of `task`, several at a time. */
async function many(count: number, task: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await task(next++);
  };
  await Promise.all(Array.from({ length: Math.min(IN_FLIGHT, count) }, worker));
}

/** Starts the server and attaches to `volume`, several times: medians of what both take, and of what the server holds then. */
async function startAndAttach(
  server: LaminaServer,
  volume: string,
  lastBlock: number,
): Promise<Point["values"]> {
  const starts: number[] = [];
  const attaches: number[] = [];
  const memory: number[] = [];
  for (let i = 0; i < STARTS; i++) {
    const started = now();
    await server.start();
    const ready = now();
    const client = await NbdClient.connect(server.host, server.port, volume);
    await client.read(lastBlock, BLOCK_BYTES);
    starts.push(ready - started);
    attaches.push(now() - ready);
    memory.push(processMemory(server.pid, "VmRSS") / MIB);
    await client.close();
    await server.stop();
  }
  return { "start-up, ms": median(starts), "attach, ms": median(attaches), "memory, MiB": median(memory) };
}

/** One block in each extent is mapped, as the tables and the directory see it, and costs the least memory. */
async function mapped(folder: string, gib: number): Promise<Point> {
  const data = scratchDirectory(folder);
  const server = new LaminaServer({ data, capacity: capacityFor(gib * GIB) });
  try {
    await server.start();
    await server.createVolume(VOLUME, String(gib * GIB));
    const client = await NbdClient.connect(server.host, server.port, VOLUME);
    const block = Buffer.alloc(BLOCK_BYTES, 0x77);
    const extents = (gib * GIB) / EXTENT_BYTES;
    await many(extents, (extent) => client.write(extent * EXTENT_BYTES, block));
    await client.flush();
    await client.close();
    await server.stop();
    return { x: gib, values: await startAndAttach(server, VOLUME, (extents - 1) * EXTENT_BYTES) };
  } finally {
    await server.dispose();
    await removeScratch(data);
  }
}

async function volumes(folder: string, count: number): Promise<Point> {
  const data = scratchDirectory(folder);
  const server = new LaminaServer({ data, capacity: capacityFor(GIB + count * VOLUME_CAPACITY_BYTES) });
  try {
    await server.start();
    const begun = now();
    await many(count, (index) => createVolume(data, `v${index}`));
    const creation = (now() - begun) / count;
    await server.stop();
    const values = await startAndAttach(server, `v${count - 1}`, 0);
    return { x: count, values: { "creation, ms each": creation, ...values } };
  } finally {
    await server.dispose();
    await removeScratch(data);
  }
}

function createVolume(data: string, name: string): Promise<void> {
  const body = JSON.stringify({ name, size: MIB });
  return new Promise((resolve, reject) => {
    const headers = { host: "localhost", "content-type": "application/json", "content-length": body.length };
    const options = { socketPath: join(data, "admin.sock"), path: "/v1/volumes", method: "POST", headers };
    const asked = request(options, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      answer.on("end", () => {
        if (answer.statusCode === 201) resolve();
        else reject(new Error(`creating ${name}: ${answer.statusCode} ${text}`));
      });
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

/** Connections one after the other, each with a first read; then a read of each of them at once. */
async function connections(folder: string, count: number): Promise<Point> {
  const data = scratchDirectory(folder);
  const server = new LaminaServer({ data, capacity: capacityFor(GIB) });
  const clients: NbdClient[] = [];
  try {
    await server.start();
    await server.createVolume(VOLUME, String(GIB));
    const begun = now();
    for (let i = 0; i < count; i++) {
      const client = await NbdClient.connect(server.host, server.port, VOLUME);
      clients.push(client);
      await client.read(0, BLOCK_BYTES);
    }
    const attach = (now() - begun) / count;
    const round = now();
    await Promise.all(clients.map((client) => client.read(0, BLOCK_BYTES)));
    const reads = now() - round;
    const memory = processMemory(server.pid, "VmRSS") / MIB;
    await Promise.all(clients.map((client) => client.close()));
    await server.stop();
    return {
      x: count,
      values: { "attach, ms each": attach, "one read on each, ms": reads, "memory, MiB": memory },
    };
  } finally {
    await server.dispose();
    await removeScratch(data);
  }
}

async function curve(
  name: string,
  unit: string,
  xs: readonly number[],
  point: (x: number) => Promise<Point>,
): Promise<Curve> {
  const points: Point[] = [];
  for (const x of xs) {
    const one = await point(x);
    points.push(one);
    console.error(`${name}  ${x} ${unit}: ${JSON.stringify(one.values)}`);
  }
  return { name, unit, points };
}

function numbers(list: string): number[] {
  return list.split(",").filter(Boolean).map(Number);
}

const { values } = parseArgs({
  options: {
    scale: { type: "boolean", default: true },
    "mapped-gib": { type: "string", default: "1,16,128,1024" },
    volumes: { type: "string", default: "1,100,1000,10000" },
    connections: { type: "string", default: "1,10,100,1000" },
    "ram-dir": { type: "string", default: "/dev/shm" },
    out: { type: "string" },
  },
});
const folder = values["ram-dir"];
const curves = [
  await curve("mapped size", "GiB", numbers(values["mapped-gib"]), (gib) => mapped(folder, gib)),
  await curve("volumes", "volumes", numbers(values.volumes), (count) => volumes(folder, count)),
  await curve("connections", "connections", numbers(values.connections), (count) =>
    connections(folder, count),
  ),
];
const text = scaleMarkdown(curves, `scripts/bench ${process.argv.slice(2).join(" ")}`.trim());
console.log(text);
if (values.out !== undefined) {
  mkdirSync(dirname(values.out), { recursive: true });
  writeFileSync(`${values.out}.md`, text);
  writeFileSync(`${values.out}.json`, `${JSON.stringify(curves, null, 1)}\n`);
}
