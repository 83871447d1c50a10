import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import t, { type Test } from "tap";
import { KIB, MIB } from "../../../lib/core/limits.js";
import type { ByteStream } from "../../../lib/core/stream.js";
import { fillPattern, onEachEngine } from "./support/engines.js";
import { connectedPair, LOOPBACK, TestStream } from "./support/streams.js";

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** The path of a unix socket has 107 bytes at most; tap's own directories have longer names. */
function socketDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), "lamina-"));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

onEachEngine(t, "gather lists of any shape arrive whole and in order", async (t, engine) => {
  const pair = await connectedPair(engine);
  const { bytes } = engine.pool;
  const out = engine.pool.allocate(MIB);
  const back = engine.pool.allocate(MIB);
  fillPattern(bytes.subarray(out, out + MIB), 11);
  const shapes = fc.array(fc.record({ at: fc.nat(900_000), length: fc.integer({ min: 1, max: 2000 }) }), {
    minLength: 1,
    maxLength: 512,
  });
  await fc.assert(
    fc.asyncProperty(shapes, async (pieces) => {
      const whole = Buffer.concat(
        pieces.map(({ at, length }) => bytes.subarray(out + at, out + at + length)),
      );
      const sent = pair.client.send(pieces.flatMap(({ at, length }) => [out + at, length]));
      let got = 0;
      // Room for 1 MiB at a time: the longest list is longer than that only if every piece is near its limit.
      while (got < whole.length) {
        const result = await pair.server.receive(back, Math.min(MIB, whole.length - got));
        if (result <= 0 || !same(bytes.subarray(back, back + result), whole.subarray(got, got + result)))
          return false;
        got += result;
      }
      return (await sent) >= 0;
    }),
    { numRuns: 40 },
  );
  t.match(pair.server.stream.peer, { family: "tcp", host: "127.0.0.1" });
  await pair.close();
});

onEachEngine(t, "what is wanted whole comes whole, but for the end of the stream", async (t, engine) => {
  const pair = await connectedPair(engine);
  const { bytes } = engine.pool;
  const out = engine.pool.allocate(64 * KIB);
  const back = engine.pool.allocate(64 * KIB);
  fillPattern(bytes.subarray(out, out + 64 * KIB), 13);
  const wanted = bytes.subarray(out, out + 48 * KIB);
  let got = pair.server.receive(back, wanted.length, true);
  // In parts, each of which has arrived before the next is sent.
  for (let at = 0; at < wanted.length; at += 16 * KIB) {
    await pair.client.send([out + at, 16 * KIB]);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  let count = await got;
  // An engine may ignore the wish.
  if (engine.kind === "ring") t.equal(count, wanted.length, "one completion");
  else count += await pair.server.receiveAll(back + count, wanted.length - count);
  t.ok(same(bytes.subarray(back, back + count), wanted), "the bytes are the bytes");
  got = pair.server.receive(back, wanted.length, true);
  await pair.client.send([out, 1000]);
  pair.client.stream.shutdown();
  t.equal(await got, 1000, "no more than there was");
  t.equal(await pair.server.receive(back, wanted.length, true), 0, "the end");
  await pair.close();
});

onEachEngine(t, "a reader that is slow gets everything: short sends are continued", async (t, engine) => {
  const pair = await connectedPair(engine);
  const { bytes } = engine.pool;
  const out = engine.pool.allocate(MIB);
  const back = engine.pool.allocate(64 * KIB);
  fillPattern(bytes.subarray(out, out + MIB), 12);
  // Far more than both socket buffers hold, in pieces of odd lengths.
  const pieces: number[] = [];
  let total = 0;
  for (let i = 0; i < 512; i++) {
    const length = 40_001 + i;
    pieces.push(out + (i % 7), length);
    total += length;
  }
  const sent = pair.client.send(pieces);
  let finished = false;
  void sent.then(() => {
    finished = true;
  });
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.equal(finished, false, "the sender waits for the reader");
  let piece = 0;
  let inside = 0;
  let wrong = 0;
  let got = 0;
  while (got < total) {
    const result = await pair.server.receive(back, 64 * KIB);
    if (result <= 0) break;
    for (let i = 0; i < result; ) {
      const at = pieces[piece * 2]! + inside;
      const length = Math.min(result - i, pieces[piece * 2 + 1]! - inside);
      if (!same(bytes.subarray(back + i, back + i + length), bytes.subarray(at, at + length))) wrong++;
      i += length;
      inside += length;
      if (inside === pieces[piece * 2 + 1]) {
        piece++;
        inside = 0;
      }
    }
    got += result;
  }
  t.equal(got, total);
  t.equal(wrong, 0, "every byte in its place");
  t.ok((await sent) >= 0);
  t.equal(pair.client.events.length, 1, "one completion for all of it");
  await pair.close();
});

onEachEngine(t, "both directions at once", async (t, engine) => {
  const pair = await connectedPair(engine);
  const { bytes } = engine.pool;
  const memory = [0, 1, 2, 3].map(() => engine.pool.allocate(MIB));
  fillPattern(bytes.subarray(memory[0]!, memory[0]! + MIB), 1);
  fillPattern(bytes.subarray(memory[1]!, memory[1]! + MIB), 2);
  const results = await Promise.all([
    pair.client.send([memory[0]!, MIB]),
    pair.server.send([memory[1]!, MIB]),
    pair.server.receiveAll(memory[2]!, MIB),
    pair.client.receiveAll(memory[3]!, MIB),
  ]);
  t.same(results.slice(2), [MIB, MIB]);
  t.ok(same(bytes.subarray(memory[0]!, memory[0]! + MIB), bytes.subarray(memory[2]!, memory[2]! + MIB)));
  t.ok(same(bytes.subarray(memory[1]!, memory[1]! + MIB), bytes.subarray(memory[3]!, memory[3]! + MIB)));
  await pair.close();
});

onEachEngine(t, "the end of one side leaves the other side open", async (t, engine) => {
  const pair = await connectedPair(engine);
  const memory = engine.pool.allocate(4 * KIB);
  t.equal(pair.server.stream.peerGone?.(), false);
  const sent = pair.client.send([memory, 100]);
  pair.client.stream.shutdown();
  t.ok((await sent) >= 0);
  t.equal(await pair.server.receiveAll(memory, 100), 100);
  t.equal(await pair.server.receive(memory, 100), 0, "the end");
  t.equal(await pair.server.receive(memory, 100), 0, "and the end again");
  t.equal(pair.server.stream.peerGone?.(), true);
  t.ok((await pair.server.send([memory, 50])) >= 0, "the answer still goes");
  t.equal(await pair.client.receiveAll(memory, 50), 50);
  await pair.close();
});

onEachEngine(
  t,
  "bytes that were sent before the end are read, although the peer is seen to be gone",
  async (t, engine) => {
    const pair = await connectedPair(engine);
    const memory = engine.pool.allocate(4 * KIB);
    t.ok((await pair.client.send([memory, 1000])) >= 0);
    await pair.client.close();
    while (pair.server.stream.peerGone?.() === false) await new Promise((resolve) => setTimeout(resolve, 1));
    t.equal(await pair.server.receiveAll(memory, 1000), 1000);
    t.equal(await pair.server.receive(memory, 10), 0);
    await Promise.all([pair.server.close(), pair.listener.close()]);
  },
);

onEachEngine(t, "a reset ends receive and send with an error, once each", async (t, engine) => {
  let accepted: (stream: ByteStream) => void = () => {};
  const arriving = new Promise<ByteStream>((resolve) => {
    accepted = resolve;
  });
  const listener = await engine.listen(LOOPBACK, (stream) => accepted(stream));
  const { address } = listener;
  if (address.kind !== "tcp") throw new Error("not TCP");
  const peer: Socket = connect(address.port, address.host);
  const server = new TestStream(await arriving);
  const memory = engine.pool.allocate(MIB);
  const received = server.receive(memory, 4 * KIB);
  const many = Array.from({ length: 512 }, () => [memory, 100_000]).flat();
  const sent = server.send(many);
  setTimeout(() => peer.resetAndDestroy(), 20);
  peer.on("error", () => {});
  // The kernel tells the error to whichever of the two it ends first; after that a receive sees the end.
  t.ok((await received) <= 0);
  t.ok((await sent) < 0);
  t.equal(server.stream.peerGone?.(), true);
  await server.close();
  t.equal(server.events.at(-1), "closed");
  await listener.close();
});

onEachEngine(t, "close ends what is in flight, and is told last", async (t, engine) => {
  const pair = await connectedPair(engine);
  const memory = engine.pool.allocate(MIB);
  const received = pair.server.receive(memory, 4 * KIB);
  const many = Array.from({ length: 512 }, () => [memory, 100_000]).flat();
  const sent = pair.server.send(many);
  await new Promise((resolve) => setTimeout(resolve, 20));
  pair.server.stream.close();
  pair.server.stream.close();
  await pair.server.closed;
  t.ok((await received) <= 0);
  t.ok((await sent) < 0);
  t.equal(pair.server.events.length, 3);
  t.equal(pair.server.events[2], "closed");
  await Promise.all([pair.client.close(), pair.listener.close()]);
  t.same(pair.client.events, ["closed"], "with nothing in flight");
});

onEachEngine(t, "requests made after close are answered, not lost", async (t, engine) => {
  const pair = await connectedPair(engine);
  const memory = engine.pool.allocate(4 * KIB);
  const first = pair.server.receive(memory, 10);
  pair.server.stream.close();
  const sent = pair.server.send([memory, 10]);
  t.ok((await first) <= 0);
  t.ok((await sent) < 0);
  await pair.server.closed;
  await Promise.all([pair.client.close(), pair.listener.close()]);
});

onEachEngine(t, "many connections at once", async (t, engine) => {
  const accepted: TestStream[] = [];
  const listener = await engine.listen(LOOPBACK, (stream) => accepted.push(new TestStream(stream)));
  const memory = engine.pool.allocate(4 * KIB);
  const clients: TestStream[] = [];
  for (let i = 0; i < 100; i++) clients.push(new TestStream(await engine.connect(listener.address)));
  while (accepted.length < 100) await new Promise((resolve) => setTimeout(resolve, 1));
  const received = accepted.map((stream) => stream.receive(memory, 4 * KIB));
  await Promise.all(clients.map((client) => client.send([memory, 1])));
  t.same(
    await Promise.all(received),
    Array.from({ length: 100 }, () => 1),
  );
  await Promise.all([...accepted, ...clients].map((stream) => stream.close()));
  await listener.close();
});

onEachEngine(t, "unix sockets, and the socket file that a killed process left behind", async (t, engine) => {
  const directory = socketDirectory(t);
  const path = join(directory, "s");
  // Node unlinks its own sockets; a path that moved away while it listened is one that nobody unlinks.
  const left = createServer().listen(path);
  await new Promise((resolve) => left.once("listening", resolve));
  await t.rejects(
    engine.listen({ kind: "unix", path }, () => {}),
    { code: "LISTEN_REFUSED", message: /EADDRINUSE/ },
  );
  renameSync(path, `${path}.kept`);
  await new Promise((resolve) => left.close(resolve));
  renameSync(`${path}.kept`, path);
  t.ok(existsSync(path), "a socket file without a listener");
  const pair = await connectedPair(engine, { kind: "unix", path });
  t.equal(pair.server.stream.peer.family, "unix");
  const memory = engine.pool.allocate(4 * KIB);
  engine.pool.bytes.set(Buffer.from("hello"), memory);
  await pair.client.send([memory, 5]);
  t.equal(await pair.server.receiveAll(memory + 100, 5), 5);
  t.equal(Buffer.from(engine.pool.bytes.subarray(memory + 100, memory + 105)).toString(), "hello");
  await pair.close();
  t.notOk(existsSync(path), "removed with its listener");
});

onEachEngine(t, "a file that is not a socket is never removed", async (t, engine) => {
  const path = join(socketDirectory(t), "s");
  writeFileSync(path, "precious");
  await t.rejects(
    engine.listen({ kind: "unix", path }, () => {}),
    { code: "LISTEN_REFUSED" },
  );
  t.ok(existsSync(path));
});

onEachEngine(t, "IPv6, and IPv4 peers of a listener for both", async (t, engine) => {
  const six = await connectedPair(engine, { kind: "tcp", host: "::1", port: 0 });
  t.match(six.server.stream.peer, { family: "tcp", host: "::1" });
  await six.close();
  const accepted: TestStream[] = [];
  const both = await engine.listen({ kind: "tcp", host: "::", port: 0 }, (stream) =>
    accepted.push(new TestStream(stream)),
  );
  if (both.address.kind !== "tcp") throw new Error("not TCP");
  const client = new TestStream(
    await engine.connect({ kind: "tcp", host: "127.0.0.1", port: both.address.port }),
  );
  while (accepted.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  t.match(accepted[0]!.stream.peer, { family: "tcp", host: "127.0.0.1" });
  await Promise.all([client.close(), accepted[0]!.close(), both.close()]);
});

onEachEngine(t, "host names are resolved, and errors name address and cause", async (t, engine) => {
  const pair = await connectedPair(engine, { kind: "tcp", host: "localhost", port: 0 });
  const { address } = pair.listener;
  if (address.kind !== "tcp") throw new Error("not TCP");
  t.not(address.port, 0);
  await t.rejects(
    engine.listen(address, () => {}),
    { code: "LISTEN_REFUSED", message: /EADDRINUSE/ },
  );
  await pair.close();
  await t.rejects(engine.connect(address), { code: "CONNECT_REFUSED", message: /ECONNREFUSED/ });
  await t.rejects(engine.connect({ kind: "unix", path: join(socketDirectory(t), "none") }), {
    code: "CONNECT_REFUSED",
    message: /ENOENT/,
  });
  const long = { kind: "unix", path: `/tmp/${"x".repeat(200)}` } as const;
  await t.rejects(
    engine.listen(long, () => {}),
    { code: "LISTEN_REFUSED" },
  );
  await t.rejects(engine.connect(long), { code: "CONNECT_REFUSED" });
});

onEachEngine(t, "a listener that is closed accepts nobody, and its streams live on", async (t, engine) => {
  const pair = await connectedPair(engine);
  await pair.listener.close();
  await t.rejects(engine.connect(pair.listener.address), { code: "CONNECT_REFUSED" });
  const memory = engine.pool.allocate(4 * KIB);
  await pair.client.send([memory, 5]);
  t.equal(await pair.server.receiveAll(memory, 5), 5);
  await Promise.all([pair.client.close(), pair.server.close()]);
});
