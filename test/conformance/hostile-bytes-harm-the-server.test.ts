// What has crashed or starved other servers, said to ours. After each, a real client is served and memory has not grown.
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  ReplyMode,
} from "nbd-protocol-ts";
import t, { type Test } from "tap";
import { contextData, go, infoData, option, request, u16, u32 } from "./encode.js";
import { Haggling, openSession } from "./raw-client.js";
import { PeerClosed, type Place } from "./raw-socket.js";
import { BLOCK, rowsOf, serveLive, VOL, VOL_BYTES } from "./support/live.js";
import { MemoryWatch } from "./support/memory.js";

const live = await serveLive(t, { capacity: "2G" });
await live.server.lamina("volume", "create", "huge", "--size", "16T");
const row = rowsOf(live);
const CONTEXT = ["base:allocation"];
const LENGTHS = [0, 1, 5, 4095, 4096, 4097, 0x7fffffff, 0x80000000, 0xfffffffa, 0xffffffff];

/** An attack ends with an answer or with the end of the connection, and with nothing else. */
async function outcome(client: Haggling): Promise<string> {
  try {
    return (await client.answers()).at(-1)!.type;
  } catch (error) {
    if (error instanceof PeerClosed) return "closed";
    throw error;
  } finally {
    client.socket.destroy();
  }
}

async function realClient(t: Test, place: Place): Promise<void> {
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured });
  t.equal((await session.read(0, BLOCK)).length, BLOCK, "a real client is served");
  await session.leave();
}

row("CVE-2022-26495: hostile lengths in every length field of every option", async (t, place) => {
  const memory = new MemoryWatch(live.server.pid);
  const name = Buffer.from(VOL);
  const bodies = (length: number): [string, number, Buffer][] => [
    ["INFO name", NBD_OPT_INFO, Buffer.concat([u32(length), name, u16(0)])],
    ["GO name", NBD_OPT_GO, Buffer.concat([u32(length), name, u16(0)])],
    ["GO count", NBD_OPT_GO, Buffer.concat([u32(3), name, u16(length & 0xffff)])],
    ["SET name", NBD_OPT_SET_META_CONTEXT, Buffer.concat([u32(length), name, u32(0)])],
    ["SET count", NBD_OPT_SET_META_CONTEXT, Buffer.concat([u32(3), name, u32(length)])],
    [
      "SET query",
      NBD_OPT_SET_META_CONTEXT,
      Buffer.concat([u32(3), name, u32(1), u32(length), Buffer.from("base:")]),
    ],
    ["LIST query", NBD_OPT_LIST_META_CONTEXT, Buffer.concat([u32(3), name, u32(1), u32(length)])],
  ];
  for (const length of LENGTHS) {
    for (const [what, number, data] of bodies(length)) {
      const own = [length, data.length - 4, data.length - 5, data.length - 6];
      for (const claimed of own) {
        data.writeUInt32BE(what.endsWith("name") ? Math.max(0, claimed) : 3, 0);
        const client = await Haggling.begin(place);
        await client.ask(NBD_OPT_STRUCTURED_REPLY);
        client.send(option(number, data));
        const end = await outcome(client);
        if (!/^(NBD_REP_(ERR_(INVALID|UNKNOWN|TOO_BIG)|ACK)|closed)$/.test(end))
          t.fail(`${what} ${claimed}: ${end}`);
        if (!what.endsWith("name")) break;
      }
    }
  }
  t.equal(memory.grown(), null, "memory has not grown");
  await realClient(t, place);
});

row("CVE-2022-26495, CVE-2017-15119: hostile lengths in option headers", async (t, place) => {
  const memory = new MemoryWatch(live.server.pid);
  const numbers = [
    NBD_OPT_EXPORT_NAME,
    NBD_OPT_LIST,
    NBD_OPT_STARTTLS,
    NBD_OPT_INFO,
    NBD_OPT_GO,
    NBD_OPT_SET_META_CONTEXT,
    99,
  ];
  for (const number of numbers) {
    for (const length of LENGTHS) {
      const client = await Haggling.begin(place);
      // What is announced is never sent: the peer then goes away.
      client.send(option(number, Buffer.alloc(0), length));
      client.socket.end();
      const end = await outcome(client);
      if (number === NBD_OPT_EXPORT_NAME && end !== "closed") t.fail(`EXPORT_NAME with ${length}: ${end}`);
    }
  }
  t.equal(memory.grown(), null, "memory has not grown");
  await realClient(t, place);
});

row(
  "CVE-2022-26496: up to 64 KiB behind a bad INFO are drained, and LIST is understood",
  async (t, place) => {
    const client = await Haggling.begin(place);
    for (const extra of [1024, 4096, 16_384, 65_536]) {
      const data = Buffer.concat([infoData(VOL), Buffer.alloc(extra, 0x41)]);
      t.match(await client.outcome(NBD_OPT_INFO, data), /ERR_(INVALID|TOO_BIG)/, `${extra} bytes behind`);
      t.equal(await client.outcome(NBD_OPT_LIST), "NBD_REP_ACK");
    }
    client.socket.destroy();
  },
);

row("CVE-2017-15118, CVE-2020-10761: export names of every length", async (t, place) => {
  for (const length of [255, 256, 257, 3000, 4096, 4097]) {
    const name = "1".repeat(length);
    const client = await Haggling.begin(place);
    const data = Buffer.concat([u32(length), Buffer.from(name), u16(0)]);
    const [answer] = await client.ask(NBD_OPT_GO, data);
    t.match(answer!.type, length > 4096 ? /ERR_INVALID/ : /ERR_UNKNOWN/, `${length} bytes`);
    t.ok(answer!.data.length <= 4096, "its error text is bounded");
    client.send(option(NBD_OPT_EXPORT_NAME, Buffer.from(name)));
    t.equal((await client.socket.rest()).length, 0);
  }
});

row("CVE-2019-14851: options in any order", async (t, place) => {
  const client = await Haggling.begin(place);
  const steps: [number, Buffer][] = [
    [NBD_OPT_INFO, infoData(VOL)],
    [NBD_OPT_INFO, infoData("nothing")],
    [NBD_OPT_GO, infoData("nothing")],
    [NBD_OPT_SET_META_CONTEXT, contextData(VOL, CONTEXT)],
    [NBD_OPT_STRUCTURED_REPLY, Buffer.alloc(0)],
    [NBD_OPT_INFO, infoData("huge")],
    [NBD_OPT_SET_META_CONTEXT, contextData(VOL, CONTEXT)],
    [NBD_OPT_GO, Buffer.alloc(1)],
    [NBD_OPT_SET_META_CONTEXT, contextData("huge", CONTEXT)],
  ];
  for (const [number, data] of steps) await client.outcome(number, data);
  const session = await client.go(VOL);
  t.equal(session.negotiated.size, VOL_BYTES);
  session.destroy();
});

row("CVE-2021-3716: nothing pipelined behind STARTTLS is taken for more than it is", async (t, place) => {
  const client = await Haggling.begin(place);
  client.send(option(NBD_OPT_STRUCTURED_REPLY), option(NBD_OPT_STARTTLS), option(NBD_OPT_LIST));
  t.equal((await client.answers()).at(-1)!.type, "NBD_REP_ACK");
  t.match((await client.answers()).at(-1)!.type, /ERR_POLICY/, "this server has no TLS");
  t.equal((await client.answers()).at(-1)!.type, "NBD_REP_ACK");
  client.socket.destroy();
});

row(
  "CVE-2025-47711, CVE-2025-47712: the largest BLOCK_STATUS, aligned and not, over extents beyond 4 GiB",
  async (t, place) => {
    for (const mode of [ReplyMode.Structured, ReplyMode.Extended]) {
      const session = await openSession(place, "huge", { mode, contexts: CONTEXT });
      for (const length of [0xffffffff, 0xfffffe00, 0x80000000, 0x7fffffff]) {
        for (const offset of [0, 1, 511, 512, 2 ** 32 - 1, 2 ** 40 + 3]) {
          for (const flags of [0, NBD_CMD_FLAG_REQ_ONE]) {
            const { errno } = await session.request(NBD_CMD_BLOCK_STATUS, { offset, length, flags });
            if (errno !== 0) t.fail(`${length} at ${offset}: error ${errno}`);
          }
        }
      }
      t.equal(session.violation, "");
      session.destroy();
    }
  },
);

row(
  "nbdkit 1.32.5 aborted: every command with every flag that was not advertised for it",
  async (t, place) => {
    const session = await openSession(place, VOL);
    for (let flags = 0; flags < 64; flags++) {
      for (const type of [
        NBD_CMD_READ,
        NBD_CMD_FLUSH,
        NBD_CMD_TRIM,
        5,
        NBD_CMD_WRITE_ZEROES,
        NBD_CMD_BLOCK_STATUS,
        8,
      ]) {
        await session.request(type, { length: type === NBD_CMD_FLUSH ? 0 : BLOCK, flags });
      }
    }
    t.equal(
      (await session.request(NBD_CMD_TRIM, { length: BLOCK, flags: NBD_CMD_FLAG_FAST_ZERO })).errno,
      NBD_EINVAL,
    );
    t.equal(session.violation, "");
    session.destroy();
  },
);

row(
  "ZeroFS #404, #98: 4 GiB − 512 of TRIM and ZEROES on an empty volume, and all of 16 TiB",
  async (t, place) => {
    const length = 2 ** 32 - 512;
    const session = await openSession(place, "huge");
    for (const offset of [0, 512, 2 ** 40, 2 ** 43 + 512]) {
      await session.trim(offset, length);
      await session.zero(offset, length);
    }
    await session.flush();
    await session.write(2 ** 40, Buffer.alloc(BLOCK, 1));
    const all = [];
    for (let at = 0; at < session.negotiated.size; at += 2 ** 32 - 4096) {
      all.push(session.trim(at, Math.min(2 ** 32 - 4096, session.negotiated.size - at)));
      if (all.length % 128 === 0) await Promise.all(all);
    }
    await Promise.all(all);
    t.ok((await session.read(2 ** 40, BLOCK)).equals(Buffer.alloc(BLOCK)), "trimmed");
    session.destroy();
  },
);

row("CVE-2019-14850: a storm of handshakes opens no volume", async (t, place) => {
  const memory = new MemoryWatch(live.server.pid);
  for (let i = 0; i < 300; i++) {
    const client = await Haggling.begin(place);
    client.send(option(NBD_OPT_INFO, infoData("huge")), option(NBD_OPT_GO, infoData(`nothing ${i}`)));
    client.socket.destroy();
  }
  t.equal(memory.grown(), null);
  await realClient(t, place);
});

row("a client that only sends options and reads nothing is not served into memory", async (t, place) => {
  const memory = new MemoryWatch(live.server.pid);
  const client = await Haggling.begin(place);
  client.socket.pause();
  const flood = Buffer.concat(
    Array.from({ length: 4000 }, () => option(NBD_OPT_INFO, infoData("x".repeat(4000)))),
  );
  client.send(flood);
  await realClient(t, place);
  t.equal(memory.grown(), null);
  client.socket.destroy();
});

row("something else than NBD", async (t, place) => {
  for (const text of ["GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00", "\0".repeat(1000), "SSH-2.0-x\r\n"]) {
    const client = await Haggling.begin(place, null);
    client.send(Buffer.from(text, "latin1"));
    client.socket.end();
    await client.socket.rest();
  }
  const session = await Haggling.begin(place);
  session.send(
    go(VOL),
    request(NBD_CMD_READ, { length: BLOCK }),
    Buffer.from("GET / HTTP/1.1\r\n\r\n and more of it"),
  );
  t.ok((await session.socket.rest()).length >= 16, "ends behind the last good request");
});
