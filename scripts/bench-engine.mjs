#!/usr/bin/env node
// What the parts of the I/O engine cost, on this machine, now: microseconds and CPU per operation. Not a test:
// nothing is judged, and numbers of a busy machine mean little. Needs a build (npm run build).
//
//   bench-engine.mjs [--dir DIRECTORY] [--seconds N] [ring|threads]…

import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const { openEngine } = await import(join(ROOT, "dist/lib/uring/engine.js"));
const { addon } = await import(join(ROOT, "dist/lib/uring/addon.js"));

const KIB = 1024;
const MIB = 1024 * KIB;
const FILE_BYTES = 64 * MIB;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { dir: { type: "string", default: tmpdir() }, seconds: { type: "string", default: "0.5" } },
});
const millis = Number(values.seconds) * 1000;

function report(name, count, elapsedMs, cpu) {
  const micros = ((elapsedMs * 1000) / count).toFixed(2).padStart(9);
  const used = ((cpu.user + cpu.system) / count).toFixed(2).padStart(9);
  console.log(`${name.padEnd(36)}${micros} µs${used} µs CPU`);
}

/** Calls `operation` for a while. */
function synchronous(name, operation) {
  for (let i = 0; i < 1000; i++) operation(i);
  const cpu = process.cpuUsage();
  const start = performance.now();
  let count = 0;
  while (performance.now() - start < millis) for (let i = 0; i < 100; i++) operation(count++);
  report(name, count, performance.now() - start, process.cpuUsage(cpu));
}

/** `start(done)` begins one operation; `depth` of them are kept going for a while. */
async function asynchronous(name, depth, start) {
  await new Promise((resolve) => {
    let count = 0;
    let open = 0;
    let cpu = process.cpuUsage();
    let begun = performance.now();
    let warm = false;
    const done = () => {
      count++;
      open--;
      const now = performance.now();
      if (!warm && now - begun > millis / 4) {
        warm = true;
        count = 0;
        begun = now;
        cpu = process.cpuUsage();
      } else if (warm && now - begun > millis) {
        if (open === 0) {
          report(`${name}, depth ${depth}`, count, now - begun, process.cpuUsage(cpu));
          resolve();
        }
        return;
      }
      open++;
      start(done);
    };
    for (let i = 0; i < depth; i++) {
      open++;
      start(done);
    }
  });
}

async function disk(engine) {
  const path = join(values.dir, `bench-engine-${process.pid}`);
  const { disk, direct } = await engine.openDisk({ path, createBytes: FILE_BYTES });
  console.log(`disk: ${path}, direct I/O ${direct ? "on" : "refused"}`);
  const memory = engine.pool.allocate(MIB);
  for (let at = 0; at < FILE_BYTES; at += MIB) {
    await new Promise((resolve) => disk.write(at, memory, MIB, { diskDone: resolve }, 0));
  }
  synchronous("append of 4 KiB", (i) => disk.appendNow((i * 4096) % FILE_BYTES, memory, 4096));
  for (const depth of [1, 32]) {
    let slot = 0;
    const next = () => ((Math.random() * FILE_BYTES) >>> 12) * 4096;
    await asynchronous("read of 4 KiB", depth, (done) => {
      slot = (slot + 1) % 256;
      disk.read(next(), memory + slot * 4096, 4096, { diskDone: done }, 0);
    });
    await asynchronous("write of 4 KiB", depth, (done) => {
      slot = (slot + 1) % 256;
      disk.write(next(), memory + slot * 4096, 4096, { diskDone: done }, 0);
    });
  }
  await asynchronous("sync of nothing", 1, (done) => disk.sync({ diskDone: done }, 0));
  disk.close();
  rmSync(path);
}

/** A client that sends 32 bytes and a server that answers 16 + 4096, both in this process. */
async function echo(engine) {
  const memory = engine.pool.allocate(64 * KIB);
  const reply = Uint32Array.of(memory, 16, memory + 4096, 4096);
  const request = Uint32Array.of(memory, 32);
  const listener = await engine.listen({ kind: "tcp", host: "127.0.0.1", port: 0 }, (stream) => {
    const at = engine.pool.allocate(64 * KIB);
    stream.setListener({
      streamReceived: (got) => (got > 0 ? stream.send(reply, 2) : stream.close()),
      streamSent: () => stream.receive(at, 64 * KIB),
      streamClosed: () => {},
    });
    stream.receive(at, 64 * KIB);
  });
  const clients = [];
  for (let i = 0; i < 16; i++) {
    const stream = await engine.connect(listener.address);
    const at = engine.pool.allocate(8 * KIB);
    const client = { stream, done: null, got: 0 };
    stream.setListener({
      streamReceived(got) {
        client.got += got;
        if (client.got < 4112) return stream.receive(at, 8 * KIB);
        client.got = 0;
        free.push(client);
        client.done();
      },
      streamSent: () => stream.receive(at, 8 * KIB),
      streamClosed: () => {},
    });
    clients.push(client);
  }
  let free = clients.slice(0, 1);
  const ask = (done) => {
    const client = free.pop();
    client.done = done;
    client.stream.send(request, 1);
  };
  await asynchronous("32 bytes there, 4112 back", 1, ask);
  free = clients.slice();
  await asynchronous("the same on 16 connections", 16, ask);
  for (const { stream } of clients) stream.close();
  await listener.close();
}

for (const kind of positionals.length > 0 ? positionals : ["ring", "threads"]) {
  const engine = openEngine({ kind, poolBytes: 16 * MIB });
  console.log(`--- ${kind}`);
  if (kind === "ring" || positionals.length === 1) {
    const at = engine.pool.allocate(MIB);
    const out = new Uint32Array(256);
    synchronous("crc32c of 4 KiB", () => engine.checksums.crc32c(at, 4096, 0));
    synchronous("crc32c of 4 KiB, portable", () => addon().checksumPortable(0, at, 4096, 0));
    synchronous("entries of 1 block", () => engine.checksums.blockEntries(at, 1, 1, 0, out, 0));
    synchronous("entries of 256 blocks", () => engine.checksums.blockEntries(at, 256, 1, 0, out, 0));
    engine.pool.free(at);
  }
  await disk(engine);
  await echo(engine);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await engine.close();
}
