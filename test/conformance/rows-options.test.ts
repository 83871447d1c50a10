// Rows O1–O25 of the conformance list against the running server: options and their answers.
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_READ,
  NBD_EINVAL,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_DESCRIPTION,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_PEEK_EXPORT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REPLY_TYPE_ERROR,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_BYTES,
  OPTION_SKIP_BYTES_MAX,
  OPTIONS_MAX,
  parseContextReply,
  parseInfoReply,
  parseServerReply,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import { contextData, go, infoData, option, request, u16, u32 } from "./encode.js";
import { type Answer, Haggling, openSession } from "./raw-client.js";
import { rowsOf, serveLive, VOL, VOL_BYTES } from "./support/live.js";

const live = await serveLive(t);
const row = rowsOf(live);
await live.server.lamina("volume", "create", "second", "--size", "1M", "--description", "the other one");

const INFOS = [NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE];

function typesOf(answers: readonly Answer[]): string[] {
  return answers.map(({ type }) => type.replace("NBD_REP_", ""));
}

function contextsOf(answers: readonly Answer[]): unknown[] {
  return answers
    .filter(({ type }) => type === "NBD_REP_META_CONTEXT")
    .map(({ data }) => parseContextReply(data));
}

/** GO, then BLOCK_STATUS over structured replies: the error number of the chunk that answers it. */
async function blockStatusError(client: Haggling, name: string): Promise<number> {
  await client.ask(NBD_OPT_GO, infoData(name));
  client.send(request(NBD_CMD_BLOCK_STATUS, { length: 4096 }));
  const reply = await client.socket.exactly(NBD_STRUCTURED_REPLY_BYTES + 4);
  if (reply.readUInt16BE(6) !== NBD_REPLY_TYPE_ERROR) throw new Error("no error chunk");
  return reply.readUInt32BE(NBD_STRUCTURED_REPLY_BYTES);
}

/** The connection still understands what it is told. */
async function inStep(client: Haggling): Promise<boolean> {
  return (await client.outcome(NBD_OPT_LIST)) === "NBD_REP_ACK";
}

row("O1: a reply repeats its option; an option without IHAVEOPT ends the connection", async (t, place) => {
  const client = await Haggling.begin(place);
  for (const answer of await client.ask(NBD_OPT_LIST)) t.equal(answer.option, NBD_OPT_LIST);
  client.send(Buffer.alloc(16, 0x55));
  t.equal((await client.socket.rest()).length, 0);
});

row("O2: unknown options are drained and answered, and what follows is understood", async (t, place) => {
  const client = await Haggling.begin(place);
  for (const number of [0, NBD_OPT_PEEK_EXPORT, 12, 77, 0x7fffffff, 0xffffffff]) {
    for (const length of [0, 1, 4096, 70_000]) {
      t.equal(
        await client.outcome(number, Buffer.alloc(length, 0x49)),
        "NBD_REP_ERR_UNSUP",
        `${number}, ${length}`,
      );
    }
  }
  t.ok(await inStep(client));
  client.socket.destroy();
});

row("O3: pipelined options are answered one by one, each once", async (t, place) => {
  const client = await Haggling.begin(place);
  const numbers = [NBD_OPT_LIST, NBD_OPT_STARTTLS, 99, NBD_OPT_STRUCTURED_REPLY, NBD_OPT_LIST];
  client.send(...numbers.map((number) => option(number)));
  for (const number of numbers) t.equal((await client.answers()).at(-1)!.option, number);
  t.equal(client.socket.available, 0);
  client.socket.destroy();
});

row("O4: error replies carry a sentence that QEMU takes", async (t, place) => {
  const client = await Haggling.begin(place);
  const [answer] = await client.ask(NBD_OPT_INFO, infoData("x".repeat(4096)));
  t.match(answer!.type, /ERR_UNKNOWN/);
  t.ok(answer!.data.length > 0 && answer!.data.length < 900, `${answer!.data.length} bytes`);
  client.socket.destroy();
});

row("O5: what is merely wrong is answered, not disconnected", async (t, place) => {
  const client = await Haggling.begin(place);
  t.equal(await client.outcome(NBD_OPT_LIST, Buffer.alloc(1)), "NBD_REP_ERR_INVALID");
  t.equal(await client.outcome(NBD_OPT_GO, Buffer.alloc(3)), "NBD_REP_ERR_INVALID");
  t.equal(await client.outcome(NBD_OPT_GO, infoData("nothing")), "NBD_REP_ERR_UNKNOWN");
  t.equal(await client.outcome(NBD_OPT_SET_META_CONTEXT, Buffer.alloc(3)), "NBD_REP_ERR_INVALID");
  t.ok(await inStep(client));
  client.socket.destroy();
});

row(
  "O7: a second STRUCTURED_REPLY or EXTENDED_HEADERS is ERR_INVALID and changes nothing",
  async (t, place) => {
    const client = await Haggling.begin(place);
    t.equal(await client.outcome(NBD_OPT_STRUCTURED_REPLY), "NBD_REP_ACK");
    t.equal(await client.outcome(NBD_OPT_STRUCTURED_REPLY), "NBD_REP_ERR_INVALID");
    t.equal(await client.outcome(NBD_OPT_EXTENDED_HEADERS), "NBD_REP_ACK");
    t.equal(await client.outcome(NBD_OPT_EXTENDED_HEADERS), "NBD_REP_ERR_INVALID");
    t.equal(await client.outcome(NBD_OPT_STRUCTURED_REPLY), "NBD_REP_ERR_EXT_HEADER_REQD");
    client.socket.destroy();
  },
);

row("O8: option data beyond the bound ends the connection before it is sent", async (t, place) => {
  for (const claimed of [OPTION_SKIP_BYTES_MAX + 1, 0x7fffffff, 0xffffffff]) {
    const client = await Haggling.begin(place);
    client.send(option(99, Buffer.alloc(0), claimed));
    t.equal((await client.socket.rest()).length, 0, `${claimed} bytes announced`);
  }
});

row("O8: a flood of options ends", async (t, place) => {
  const client = await Haggling.begin(place);
  const flood = Buffer.concat(Array.from({ length: OPTIONS_MAX + 1 }, () => option(NBD_OPT_STARTTLS)));
  client.send(flood);
  const answered = await client.socket.rest();
  t.ok(answered.length > 0, "options up to the bound are answered");
});

row(
  "O10: EXPORT_NAME of an unknown export, or of none that can be, ends the connection",
  async (t, place) => {
    for (const name of ["nothing", "", "x".repeat(4096), "x".repeat(4097), "a\0b", "\xff"]) {
      const client = await Haggling.begin(place);
      client.send(option(NBD_OPT_EXPORT_NAME, Buffer.from(name, "latin1")));
      t.equal((await client.socket.rest()).length, 0, JSON.stringify(name.slice(0, 9)));
    }
  },
);

row("O11: ABORT is acknowledged, whatever data it has, and the connection ends", async (t, place) => {
  for (const length of [0, 5, 100_000]) {
    const client = await Haggling.begin(place);
    t.equal(await client.outcome(NBD_OPT_ABORT, Buffer.alloc(length)), "NBD_REP_ACK");
    t.equal((await client.socket.rest()).length, 0);
  }
  const rude = await Haggling.begin(place);
  rude.send(option(NBD_OPT_ABORT));
  rude.socket.destroy();
  t.pass("a client that closes without reading is tolerated");
});

row("O12: LIST sends one SERVER reply per export, then ACK, and takes no data", async (t, place) => {
  const client = await Haggling.begin(place);
  const answers = await client.ask(NBD_OPT_LIST);
  t.same(typesOf(answers), ["SERVER", "SERVER", "ACK"]);
  const names = answers.slice(0, -1).map(({ data }) => parseServerReply(data)?.name);
  t.same(names.sort(), ["second", VOL]);
  t.equal(await client.outcome(NBD_OPT_LIST, u32(0)), "NBD_REP_ERR_INVALID");
  client.socket.destroy();
});

row("O13: a SERVER reply has the name's length, the name and the description", async (t, place) => {
  const client = await Haggling.begin(place);
  const answers = await client.ask(NBD_OPT_LIST);
  const second = answers.find(({ data }) => data.includes("second"))!.data;
  t.equal(second.readUInt32BE(0), "second".length);
  t.equal(second.toString("utf8", 4), "secondthe other one");
  client.socket.destroy();
});

row(
  "O14: the empty name is the default export, which does not exist beside a second volume",
  async (t, place) => {
    const client = await Haggling.begin(place);
    t.equal(await client.outcome(NBD_OPT_INFO, infoData("")), "NBD_REP_ERR_UNKNOWN");
    t.equal(await client.outcome(NBD_OPT_INFO, infoData(VOL)), "NBD_REP_ACK");
    client.socket.destroy();
  },
);

row("O15: wrong lengths in INFO and GO are ERR_INVALID and the stream stays in step", async (t, place) => {
  const client = await Haggling.begin(place);
  const name = Buffer.from(VOL);
  const wrong = [
    Buffer.alloc(0),
    u32(0),
    Buffer.concat([u32(1), u16(0)]),
    Buffer.concat([u32(name.length), name]),
    Buffer.concat([u32(name.length), name, u16(1)]),
    Buffer.concat([u32(name.length), name, u16(0), u16(0)]),
    Buffer.concat([u32(name.length + 1), name, u16(0)]),
    Buffer.concat([u32(0xffffffff), name, u16(0)]),
    Buffer.concat([u32(4), Buffer.from("a\0bc"), u16(0)]),
    Buffer.concat([u32(2), Buffer.from([0xc3, 0x28]), u16(0)]),
  ];
  for (const number of [NBD_OPT_INFO, NBD_OPT_GO]) {
    for (const [i, data] of wrong.entries()) {
      t.equal(await client.outcome(number, data), "NBD_REP_ERR_INVALID", `option ${number}, data ${i}`);
    }
  }
  t.ok(await inStep(client));
  client.socket.destroy();
});

row("O16: success means NBD_INFO_EXPORT, then ACK; unknown requests are ignored", async (t, place) => {
  const client = await Haggling.begin(place);
  for (const infos of [[], [NBD_INFO_EXPORT], [4711, 0xffff], INFOS]) {
    const answers = await client.ask(NBD_OPT_INFO, infoData(VOL, infos));
    t.equal(answers.at(-1)!.type, "NBD_REP_ACK");
    const kinds = answers.slice(0, -1).map(({ data }) => parseInfoReply(data)?.info);
    t.equal(kinds.filter((info) => info === NBD_INFO_EXPORT).length, 1, `asked for ${infos.join()}`);
  }
  client.socket.destroy();
});

row("O17: an unknown export is ERR_UNKNOWN without infos, and haggling goes on", async (t, place) => {
  const client = await Haggling.begin(place);
  for (const number of [NBD_OPT_INFO, NBD_OPT_GO]) {
    t.same(typesOf(await client.ask(number, infoData("nothing", INFOS))), ["ERR_UNKNOWN"]);
  }
  t.ok(await inStep(client));
  client.socket.destroy();
});

row("O18: GO repeats what INFO said with the same parameters", async (t, place) => {
  const client = await Haggling.begin(place);
  const said = await client.ask(NBD_OPT_INFO, infoData("second", INFOS));
  const again = await client.ask(NBD_OPT_GO, infoData("second", INFOS));
  t.same(
    again.map(({ type, data }) => [type, data.toString("hex")]),
    said.map(({ type, data }) => [type, data.toString("hex")]),
  );
  client.socket.destroy();
});

row("O19: after GO's ACK requests are served at once, without zero padding", async (t, place) => {
  for (const flags of [1, 3]) {
    const client = await Haggling.begin(place, flags);
    client.send(go(VOL), request(NBD_CMD_READ, { length: 512, cookie: 7 }));
    t.same(typesOf(await client.answers()), ["INFO", "ACK"]);
    const reply = await client.socket.exactly(16);
    t.equal(reply.readUInt32BE(0), NBD_SIMPLE_REPLY_MAGIC, `client flags ${flags}`);
    client.socket.destroy();
  }
});

row("O20: block sizes are sent to those who ask, and demanded of nobody", async (t, place) => {
  const client = await Haggling.begin(place);
  const answers = await client.ask(NBD_OPT_INFO, infoData(VOL, [NBD_INFO_BLOCK_SIZE]));
  const sizes = answers
    .map(({ data }) => parseInfoReply(data))
    .find((info) => info?.info === NBD_INFO_BLOCK_SIZE);
  t.same(sizes, {
    info: NBD_INFO_BLOCK_SIZE,
    blockSizes: { minimum: 512, preferred: 4096, maximumPayload: 32 << 20 },
  });
  t.same(typesOf(await client.ask(NBD_OPT_GO, infoData(VOL))), ["INFO", "ACK"], "nobody has to ask");
  client.socket.destroy();
});

row("O21: STRUCTURED_REPLY takes no data and makes READ's replies structured", async (t, place) => {
  const client = await Haggling.begin(place);
  t.equal(await client.outcome(NBD_OPT_STRUCTURED_REPLY, Buffer.alloc(4)), "NBD_REP_ERR_INVALID");
  const session = await client.go(VOL, { mode: ReplyMode.Structured });
  t.equal((await session.read(0, 4096)).length, 4096);
  t.equal((await session.request(NBD_CMD_READ, { offset: VOL_BYTES, length: 512 })).errno, 22, "errors too");
  session.destroy();
});

row(
  "O22: LIST_META_CONTEXT lists all for no query, base: as a wildcard, and ignores the unknown",
  async (t, place) => {
    const client = await Haggling.begin(place);
    await client.ask(NBD_OPT_STRUCTURED_REPLY);
    const list = async (...queries: string[]): Promise<unknown[]> =>
      contextsOf(await client.ask(NBD_OPT_LIST_META_CONTEXT, contextData(VOL, queries)));
    const base = [{ id: 0, name: "base:allocation" }];
    t.same(await list(), base);
    t.same(await list("base:"), base);
    t.same(await list("base:allocation", "base:allocation"), base);
    t.same(await list("qemu:", "base:nonsense", "nocolon", ":", ""), []);
    t.ok(await inStep(client));
    client.socket.destroy();
  },
);

row("O22, O23: the namespace lamina: is ours and holds nothing yet", async (t, place) => {
  const client = await Haggling.begin(place);
  await client.ask(NBD_OPT_STRUCTURED_REPLY);
  const ask = async (number: number, ...queries: string[]): Promise<Answer[]> =>
    client.ask(number, contextData(VOL, queries));
  const queries = [
    "lamina:",
    "lamina:snapshot/monday",
    "lamina:snapshot/",
    "lamina::",
    `lamina:${"x".repeat(4000)}`,
  ];
  for (const query of queries) {
    t.same(typesOf(await ask(NBD_OPT_LIST_META_CONTEXT, query)), ["ACK"], `listing ${query.slice(0, 30)}`);
    t.same(typesOf(await ask(NBD_OPT_SET_META_CONTEXT, query)), ["ACK"], `selecting ${query.slice(0, 30)}`);
  }
  const both = contextsOf(await ask(NBD_OPT_SET_META_CONTEXT, ...queries, "base:allocation"));
  t.equal(both.length, 1, "what is there beside it is selected");
  const session = await client.go(VOL, { mode: ReplyMode.Simple });
  session.destroy();
});

row("O22: wrong lengths in LIST_ and SET_META_CONTEXT are ERR_INVALID", async (t, place) => {
  const client = await Haggling.begin(place);
  await client.ask(NBD_OPT_STRUCTURED_REPLY);
  const name = Buffer.concat([u32(3), Buffer.from(VOL)]);
  const wrong = [
    Buffer.alloc(0),
    name,
    Buffer.concat([u32(0xffffffff), Buffer.from(VOL), u32(0)]),
    Buffer.concat([name, u32(1)]),
    Buffer.concat([name, u32(0xffffffff)]),
    Buffer.concat([name, u32(1), u32(0xffffffff), Buffer.from("base:")]),
    Buffer.concat([name, u32(1), u32(5), Buffer.from("base")]),
    Buffer.concat([name, u32(0), Buffer.from("behind")]),
    Buffer.concat([name, u32(1), u32(5000), Buffer.alloc(5000, 0x61)]),
  ];
  for (const number of [NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT]) {
    for (const [i, data] of wrong.entries()) {
      t.equal(await client.outcome(number, data), "NBD_REP_ERR_INVALID", `option ${number}, data ${i}`);
    }
  }
  t.ok(await inStep(client));
  client.socket.destroy();
});

row(
  "O23: SET_META_CONTEXT selects with unique ids, and replaces the selection even when it fails",
  async (t, place) => {
    const select = async (client: Haggling, name: string, ...queries: string[]): Promise<Answer[]> =>
      client.ask(NBD_OPT_SET_META_CONTEXT, contextData(name, queries));
    const early = await Haggling.begin(place);
    t.same(typesOf(await select(early, VOL, "base:allocation")), ["ERR_INVALID"], "before STRUCTURED_REPLY");
    early.socket.destroy();

    const client = await Haggling.begin(place);
    await client.ask(NBD_OPT_STRUCTURED_REPLY);
    const twice = contextsOf(await select(client, VOL, "base:allocation", "base:allocation"));
    t.equal(twice.length, 1, "one reply for two equal queries");
    t.same(typesOf(await select(client, VOL, "base:")), ["ACK"], "base: selects nothing");
    t.same(
      typesOf(await select(client, VOL, "base:other", "x-none:y")),
      ["ACK"],
      "unknown leaves are ignored",
    );
    await select(client, VOL, "base:allocation");
    t.equal(await client.outcome(NBD_OPT_SET_META_CONTEXT, Buffer.alloc(2)), "NBD_REP_ERR_INVALID");
    t.equal(await blockStatusError(client, VOL), NBD_EINVAL, "nothing is selected after the failure");
    client.socket.destroy();
  },
);

row("O24: contexts count only for the export name that they were selected for", async (t, place) => {
  const client = await Haggling.begin(place);
  await client.ask(NBD_OPT_STRUCTURED_REPLY);
  const answers = await client.ask(NBD_OPT_SET_META_CONTEXT, contextData("second", ["base:allocation"]));
  t.equal(contextsOf(answers).length, 1);
  t.equal(await blockStatusError(client, VOL), NBD_EINVAL);
  client.socket.destroy();
});

row("O25: EXTENDED_HEADERS takes no data, and forbids EXPORT_NAME", async (t, place) => {
  const client = await Haggling.begin(place);
  t.equal(await client.outcome(NBD_OPT_EXTENDED_HEADERS, u16(1)), "NBD_REP_ERR_INVALID");
  t.equal(await client.outcome(NBD_OPT_EXTENDED_HEADERS), "NBD_REP_ACK");
  client.send(option(NBD_OPT_EXPORT_NAME, Buffer.from(VOL)));
  t.equal((await client.socket.rest()).length, 0);
  const session = await openSession(place, VOL, { mode: ReplyMode.Extended });
  t.equal((await session.read(0, 4096)).length, 4096);
  session.destroy();
});
