// Rows D1–D4, C6, X10, X12 and O6: several connections, flush, failing reads, shutdown. Each has a server of its own.
import { existsSync } from "node:fs";
import {
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_EIO,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_OPT_ABORT,
  NBD_OPT_LIST,
  ReplyMode,
} from "nbd-protocol-ts";
import t, { type Test } from "tap";
import { run } from "../interop/support/process.js";
import { LAMINA, pause } from "../interop/support/server.js";
import { go, request, u32, write } from "./encode.js";
import { Haggling, openSession } from "./raw-client.js";
import { PeerClosed, RawSocket } from "./raw-socket.js";
import { flipOneByteOf } from "./support/bit-rot.js";
import { BLOCK, type Live, MIB, pattern, serveLive, tcpOf, VOL } from "./support/live.js";

t.test("C6, D1, D2: a FLUSH on one connection keeps what all connections had completed", async (t) => {
  const live = await serveLive(t);
  const sessions = await Promise.all(
    [live.tcp, live.unix, live.tcp, live.unix].map((place) => openSession(place, VOL)),
  );
  for (const session of sessions) t.ok((session.negotiated.flags & NBD_FLAG_CAN_MULTI_CONN) !== 0);
  const writes = sessions.flatMap((session, i) =>
    Array.from({ length: 16 }, (_, n) => session.write((i * 16 + n) * BLOCK, pattern(i * 16 + n, BLOCK))),
  );
  await Promise.all(writes);
  await sessions[0]!.flush();
  await live.server.kill();
  await live.server.start();
  const reader = await openSession(tcpOf(live.server), VOL);
  for (let i = 0; i < 64; i++) {
    if (!(await reader.read(i * BLOCK, BLOCK)).equals(pattern(i, BLOCK))) t.fail(`block ${i} is gone`);
  }
  await reader.leave();
});

t.test("C7, D1: a write with FUA is visible on every connection and survives a kill", async (t) => {
  const live = await serveLive(t);
  const writer = await openSession(live.tcp, VOL);
  const other = await openSession(live.unix, VOL, { mode: ReplyMode.Structured });
  await writer.write(MIB, pattern(1, BLOCK), NBD_CMD_FLAG_FUA);
  t.ok((await other.read(MIB, BLOCK)).equals(pattern(1, BLOCK)));
  await live.server.kill();
  await live.server.start();
  const reader = await openSession(tcpOf(live.server), VOL);
  t.ok((await reader.read(MIB, BLOCK)).equals(pattern(1, BLOCK)));
  await reader.leave();
});

t.test("D3: a second server on the same data is refused", async (t) => {
  const live = await serveLive(t);
  const { data } = live.server;
  const second = await run(LAMINA, [
    "serve",
    "--data",
    data,
    "--listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
  ]);
  t.not(second.code, 0);
  t.match(second.stderr, /use|lock|running/i, "and says why");
  const session = await openSession(live.tcp, VOL);
  t.equal((await session.read(0, BLOCK)).length, BLOCK, "the first one goes on");
  await session.leave();
});

t.test("D4: a write that was sent again is not overtaken by its stale first copy", async (t) => {
  await sendAgain(t, await serveLive(t));
});

t.test("D4: nor when the two connections are on two threads", async (t) => {
  await sendAgain(t, await serveLive(t, { args: ["--threads", "2"] }));
});

async function sendAgain(t: Test, live: Live): Promise<void> {
  const stale = Buffer.alloc(BLOCK, "old");
  const newer = Buffer.alloc(BLOCK, "new");
  for (let round = 0; round < 8; round++) {
    const first = await openSession(live.tcp, VOL);
    await first.flush();
    // The server sleeps: the first copy stays unread in its socket, as behind a slow disk.
    process.kill(live.server.pid, "SIGSTOP");
    for (let i = 0; i < 16; i++) first.tryWrite(i * BLOCK, stale).catch(() => {});
    await pause(20);
    if (round % 2 === 0) first.destroy();
    else first.socket.reset();
    await pause(20);
    // The client connects again, sends the write again, and then a newer one, all without waiting.
    const second = await RawSocket.connect(live.tcp);
    const ios = Array.from({ length: 16 }, (_, i) => [
      write(i * BLOCK, stale, { cookie: 2 * i }),
      write(i * BLOCK, newer, { cookie: 2 * i + 1 }),
    ]).flat();
    second.send(u32(3), go(VOL), ...ios, request(NBD_CMD_FLUSH, { cookie: 99 }));
    await pause(20);
    process.kill(live.server.pid, "SIGCONT");
    // Greeting, INFO and ACK, then the simple replies.
    await second.exactly(18 + 20 + 12 + 20);
    const cookies = new Set<number>();
    for (let i = 0; i < 33; i++) {
      const reply = await second.exactly(16);
      t.equal(reply.readUInt32BE(4), 0);
      cookies.add(reply.readUInt32BE(12));
    }
    t.equal(cookies.size, 33, "each request of the new connection is answered there, and no other");
    second.destroy();
    const reader = await openSession(live.unix, VOL);
    for (let i = 0; i < 16; i++) {
      if (!(await reader.read(i * BLOCK, BLOCK)).equals(newer))
        t.fail(`round ${round}: block ${i} went back`);
    }
    await reader.leave();
  }
}

t.test("X10, C2: a READ over rotten data is EIO in every mode, and no byte of it is made up", async (t) => {
  // The smallest pool: a simple reply of 32 MiB has to be begun before all of it is read.
  const live = await serveLive(t, { args: ["--pool", "16M"], capacity: "256M" });
  const writer = await openSession(live.tcp, VOL);
  const good = pattern(20, MIB);
  for (let at = 0; at < 32; at++) await writer.write(at * MIB, good);
  const rotten = Buffer.alloc(BLOCK, "a block that will rot ");
  await writer.write(31 * MIB + 128 * BLOCK, rotten);
  await writer.flush();
  await writer.leave();
  await live.server.stop();
  t.ok(flipOneByteOf(live.server.backingFile(), rotten), "the block is in the file");
  await live.server.start();
  const place = tcpOf(live.server);

  for (const mode of [ReplyMode.Simple, ReplyMode.Structured, ReplyMode.Extended]) {
    const session = await openSession(place, VOL, { mode });
    const { errno } = await session.request(NBD_CMD_READ, { offset: 31 * MIB, length: MIB });
    t.equal(errno, NBD_EIO, `mode ${mode}`);
    t.ok((await session.read(0, MIB)).equals(good), "only that request fails");
    session.destroy();
  }

  const simple = await openSession(place, VOL);
  const whole = simple.request(NBD_CMD_READ, { length: 32 * MIB });
  const outcome = await whole.then(
    ({ errno }) => errno,
    (error: unknown) => (error instanceof PeerClosed ? "closed" : String(error)),
  );
  t.ok(outcome === NBD_EIO || outcome === "closed", `an error or a hard disconnect, not data: ${outcome}`);
  simple.destroy();
  const after = await openSession(place, VOL);
  t.ok((await after.read(0, MIB)).equals(good), "the server lives");
  after.destroy();
});

t.test("X12, O6: on shutdown what is in flight is answered, what is new gets no answer", async (t) => {
  const live = await serveLive(t);
  const session = await openSession(live.tcp, VOL);
  const data = pattern(30, 8 * MIB);
  await session.write(0, data);
  const haggling = await Haggling.begin(live.unix);
  t.equal(await haggling.outcome(NBD_OPT_LIST), "NBD_REP_ACK");

  // A reader that takes nothing keeps its reads in flight across the signal.
  session.socket.pause();
  const reads = Array.from({ length: 3 }, () => session.read(0, 8 * MIB));
  await pause(200);
  const ended = live.server.program.end("SIGTERM");
  await pause(300);
  t.equal(await haggling.outcome(NBD_OPT_LIST), "NBD_REP_ERR_SHUTDOWN");
  t.equal(await haggling.outcome(NBD_OPT_ABORT), "NBD_REP_ACK", "ABORT is taken all the same");
  const late = session.request(NBD_CMD_READ, { length: BLOCK });
  session.socket.resume();
  t.ok(
    (await Promise.all(reads)).every((bytes) => bytes.equals(data)),
    "reads in flight are answered in full",
  );
  // An error would be one for good to kernels and to QEMU; without an answer they ask again when they are back.
  await t.rejects(late, "no answer, and least of all an error");
  await session.ended();
  haggling.socket.destroy();
  const { code } = await ended;
  t.equal(code, 0, "and the server ends cleanly");
  t.ok(live.unix.kind === "unix" && !existsSync(live.unix.path), "the unix socket is gone");
});
