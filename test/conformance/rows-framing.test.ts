// Rows X1–X14 of the conformance list against the running server: requests, replies and errors.
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_DISC,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  NBD_EPERM,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_RESIZE,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import { go, request, write } from "./encode.js";
import { Haggling, openSession, type Session } from "./raw-client.js";
import { BLOCK, pattern, rowsOf, serveLive, VOL, VOL_BYTES } from "./support/live.js";

const live = await serveLive(t);
const row = rowsOf(live);
await live.server.lamina("volume", "create", "sealed", "--size", "1M", "--read-only");

const MODES = [ReplyMode.Simple, ReplyMode.Structured, ReplyMode.Extended];
const CONTEXT = ["base:allocation"];

async function served(session: Session): Promise<boolean> {
  return (await session.read(0, BLOCK)).length === BLOCK;
}

row("X1: any 64-bit cookie comes back bit by bit, each once", async (t, place) => {
  const client = await Haggling.begin(place);
  client.send(go(VOL));
  await client.answers();
  const cookies = [0n, 1n, 2n ** 63n, 2n ** 64n - 1n, 0x0123456789abcdefn, 0x8000000080000000n];
  const requests = cookies.map((cookie) => {
    const bytes = request(NBD_CMD_READ, { length: 1 });
    bytes.writeBigUInt64BE(cookie, 8);
    return bytes;
  });
  client.send(...requests);
  const seen = new Set<bigint>();
  for (const _ of cookies) seen.add((await client.socket.exactly(17)).readBigUInt64BE(8));
  t.same(seen, new Set(cookies));
  t.equal(client.socket.available, 0);
  client.socket.destroy();
});

row("X1: 256 requests in flight are each answered once, whatever the order", async (t, place) => {
  for (const mode of MODES) {
    const session = await openSession(place, VOL, { mode });
    const data = pattern(mode, BLOCK);
    await session.write(BLOCK * mode, data);
    const reads = Array.from({ length: 256 }, () => session.read(BLOCK * mode, BLOCK));
    t.ok(
      (await Promise.all(reads)).every((bytes) => bytes.equals(data)),
      `mode ${mode}`,
    );
    t.equal(session.inFlight, 0);
    session.destroy();
  }
});

row("X2: replies have the form that was negotiated", async (t, place) => {
  const first = async (options: readonly number[]): Promise<number> => {
    const client = await Haggling.begin(place);
    for (const number of options) await client.ask(number);
    client.send(go(VOL));
    await client.answers();
    client.send(request(NBD_CMD_READ, { length: 1 }));
    const magic = (await client.socket.exactly(4)).readUInt32BE();
    client.socket.destroy();
    return magic;
  };
  t.equal(await first([]), NBD_SIMPLE_REPLY_MAGIC);
  t.equal(await first([8]), NBD_STRUCTURED_REPLY_MAGIC);
});

row("X3: a wrong request magic ends the connection", async (t, place) => {
  const client = await Haggling.begin(place);
  client.send(go(VOL));
  await client.answers();
  client.send(Buffer.alloc(28, 0xaa));
  t.equal((await client.socket.rest()).length, 0);
});

row("X4: unknown commands and flags are EINVAL, and the connection stays usable", async (t, place) => {
  for (const mode of MODES) {
    const session = await openSession(place, VOL, {
      mode,
      contexts: mode === ReplyMode.Simple ? [] : CONTEXT,
    });
    for (const type of [8, 9, 255, 0xffff]) {
      t.equal((await session.request(type, { length: BLOCK })).errno, NBD_EINVAL, `command ${type}`);
    }
    const legal = [0b00101, 0b00001, 0, 0b00001, 0b00001, 0b00001, 0b10011, 0b01001];
    const types = [NBD_CMD_READ, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES];
    if (mode !== ReplyMode.Simple) types.push(NBD_CMD_BLOCK_STATUS);
    for (const type of types) {
      for (let bit = 0; bit < 16; bit++) {
        const flags = 1 << bit;
        if ((legal[type]! & flags) !== 0 || bit === 5) continue;
        const length = type === NBD_CMD_FLUSH ? 0 : BLOCK;
        t.equal(
          (await session.request(type, { length, flags })).errno,
          NBD_EINVAL,
          `command ${type}, bit ${bit}`,
        );
      }
    }
    t.ok(await served(session));
    session.destroy();
  }
});

row("X5: a refused WRITE's payload is consumed, whatever its size and reason", async (t, place) => {
  for (const mode of MODES) {
    const session = await openSession(place, VOL, { mode });
    for (const length of [1, 511, 4096, 70_000, 1 << 20]) {
      // The payload is made of requests: one byte too few consumed and one of them is answered.
      const payload = Buffer.alloc(length, request(NBD_CMD_READ, { length: 1, cookie: 99 }));
      const refused = session.tryWrite(VOL_BYTES, payload);
      const flagged = session.tryWrite(0, payload, 1 << 9);
      t.equal((await refused).errno, NBD_ENOSPC, `${length} bytes beyond the end`);
      t.equal((await flagged).errno, NBD_EINVAL, `${length} bytes with an unknown flag`);
    }
    t.ok(await served(session));
    t.equal(session.violation, "");
    session.destroy();
  }
});

row("X6: beyond the end is EINVAL, for writes and zeroes ENOSPC", async (t, place) => {
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured, contexts: CONTEXT });
  const refusals: [number, number][] = [
    [NBD_CMD_READ, NBD_EINVAL],
    [NBD_CMD_TRIM, NBD_EINVAL],
    [NBD_CMD_CACHE, NBD_EINVAL],
    [NBD_CMD_BLOCK_STATUS, NBD_EINVAL],
    [NBD_CMD_WRITE_ZEROES, NBD_ENOSPC],
  ];
  for (const [type, errno] of refusals) {
    for (const offset of [VOL_BYTES, VOL_BYTES - 512]) {
      t.equal(
        (await session.request(type, { offset, length: BLOCK })).errno,
        errno,
        `command ${type} at ${offset}`,
      );
    }
  }
  t.equal((await session.tryWrite(VOL_BYTES - 512, Buffer.alloc(BLOCK))).errno, NBD_ENOSPC);
  t.ok(await served(session));
  session.destroy();
});

row("X6, X13: writes to a read-only export are EPERM, reads are served", async (t, place) => {
  const session = await openSession(place, "sealed", { mode: ReplyMode.Structured });
  t.ok((session.negotiated.flags & NBD_FLAG_READ_ONLY) !== 0, "READ_ONLY is advertised");
  t.equal((await session.tryWrite(0, Buffer.alloc(BLOCK))).errno, NBD_EPERM);
  t.equal((await session.request(NBD_CMD_TRIM, { length: BLOCK })).errno, NBD_EPERM);
  t.equal((await session.request(NBD_CMD_WRITE_ZEROES, { length: BLOCK })).errno, NBD_EPERM);
  t.ok(await served(session));
  await session.flush();
  session.destroy();
});

row("X7: offset and length are added without overflow", async (t, place) => {
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured, contexts: CONTEXT });
  for (const type of [
    NBD_CMD_READ,
    NBD_CMD_TRIM,
    NBD_CMD_CACHE,
    NBD_CMD_WRITE_ZEROES,
    NBD_CMD_BLOCK_STATUS,
  ]) {
    for (const offset of [2n ** 64n - 1n, 2n ** 64n - 4096n, 2n ** 63n, 2n ** 63n - 4096n, 2n ** 53n]) {
      const patch = (header: Buffer): void => void header.writeBigUInt64BE(offset, 16);
      const { errno } = await session.request(type, { length: BLOCK, patch });
      t.ok(errno === NBD_EINVAL || errno === NBD_ENOSPC, `command ${type} at ${offset}: ${errno}`);
    }
  }
  t.ok(await served(session));
  session.destroy();
});

row("X8: a length of zero does not end the connection", async (t, place) => {
  for (const mode of MODES) {
    const session = await openSession(place, VOL, { mode });
    for (const type of [NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE]) {
      await session.request(type, { length: 0 });
    }
    await session.tryWrite(0, Buffer.alloc(0));
    t.ok(await served(session));
    session.destroy();
  }
});

row("X9: only the error numbers of the specification appear", async (t, place) => {
  const known = new Set([0, 1, 5, 12, 22, 28, 75, 95, 108]);
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured });
  for (let type = 0; type < 12; type++) {
    if (type === NBD_CMD_DISC || type === NBD_CMD_WRITE) continue;
    for (const offset of [0, 1, VOL_BYTES, 2 ** 52]) {
      for (const flags of [0, 1, 2, 4, 8, 16, 0xffff]) {
        const { errno } = await session.request(type, { offset, length: 3, flags });
        if (!known.has(errno)) t.fail(`command ${type}, offset ${offset}, flags ${flags}: error ${errno}`);
      }
    }
  }
  t.ok(await served(session));
  session.destroy();
});

row(
  "X11: DISC lets everything before it finish, is not answered, and ends the connection",
  async (t, place) => {
    for (const mode of MODES) {
      const session = await openSession(place, VOL, { mode });
      const data = pattern(40 + mode, 64 * BLOCK);
      const writes = Array.from({ length: 64 }, (_, i) =>
        session.write((100 + i) * BLOCK, data.subarray(i * BLOCK, (i + 1) * BLOCK)),
      );
      session.send(session.disconnectBytes(), request(NBD_CMD_READ, { length: 512 }));
      await Promise.all(writes);
      await session.ended();
      t.equal(session.violation, "", "what is sent behind DISC is not answered");
      const reader = await openSession(place, VOL);
      t.ok((await reader.read(100 * BLOCK, 64 * BLOCK)).equals(data), `mode ${mode}`);
      await reader.leave();
    }
  },
);

row("X11: DISC with an offset, a length and flags is still DISC", async (t, place) => {
  const session = await openSession(place, VOL);
  session.send(request(NBD_CMD_DISC, { flags: 0xffff, offset: 4711, length: 0xffffffff }));
  await session.ended();
  t.equal(session.violation, "");
});

row("X14: HAS_FLAGS is set, FLUSH and FUA with it, and nothing that is not supported", async (t, place) => {
  const always =
    NBD_FLAG_HAS_FLAGS |
    NBD_FLAG_SEND_FLUSH |
    NBD_FLAG_SEND_FUA |
    NBD_FLAG_SEND_TRIM |
    NBD_FLAG_SEND_WRITE_ZEROES |
    NBD_FLAG_SEND_CACHE |
    NBD_FLAG_CAN_MULTI_CONN;
  for (const mode of MODES) {
    const session = await openSession(place, VOL, { mode });
    const { flags } = session.negotiated;
    t.equal(flags & always, always);
    t.equal(flags & NBD_FLAG_SEND_RESIZE, 0, "RESIZE is not offered");
    t.equal((flags & NBD_FLAG_SEND_DF) !== 0, mode !== ReplyMode.Simple, "DF only where it can be asked for");
    for (const [flag, type] of [
      [NBD_FLAG_SEND_FLUSH, NBD_CMD_FLUSH],
      [NBD_FLAG_SEND_TRIM, NBD_CMD_TRIM],
      [NBD_FLAG_SEND_CACHE, NBD_CMD_CACHE],
      [NBD_FLAG_SEND_WRITE_ZEROES, NBD_CMD_WRITE_ZEROES],
    ] as const) {
      const length = type === NBD_CMD_FLUSH ? 0 : BLOCK;
      t.equal((await session.request(type, { length })).errno, 0, `flag ${flag} keeps its promise`);
    }
    session.destroy();
  }
});

row("a stream of requests may be cut anywhere", async (t, place) => {
  const session = await openSession(place, VOL);
  const first = session.prepare(NBD_CMD_WRITE, { offset: 0, payload: pattern(1, 64) });
  const second = session.prepare(NBD_CMD_READ, { offset: 0, length: 64 });
  for (const byte of Buffer.concat([first.header, pattern(1, 64), second.header])) {
    await session.socket.sent(Uint8Array.of(byte));
  }
  t.equal((await first.reply).errno, 0);
  t.ok((await second.reply).data.equals(pattern(1, 64)));
  t.equal(write(0, Buffer.alloc(1)).length, 29);
  session.destroy();
});
