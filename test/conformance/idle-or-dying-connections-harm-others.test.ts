// A thousand connections that do nothing, a thousand that die under load, one that reads nothing: others do not notice.
import { NBD_CMD_READ, ReplyMode } from "nbd-protocol-ts";
import t from "tap";
import { until } from "../interop/support/until.js";
import { go, request, u32, write } from "./encode.js";
import { openSession } from "./raw-client.js";
import { RawSocket } from "./raw-socket.js";
import { BLOCK, MIB, pattern, serveLive, VOL } from "./support/live.js";
import { MemoryWatch } from "./support/memory.js";

const IDLE = 1000;
const KILLED = 1000;
/** Of the killed ones, so many live at once. */
const BATCH = 50;
/** The default pool, which fills as it is used. */
const POOL_BYTES = 256 * MIB;

t.test("CVE-2024-7409: 1000 idle connections are closed, and a real client connects", async (t) => {
  const live = await serveLive(t);
  const before = await openSession(live.tcp, VOL);
  const memory = new MemoryWatch(live.server.pid);
  const idle: RawSocket[] = [];
  for (let i = 0; i < IDLE; i++) idle.push(await RawSocket.connect(i % 2 === 0 ? live.tcp : live.unix));
  t.equal((await before.read(0, BLOCK)).length, BLOCK, "a client that was there before is served");
  await until("a real client connects", async () => {
    try {
      const session = await openSession(live.tcp, VOL);
      await session.leave();
      return true;
    } catch {
      return false;
    }
  });
  await until("all idle connections are closed", () => idle.every((socket) => socket.closed));
  t.pass("all of them were closed");
  t.equal(memory.grown(), null);
  // Others, which are open when the server is told to stop.
  for (let i = 0; i < 50; i++) idle.push(await RawSocket.connect(live.tcp));
  await before.leave();
  await live.server.stop();
  t.pass("the server stops while handshakes are open");
  for (const socket of idle) socket.destroy();
});

t.test("moosefs PR #754: 1000 connections killed under load", async (t) => {
  const live = await serveLive(t);
  const memory = new MemoryWatch(live.server.pid, POOL_BYTES);
  const witness = await openSession(live.tcp, VOL, { mode: ReplyMode.Structured });
  const data = pattern(77, MIB);
  await witness.write(0, data);
  const body = Buffer.alloc(64 * 1024, 0x5a);
  for (let done = 0; done < KILLED; done += BATCH) {
    const sockets = await Promise.all(
      Array.from({ length: BATCH }, (_, i) => RawSocket.connect(i % 2 === 0 ? live.tcp : live.unix)),
    );
    for (const [i, socket] of sockets.entries()) {
      const ios = Array.from({ length: 8 }, (_, n) => [
        request(NBD_CMD_READ, { length: MIB, cookie: n }),
        write((8 + (i % 40)) * MIB + n * body.length, body, { cookie: 100 + n }),
      ]).flat();
      // The last request is cut in its middle.
      const bytes = Buffer.concat([u32(3), go(VOL), ...ios]);
      socket.send(bytes.subarray(0, bytes.length - (i % 3) * 1000));
    }
    t.equal((await witness.read(0, MIB)).equals(data), true, "the witness reads what it wrote");
    for (const [i, socket] of sockets.entries()) {
      if (i % 4 === 0) socket.reset();
      else socket.destroy();
    }
  }
  // The witness's machine would have died of any reply that is not its own.
  t.equal(witness.violation, "");
  await until("all of them are gone", async () => {
    const shown = (await live.server.json("status")) as { readonly [key: string]: unknown };
    return JSON.stringify(shown).includes('"connections":1');
  });
  t.equal(memory.grown(), null, "memory has not grown");
  await witness.leave();
  await live.server.stop();
  const fsck = await live.server.fsck();
  t.equal(fsck.code, 0, fsck.stdout);
});

t.test("e2b PR #2395: a reader that takes nothing slows nobody and takes bounded memory", async (t) => {
  const live = await serveLive(t);
  const writer = await openSession(live.tcp, VOL);
  await writer.write(0, pattern(3, 32 * MIB));
  const memory = new MemoryWatch(live.server.pid, POOL_BYTES);
  const slow = await openSession(live.tcp, VOL);
  slow.socket.pause();
  for (let i = 0; i < 256; i++) slow.request(NBD_CMD_READ, { length: 8 * MIB }).catch(() => {});
  const quick = await openSession(live.tcp, VOL, { mode: ReplyMode.Structured });
  const data = pattern(4, BLOCK);
  for (let i = 0; i < 500; i++) {
    await quick.write(40 * MIB + i * BLOCK, data);
    if (!(await quick.read(40 * MIB + i * BLOCK, BLOCK)).equals(data)) t.fail(`round ${i}`);
  }
  t.pass("500 rounds beside 2 GiB of reads that nobody takes");
  t.equal(memory.grown(), null, "beyond the pool, memory has not grown");
  slow.destroy();
  await quick.leave();
  await writer.leave();
});
