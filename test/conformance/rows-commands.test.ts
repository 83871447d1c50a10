// Rows C1–C14 of the conformance list against the running server: what commands do.
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_FAST_ZERO,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOTSUP,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_STATE_HOLE,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import { openSession, type Session } from "./raw-client.js";
import { BLOCK, MIB, pattern, rowsOf, serveLive, VOL, VOL_BYTES } from "./support/live.js";

const live = await serveLive(t);
const row = rowsOf(live);
const MODES = [ReplyMode.Simple, ReplyMode.Structured, ReplyMode.Extended];
const CHUNKED = [ReplyMode.Structured, ReplyMode.Extended];
const CONTEXT = ["base:allocation"];

async function statusOf(
  session: Session,
  offset: number,
  length: number,
  flags = 0,
): Promise<readonly number[]> {
  const reply = await session.request(NBD_CMD_BLOCK_STATUS, { offset, length, flags });
  if (reply.errno !== 0 || reply.status.length !== 1) throw new Error(`block status: error ${reply.errno}`);
  return reply.status[0]!.runs;
}

async function clear(session: Session): Promise<void> {
  await session.trim(0, VOL_BYTES);
}

// The client machine checks that the chunks of each READ cover it once and that the last one has DONE.
row("C1: chunks of a READ cover the range exactly, data and holes mixed", async (t, place) => {
  for (const mode of CHUNKED) {
    const session = await openSession(place, VOL, { mode });
    await clear(session);
    const model = Buffer.alloc(4 * MIB);
    for (const at of [0, 64 * 1024, MIB - BLOCK, 2 * MIB + 512, 3 * MIB]) {
      const bytes = pattern(at, 3 * BLOCK);
      await session.write(at, bytes);
      bytes.copy(model, at);
    }
    for (const [offset, length] of [
      [0, 4 * MIB],
      [1, 4 * MIB - 2],
      [512, 70_000],
      [MIB - 1, 2 * MIB],
    ] as const) {
      const data = await session.read(offset, length);
      t.ok(data.equals(model.subarray(offset, offset + length)), `mode ${mode}: ${length} at ${offset}`);
    }
    session.destroy();
  }
});

row("C3: a READ with DF comes as one chunk, holes as zero bytes", async (t, place) => {
  for (const mode of CHUNKED) {
    const session = await openSession(place, VOL, { mode });
    await clear(session);
    await session.write(32 * 1024, pattern(5, BLOCK));
    // More than one content chunk in reply to DF is a violation that the client machine finds.
    const whole = await session.request(NBD_CMD_READ, { length: 2 * MIB, flags: NBD_CMD_FLAG_DF });
    t.equal(whole.errno, 0);
    t.equal(whole.holes.length <= 1, true);
    t.ok(whole.data.subarray(32 * 1024, 36 * 1024).equals(pattern(5, BLOCK)));
    session.destroy();
  }
});

row("C4: an absent range is sent as a hole, not as zeros", async (t, place) => {
  for (const mode of CHUNKED) {
    const session = await openSession(place, VOL, { mode });
    await clear(session);
    const { holes, data } = await session.request(NBD_CMD_READ, { length: 8 * MIB });
    t.equal(
      holes.reduce((sum, [, length]) => sum + length, 0),
      8 * MIB,
      "all of it",
    );
    t.ok(data.equals(Buffer.alloc(8 * MIB)));
    session.destroy();
  }
});

row("C5: after a WRITE's reply every connection reads what was written", async (t, place) => {
  const writer = await openSession(place, VOL);
  const readers = await Promise.all(MODES.map((mode) => openSession(place, VOL, { mode })));
  for (let round = 0; round < 50; round++) {
    const bytes = pattern(round, 1000);
    await writer.write(MIB + 7 * round, bytes);
    const seen = await Promise.all(readers.map((reader) => reader.read(MIB + 7 * round, 1000)));
    if (!seen.every((data) => data.equals(bytes))) t.fail(`round ${round}`);
  }
  t.pass("50 rounds, three readers");
  for (const session of [writer, ...readers]) session.destroy();
});

row("C7: FUA is accepted on every command", async (t, place) => {
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured, contexts: CONTEXT });
  const flags = NBD_CMD_FLAG_FUA;
  for (const type of [
    NBD_CMD_READ,
    NBD_CMD_TRIM,
    NBD_CMD_CACHE,
    NBD_CMD_WRITE_ZEROES,
    NBD_CMD_BLOCK_STATUS,
  ]) {
    t.equal((await session.request(type, { length: BLOCK, flags })).errno, 0, `command ${type}`);
  }
  t.equal((await session.request(NBD_CMD_FLUSH, { flags })).errno, 0);
  await session.write(0, pattern(1, BLOCK), flags);
  t.ok((await session.read(0, BLOCK)).equals(pattern(1, BLOCK)));
  session.destroy();
});

row("C8: TRIM of any range touches nothing outside of it", async (t, place) => {
  const session = await openSession(place, VOL);
  const before = pattern(8, 4 * MIB);
  for (const [offset, length] of [
    [0, 512],
    [513, 8191],
    [4096, 4096],
    [MIB, 2 * MIB],
    [1, 4 * MIB - 2],
  ] as const) {
    for (const flags of [0, NBD_CMD_FLAG_FUA]) {
      await session.write(0, before);
      await session.trim(offset, length, flags);
      const after = await session.read(0, 4 * MIB);
      t.ok(after.subarray(0, offset).equals(before.subarray(0, offset)), `before ${length} at ${offset}`);
      t.ok(after.subarray(offset + length).equals(before.subarray(offset + length)), "and behind it");
    }
  }
  session.destroy();
});

row("C9: WRITE_ZEROES reads back as zeros, and NO_HOLE leaves no hole", async (t, place) => {
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured, contexts: CONTEXT });
  const before = pattern(9, 4 * MIB);
  for (const flags of [0, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FUA]) {
    for (const [offset, length] of [
      [0, 4 * MIB],
      [512, 512],
      [4000, 200],
      [BLOCK, MIB + 1],
    ] as const) {
      await session.write(0, before);
      await session.zero(offset, length, flags);
      const model = Buffer.from(before).fill(0, offset, offset + length);
      t.ok((await session.read(0, 4 * MIB)).equals(model), `${length} at ${offset}, flags ${flags}`);
    }
  }
  await clear(session);
  await session.zero(0, MIB, NBD_CMD_FLAG_NO_HOLE);
  const runs = await statusOf(session, 0, MIB);
  for (let i = 1; i < runs.length; i += 2) t.equal(runs[i]! & NBD_STATE_HOLE, 0, "provisioned");
  session.destroy();
});

row("C10: FAST_ZERO is quick or ENOTSUP without a change; unadvertised it is EINVAL", async (t, place) => {
  const session = await openSession(place, VOL);
  const before = pattern(10, MIB);
  const flags = NBD_CMD_FLAG_FAST_ZERO;
  const advertised = (session.negotiated.flags & NBD_FLAG_SEND_FAST_ZERO) !== 0;
  for (const [offset, length] of [
    [0, MIB],
    [512, 100],
  ] as const) {
    await session.write(0, before);
    const { errno } = await session.request(NBD_CMD_WRITE_ZEROES, { offset, length, flags });
    const after = await session.read(offset, length);
    const zeros = Buffer.alloc(length);
    if (errno === 0) t.ok(after.equals(zeros), "done");
    else {
      t.equal(errno, advertised ? NBD_ENOTSUP : NBD_EINVAL);
      t.ok(after.equals(before.subarray(offset, offset + length)), "unmodified");
    }
  }
  t.equal((await session.request(NBD_CMD_TRIM, { length: 512, flags })).errno, NBD_EINVAL, "on TRIM");
  session.destroy();
});

row("C11: CACHE is taken, changes nothing, and has no flags but FUA", async (t, place) => {
  const session = await openSession(place, VOL);
  await session.write(0, pattern(11, BLOCK));
  t.equal((await session.request(NBD_CMD_CACHE, { length: VOL_BYTES })).errno, 0);
  t.equal((await session.request(NBD_CMD_CACHE, { length: BLOCK, flags: 2 })).errno, NBD_EINVAL);
  t.ok((await session.read(0, BLOCK)).equals(pattern(11, BLOCK)));
  session.destroy();
});

// The client machine checks one chunk per context, lengths and reach.
row(
  "C12: BLOCK_STATUS answers each context once, from the offset on, and obeys REQ_ONE",
  async (t, place) => {
    for (const mode of CHUNKED) {
      const session = await openSession(place, VOL, { mode, contexts: CONTEXT });
      await clear(session);
      for (let i = 0; i < 32; i++) await session.write(i * 128 * 1024, pattern(i, BLOCK));
      const runs = await statusOf(session, 0, 4 * MIB);
      t.ok(runs.length >= 64, `${runs.length / 2} descriptors`);
      for (let i = 0; i < runs.length; i += 2) {
        if (runs[i]! <= 0 || runs[i]! % 512 !== 0) t.fail(`a descriptor of ${runs[i]} bytes`);
        if (i > 0 && runs[i + 1] === runs[i - 1]) t.fail("equal neighbours are not merged");
      }
      for (const [offset, length] of [
        [0, 4 * MIB],
        [1, 1],
        [BLOCK, VOL_BYTES - BLOCK],
        [VOL_BYTES - 1, 1],
      ] as const) {
        const one = await statusOf(session, offset, length, NBD_CMD_FLAG_REQ_ONE);
        t.equal(one.length, 2, "one descriptor");
        t.ok(one[0]! <= length, "not longer than the request");
      }
      session.destroy();
    }
  },
);

row("C12: BLOCK_STATUS without a selected context is EINVAL", async (t, place) => {
  for (const mode of MODES) {
    const session = await openSession(place, VOL, { mode });
    t.equal((await session.request(NBD_CMD_BLOCK_STATUS, { length: BLOCK })).errno, NBD_EINVAL);
    session.destroy();
  }
});

row("C12: with extended headers a payload chooses the contexts", async (t, place) => {
  const session = await openSession(place, VOL, { mode: ReplyMode.Extended, contexts: CONTEXT });
  t.ok(
    (session.negotiated.flags & NBD_FLAG_BLOCK_STATUS_PAYLOAD) !== 0,
    "BLOCK_STATUS_PAYLOAD is advertised",
  );
  const ask = async (...ids: readonly number[]): Promise<number> => {
    const payload = Buffer.alloc(8 + 4 * ids.length);
    payload.writeBigUInt64BE(BigInt(MIB), 0);
    for (const [i, id] of ids.entries()) payload.writeUInt32BE(id, 8 + 4 * i);
    const asked = {
      flags: NBD_CMD_FLAG_PAYLOAD_LEN,
      length: MIB,
      payload,
      contexts: Math.max(1, ids.length),
    };
    return (await session.request(NBD_CMD_BLOCK_STATUS, asked)).errno;
  };
  const { id } = session.negotiated.contexts[0]!;
  t.equal(await ask(id), 0);
  t.equal(await ask(id + 1), NBD_EINVAL, "an id that was not selected");
  t.equal(await ask(id, id), NBD_EINVAL, "twice");
  t.equal(await ask(), NBD_EINVAL, "none");
  session.destroy();
});

row("C13: what was never written, or was trimmed, is reported as a hole", async (t, place) => {
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured, contexts: CONTEXT });
  await clear(session);
  const [length, flags] = await statusOf(session, 0, VOL_BYTES);
  t.equal(length, VOL_BYTES);
  t.ok((flags! & NBD_STATE_HOLE) !== 0, "an empty volume is one hole");
  await session.write(0, pattern(13, MIB));
  t.equal((await statusOf(session, 0, MIB))[1]! & NBD_STATE_HOLE, 0, "written data is none");
  session.destroy();
});

row("C14: status 0 covers all data, and zeros are never claimed of it", async (t, place) => {
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured, contexts: CONTEXT });
  await session.write(0, pattern(14, MIB));
  t.same(await statusOf(session, 0, MIB, NBD_CMD_FLAG_REQ_ONE), [MIB, 0]);
  session.destroy();
});

row("extended headers: 64-bit lengths for everything without payload", async (t, place) => {
  const session = await openSession(place, VOL, { mode: ReplyMode.Extended, contexts: CONTEXT });
  for (const type of [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS]) {
    const { errno } = await session.request(type, { length: 2 ** 40 });
    t.ok(errno !== 0, `command ${type} of 1 TiB does not fit`);
    t.equal((await session.request(type, { length: VOL_BYTES })).errno, 0);
  }
  const drained = await session.request(NBD_CMD_READ, {
    flags: NBD_CMD_FLAG_PAYLOAD_LEN,
    length: 100,
    payload: Buffer.alloc(100),
  });
  t.equal(drained.errno, NBD_EINVAL, "a payload on READ is drained");
  t.equal((await session.read(0, 512)).length, 512);
  session.destroy();
});
