// What has crashed other servers by names, lengths and signals, and what replies have crashed clients: said to, and
// asked of, ours. hostile-bytes-harm-the-server has the rest of these CVEs.
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  ReplyMode,
} from "nbd-protocol-ts";
import t, { type Test } from "tap";
import { removeScratch, scratchDirectory } from "../interop/support/scratch.js";
import { contextData, go, option, request, u16, u32 } from "./encode.js";
import { Haggling, openSession, type Session } from "./raw-client.js";
import { PeerClosed, type Place } from "./raw-socket.js";
import { makeCertificates } from "./support/certificates.js";
import { BLOCK, MIB, pattern, rowsOf, serveLive, VOL, VOL_BYTES } from "./support/live.js";
import { MemoryWatch } from "./support/memory.js";
import { type Chunk, replyOf } from "./support/wire-chunks.js";

const live = await serveLive(t);
const row = rowsOf(live);
const CONTEXT = ["base:allocation"];
const MODES = [ReplyMode.Simple, ReplyMode.Structured, ReplyMode.Extended];

async function realClient(t: Test, place: Place): Promise<void> {
  const session = await openSession(place, VOL, { mode: ReplyMode.Structured });
  t.equal((await session.read(0, BLOCK)).length, BLOCK, "a real client is served");
  await session.leave();
}

row("CVE-2013-7441: 1000 clients ask for unknown exports and go at once", async (t, place) => {
  const { pid } = live.server;
  const AT_ONCE = 50;
  const one = async (i: number): Promise<void> => {
    const name = `nothing-${i}`;
    const client = await Haggling.begin(place);
    const asked = i % 2 === 0 ? option(NBD_OPT_EXPORT_NAME, Buffer.from(name)) : go(name);
    // Some wait for the answer, some do not even wait until their question is on its way.
    if (i % 5 === 0) client.send(asked);
    else await client.socket.sent(asked);
    if (i % 10 === 1) t.equal((await client.answers()).at(-1)!.type, "NBD_REP_ERR_UNKNOWN");
    if (place.kind === "tcp" && i % 3 === 0) client.socket.reset();
    else client.socket.destroy();
  };
  for (let i = 0; i < 1000; i += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, j) => one(i + j)));
  }
  t.ok(live.server.program.isRunning && live.server.pid === pid, "the same process");
  await realClient(t, place);
});

row("CVE-2011-0530: strings of 4096 bytes, one more, and 64 KiB, wherever there is one", async (t, place) => {
  const memory = new MemoryWatch(live.server.pid);
  for (const length of [4096, 4097, 65_536]) {
    const long = "n".repeat(length);
    const info = Buffer.concat([u32(length), Buffer.from(long), u16(0)]);
    const context = (name: string, query: string): Buffer =>
      Buffer.concat([u32(name.length), Buffer.from(name), u32(1), u32(query.length), Buffer.from(query)]);
    const asked: [string, number, Buffer][] = [
      ["INFO name", NBD_OPT_INFO, info],
      ["GO name", NBD_OPT_GO, info],
      ["LIST_META name", NBD_OPT_LIST_META_CONTEXT, context(long, "base:")],
      ["SET_META name", NBD_OPT_SET_META_CONTEXT, context(long, "base:allocation")],
      ["LIST_META query", NBD_OPT_LIST_META_CONTEXT, context(VOL, long)],
      ["SET_META query", NBD_OPT_SET_META_CONTEXT, context(VOL, long)],
    ];
    const client = await Haggling.begin(place);
    await client.ask(NBD_OPT_STRUCTURED_REPLY);
    for (const [what, number, data] of asked) {
      const answers = await client.ask(number, data);
      // A context of 4096 bytes is a legal question, to which there is nothing to say.
      const fine = length === 4096 && what.endsWith("query");
      t.match(answers.at(-1)!.type, fine ? /REP_ACK/ : /ERR_(UNKNOWN|INVALID|TOO_BIG)/, `${what}: ${length}`);
      t.ok(
        answers.every(({ data }) => data.length <= 4096),
        "and answers are bounded",
      );
    }
    t.equal(await client.outcome(NBD_OPT_LIST), "NBD_REP_ACK", "the connection is in step");
    client.send(option(NBD_OPT_EXPORT_NAME, Buffer.from(long)));
    t.equal((await client.socket.rest()).length, 0, "EXPORT_NAME can only be answered by the end");
  }
  t.equal(memory.grown(), null, "memory has not grown");
  await realClient(t, place);
});

/** What became of a request: an error number, or "closed". */
async function fate(session: Session, type: number, length: number, payload?: Buffer): Promise<string> {
  const flags = session.extended && type === NBD_CMD_WRITE ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
  const asked = session.request(type, payload === undefined ? { length } : { length, payload, flags });
  // A server that wants the rest of a payload is told that there will be none.
  if (type === NBD_CMD_WRITE) session.socket.end();
  try {
    return String((await asked).errno);
  } catch (error) {
    if (error instanceof PeerClosed) return "closed";
    throw error;
  }
}

row("CVE-2005-3534: lengths beyond every buffer, with little or no payload behind them", async (t, place) => {
  // The last one of a READ wraps to nothing when the 16 bytes of a reply's header are added in 32 bits.
  const lengths = [32 * MIB + 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffe00, 0xfffffff0];
  const before = pattern(7, MIB);
  const writer = await openSession(place, VOL);
  await writer.write(0, before);
  const memory = new MemoryWatch(live.server.pid);
  for (const mode of MODES) {
    const reader = await openSession(place, VOL, { mode });
    for (const length of lengths) {
      const read = await fate(reader, NBD_CMD_READ, length);
      if (!/^[1-9]\d*$/.test(read)) t.fail(`mode ${mode}: READ of ${length}: ${read}`);
      for (const payload of [Buffer.alloc(0), Buffer.alloc(512, 0xee), Buffer.alloc(64 << 10, 0xee)]) {
        const session = await openSession(place, VOL, { mode });
        const written = await fate(session, NBD_CMD_WRITE, length, payload);
        if (written === "0") t.fail(`mode ${mode}: WRITE of ${length} with ${payload.length} succeeded`);
        await session.ended();
      }
    }
    t.ok((await reader.read(0, MIB)).equals(before), `mode ${mode}: nothing was written, and READ goes on`);
    await reader.leave();
  }
  t.equal(memory.grown(), null, "memory has not grown");
  await writer.leave();
});

t.test("CVE-2015-0847: SIGHUP again and again under load loses no request", async (t) => {
  const certificates = scratchDirectory();
  t.teardown(async () => removeScratch(certificates));
  await makeCertificates(certificates);
  // With TLS there is something that the signal reads anew.
  const live = await serveLive(t, { args: ["--tls", "allow", "--tls-dir", certificates], capacity: "256M" });
  const { pid, program } = live.server;
  const ROUNDS = 25;
  const IN_FLIGHT = 16;
  let over = 0;
  const signals = setInterval(() => process.kill(pid, "SIGHUP"), 3);
  const client = async (place: Place, base: number): Promise<void> => {
    const session = await openSession(place, VOL, { mode: ReplyMode.Structured });
    for (let round = 0; round < ROUNDS; round++) {
      process.kill(pid, "SIGHUP");
      const blocks = Array.from({ length: IN_FLIGHT }, (_, i) =>
        pattern(base + round * IN_FLIGHT + i, BLOCK),
      );
      await Promise.all(blocks.map((block, i) => session.write(base + i * BLOCK, block)));
      const read = await Promise.all(blocks.map((_, i) => session.read(base + i * BLOCK, BLOCK)));
      if (!read.every((bytes, i) => bytes.equals(blocks[i]!))) t.fail(`round ${round} of ${base}`);
      over += 2 * IN_FLIGHT;
    }
    await session.flush();
    t.equal(session.violation, "", "every reply was legal");
    await session.leave();
  };
  try {
    await Promise.all([client(live.tcp, 8 * MIB), client(live.unix, 9 * MIB), client(live.tcp, 10 * MIB)]);
  } finally {
    clearInterval(signals);
  }
  t.equal(over, 3 * ROUNDS * 2 * IN_FLIGHT, "every request was answered");
  t.ok(program.isRunning && live.server.pid === pid, "by the same process");
});

/** The replies that libnbd asserts on: descriptors of nothing, too many of them, or flags that nobody knows. */
function checkStatus(
  t: Test,
  chunk: Chunk,
  asked: { length: number; one: boolean; extended: boolean },
): number {
  const { body } = chunk;
  const { lead, each } = asked.extended ? { lead: 8, each: 16 } : { lead: 4, each: 8 };
  const count = (body.length - lead) / each;
  if (!Number.isInteger(count) || count < 1 || count > 1 << 20) t.fail(`${count} descriptors`);
  if (asked.extended && body.readUInt32BE(4) !== count) t.fail("the count is not that of the descriptors");
  if (asked.one && count !== 1) t.fail(`${count} descriptors for REQ_ONE`);
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const at = lead + i * each;
    const length = asked.extended ? Number(body.readBigUInt64BE(at)) : body.readUInt32BE(at);
    const flags = asked.extended ? body.readBigUInt64BE(at + 8) : BigInt(body.readUInt32BE(at + 4));
    if (length === 0) t.fail(`descriptor ${i} of ${count} has no length`);
    if (flags > 3n) t.fail(`descriptor ${i} has flags ${flags}`);
    if (i < count - 1 && sum + length >= asked.length) t.fail(`descriptor ${i} is not the last one`);
    sum += length;
  }
  if (asked.one && sum > asked.length) t.fail("the descriptor is longer than what was asked for");
  return count;
}

row(
  "CVE-2021-20286, CVE-2023-5871: no reply has what libnbd asserts on: empty extents, too many, unknown flags or types",
  async (t, place) => {
    const PAIRS = 128;
    const base = 16 * MIB;
    const writer = await openSession(place, VOL);
    await writer.trim(base, 2 * PAIRS * BLOCK);
    for (let i = 0; i < PAIRS; i++) await writer.write(base + 2 * i * BLOCK, pattern(i, BLOCK));
    await writer.leave();

    const ranges: [number, number][] = [
      [base, 2 * PAIRS * BLOCK],
      [base + 1, BLOCK],
      [base + BLOCK - 1, 2],
      [base + BLOCK, 1],
      [base + 511, 3 * BLOCK + 1],
      [0, VOL_BYTES],
      [VOL_BYTES - 1, 1],
    ];
    for (const extended of [false, true]) {
      const client = await Haggling.begin(place);
      await client.ask(extended ? NBD_OPT_EXTENDED_HEADERS : NBD_OPT_STRUCTURED_REPLY);
      const [selected] = await client.ask(NBD_OPT_SET_META_CONTEXT, contextData(VOL, CONTEXT));
      await client.ask(NBD_OPT_GO, go(VOL).subarray(16));
      let most = 0;
      for (const [offset, length] of ranges) {
        for (const flags of [0, NBD_CMD_FLAG_REQ_ONE]) {
          client.send(request(NBD_CMD_BLOCK_STATUS, { offset, length, flags, extended }));
          const chunks = await replyOf(client.socket, extended);
          t.same(
            chunks.map(({ type }) => type),
            [extended ? 6 : 5],
            `one chunk for ${length} at ${offset}`,
          );
          t.equal(chunks[0]!.body.readUInt32BE(0), selected!.data.readUInt32BE(0), "of the selected context");
          const one = flags !== 0;
          most = Math.max(most, checkStatus(t, chunks[0]!, { length, one, extended }));
        }
        for (const flags of [0, NBD_CMD_FLAG_DF]) {
          const part = Math.min(length, MIB);
          client.send(request(NBD_CMD_READ, { offset, length: part, flags, extended }));
          checkRead(t, await replyOf(client.socket, extended), offset, part);
        }
      }
      t.ok(most >= 2 * PAIRS - 1, `extents were there to be told: ${most}`);
      for (const [type, length] of [
        [NBD_CMD_BLOCK_STATUS, 2],
        [NBD_CMD_READ, 2],
        [77, 1],
      ] as const) {
        client.send(request(type, { offset: VOL_BYTES - 1, length, extended }));
        const chunks = await replyOf(client.socket, extended);
        t.ok(
          chunks.every(({ type }) => type === 32_769 || type === 32_770),
          `errors are error chunks: command ${type}`,
        );
      }
      // Whatever came too much would be in front of this one.
      client.send(request(NBD_CMD_READ, { cookie: 99, offset: base, length: 1, extended }));
      checkRead(t, await replyOf(client.socket, extended, 99), base, 1);
      client.socket.destroy();
    }
  },
);

/** Content chunks cover the range once, none of them with nothing. */
function checkRead(t: Test, chunks: readonly Chunk[], offset: number, length: number): void {
  let covered = 0;
  for (const { type, body } of chunks) {
    if (type === 0 && body.length === 0) continue;
    const at = Number(body.readBigUInt64BE(0));
    const bytes = type === 1 ? body.length - 8 : type === 2 ? body.readUInt32BE(8) : 0;
    if (bytes === 0) t.fail(`a chunk of type ${type} has no content`);
    if (at < offset || at + bytes > offset + length) t.fail(`content outside of ${length} at ${offset}`);
    covered += bytes;
  }
  t.equal(covered, length, `READ of ${length} at ${offset}`);
}

t.test(
  "CVE-2021-20286: a server that ends during negotiation says whole replies, then goodbye",
  async (t) => {
    const dying = await serveLive(t, { capacity: "256M" });
    const clients = await Promise.all(
      Array.from({ length: 8 }, (_, i) => Haggling.begin(i % 2 === 0 ? dying.tcp : dying.unix)),
    );
    for (const client of clients) client.send(...Array.from({ length: 50 }, () => option(NBD_OPT_LIST)));
    const ended = dying.server.program.end("SIGTERM");
    for (const client of clients) client.send(option(NBD_OPT_STRUCTURED_REPLY), go(VOL), go("nothing"));
    for (const client of clients) {
      // Throws when what came is no reply to an option, and when the end is in the middle of one.
      let replies = 0;
      for (;;) {
        try {
          await client.answer();
          replies++;
        } catch (error) {
          if (!(error instanceof PeerClosed) || !/ 0 of 20 bytes/.test(error.message)) throw error;
          break;
        }
      }
      t.ok(replies <= 2 * 50 + 8, `${replies} replies, then the end`);
    }
    t.equal((await ended).code, 0);
  },
);
