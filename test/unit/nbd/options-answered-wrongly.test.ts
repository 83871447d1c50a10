// Option haggling: rows O1–O25 of the conformance list, as far as they need no I/O.
import {
  ERROR_TEXT_BYTES_MAX,
  encodeInfoRequest,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
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
  NBD_REP_ERR_SHUTDOWN,
  NBD_REP_ERR_UNKNOWN,
  NbdUsageError,
  OPTIONS_MAX,
  parseContextReply,
  parseInfoReply,
  parseServerReply,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import {
  type Answer,
  ask,
  concat,
  contextQuery,
  directoryOf,
  go,
  haggling,
  negotiate,
  OTHER,
  option,
  SECRET,
  say,
  structuredServer,
  text,
  typesOf,
  u16,
  u32,
  VOL,
} from "./helpers.js";

const ALL_INFOS = [NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE];

function infosOf(answers: readonly Answer[]): unknown[] {
  return answers.filter(({ type }) => type === "NBD_REP_INFO").map(({ data }) => parseInfoReply(data));
}

function namesOf(answers: readonly Answer[]): (string | undefined)[] {
  return answers
    .filter(({ type }) => type === "NBD_REP_META_CONTEXT")
    .map(({ data }) => parseContextReply(data)?.name);
}

t.test("O1: a reply repeats the option it answers; a wrong magic ends the connection", async (t) => {
  const server = haggling();
  for (const number of [NBD_OPT_LIST, NBD_OPT_STRUCTURED_REPLY, 4711]) {
    for (const answer of ask(server, option(number))) t.equal(answer.option, number);
  }
  const bytes = option(NBD_OPT_LIST);
  bytes[7] = 0x55;
  say(server, bytes);
  t.equal(server.state, "dead");
});

t.test("O2: an unknown option is drained and answered, and the next is understood", async (t) => {
  const server = haggling();
  for (const number of [0, NBD_OPT_PEEK_EXPORT, 12, 0x7fffffff, 0xffffffff]) {
    const answers = ask(server, concat(option(number, new Uint8Array(5000)), option(NBD_OPT_LIST)));
    t.equal(answers[0]?.type, "NBD_REP_ERR_UNSUP", `option ${number}`);
    t.equal(answers.at(-1)?.type, "NBD_REP_ACK");
  }
});

t.test("O3: every option gets exactly one final reply", async (t) => {
  const server = haggling();
  const numbers = [2 ** 31, 3, 4, 5, 6, 8, 9, 10, 11, 12];
  for (const number of numbers) {
    const answers = ask(server, option(number));
    const finals = answers.filter(({ type }) => /ACK|ERR/.test(type));
    t.equal(finals.length, 1, `option ${number}`);
    t.equal(finals[0], answers.at(-1), "and it is the last");
  }
});

t.test("O4: error text is UTF-8 and short enough for QEMU", async (t) => {
  const server = haggling();
  const name = "é".repeat(2048);
  const answer = ask(server, go(name))[0]!;
  t.equal(answer.type, "NBD_REP_ERR_UNKNOWN");
  t.ok(answer.data.length > 10 && answer.data.length <= ERROR_TEXT_BYTES_MAX);
  t.doesNotThrow(() => new TextDecoder("utf-8", { fatal: true }).decode(answer.data));
});

t.test("O5: what is merely wrong is answered, not disconnected", async (t) => {
  const server = haggling();
  for (const number of [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 99, 0xffffffff]) {
    for (const length of [0, 1, 5, 8, 20, 4096, 20_000, 200_000]) {
      const answers = ask(server, option(number, new Uint8Array(length).fill(0x41)));
      t.ok(answers.length > 0, `option ${number} with ${length} bytes`);
      t.equal(server.state, "haggling");
    }
  }
});

t.test("O6: while shutting down, all options but ABORT get ERR_SHUTDOWN", async (t) => {
  const server = haggling();
  server.shutDown();
  for (const number of [NBD_OPT_LIST, NBD_OPT_GO, NBD_OPT_STARTTLS, 99]) {
    t.same(typesOf(ask(server, option(number, text("abc")))), ["NBD_REP_ERR_SHUTDOWN"]);
  }
  t.same(typesOf(ask(server, option(NBD_OPT_ABORT))), ["NBD_REP_ACK"]);
  const old = haggling();
  old.shutDown();
  say(old, option(NBD_OPT_EXPORT_NAME, text("vol")));
  t.equal(old.state, "dead", "EXPORT_NAME cannot be answered with an error");
});

t.test("O7: a second STRUCTURED_REPLY or EXTENDED_HEADERS is ERR_INVALID and changes nothing", async (t) => {
  for (const number of [NBD_OPT_STRUCTURED_REPLY, NBD_OPT_EXTENDED_HEADERS]) {
    const server = haggling();
    t.same(typesOf(ask(server, option(number))), ["NBD_REP_ACK"]);
    t.same(typesOf(ask(server, option(number))), ["NBD_REP_ERR_INVALID"]);
    say(server, go());
    server.opened(VOL);
    t.not(server.negotiated?.mode, ReplyMode.Simple);
  }
});

t.test("O8: a flood of options ends", async (t) => {
  const server = haggling();
  const one = option(77);
  let sent = 0;
  while (server.state === "haggling" && sent < 2 * OPTIONS_MAX) {
    say(server, one);
    sent++;
  }
  t.equal(server.state, "dead");
  t.equal(sent, OPTIONS_MAX + 1);
});

t.test("O10: EXPORT_NAME of an unknown, TLS-only or unopenable export ends the connection", async (t) => {
  for (const name of ["nosuch", "secret", "vol/", "x".repeat(4096)]) {
    const server = haggling();
    t.equal(say(server, option(NBD_OPT_EXPORT_NAME, text(name))).length, 0, "without a byte");
    t.equal(server.state, "dead", name.slice(0, 10));
  }
  const server = haggling();
  say(server, option(NBD_OPT_EXPORT_NAME, text("vol")));
  server.refused(NBD_REP_ERR_UNKNOWN, "gone meanwhile");
  t.equal(server.state, "dead");
  t.equal(server.reason, "gone meanwhile");
});

t.test("O11: ABORT is acknowledged, whatever data it has, and ends the haggling", async (t) => {
  for (const data of [new Uint8Array(0), text("bye"), new Uint8Array(100_000)]) {
    const server = haggling();
    const bytes = concat(option(NBD_OPT_ABORT, data), option(NBD_OPT_LIST));
    t.same(typesOf(ask(server, bytes)), ["NBD_REP_ACK"]);
    t.equal(server.state, "closed");
  }
});

t.test("O12: LIST sends one SERVER reply per export, then ACK", async (t) => {
  const server = haggling();
  const answers = ask(server, option(NBD_OPT_LIST));
  t.same(typesOf(answers), ["NBD_REP_SERVER", "NBD_REP_SERVER", "NBD_REP_ACK"]);
  t.same(
    answers.slice(0, 2).map(({ data }) => parseServerReply(data)?.name),
    ["vol", "other"],
  );
  t.same(typesOf(ask(server, option(NBD_OPT_LIST, text("x")))), ["NBD_REP_ERR_INVALID"], "with data");
  const silent = haggling({ directory: { list: () => null, find: () => undefined } });
  t.same(typesOf(ask(silent, option(NBD_OPT_LIST))), ["NBD_REP_ERR_POLICY"], "forbidden by policy");
});

t.test("O12: a long listing never piles up in memory", async (t) => {
  const COUNT = 20_000;
  let pulled = 0;
  const directory = {
    find: () => undefined,
    *list() {
      for (; pulled < COUNT; pulled++) yield { name: `volume-${pulled}` };
    },
  };
  const server = haggling({ directory });
  const pipelined = option(NBD_OPT_STRUCTURED_REPLY);
  t.equal(server.feed(concat(option(NBD_OPT_LIST), pipelined)), 16, "the next option is not taken meanwhile");
  t.ok(pulled < 2000, "the list is pulled as it is sent");
  let servers = 0;
  let most = 0;
  for (let last = ""; last !== "NBD_REP_ACK"; ) {
    most = Math.max(most, server.outputLength);
    const answers = typesOf(ask(server, new Uint8Array(0)));
    servers += answers.filter((type) => type === "NBD_REP_SERVER").length;
    last = answers.at(-1) ?? "NBD_REP_ACK";
  }
  t.equal(servers, COUNT);
  t.ok(most < 32 * 1024, `${most} bytes waited at most`);
  t.same(typesOf(ask(server, pipelined)), ["NBD_REP_ACK"]);
});

t.test("O13: a SERVER reply holds name and description", async (t) => {
  const answers = ask(haggling(), option(NBD_OPT_LIST));
  t.same(parseServerReply(answers[0]!.data), { name: "vol", description: "the volume" });
});

t.test("O14: the empty name is the default export", async (t) => {
  const server = haggling();
  const answers = ask(server, option(NBD_OPT_INFO, encodeInfoRequest("", [NBD_INFO_NAME])));
  t.same(infosOf(answers)[1], { info: NBD_INFO_NAME, text: "vol" });
  say(server, go(""));
  t.same(server.opening, { exportName: "", info: VOL });
});

t.test("O15: wrong lengths in INFO and GO are ERR_INVALID and the stream stays in step", async (t) => {
  const bad: Readonly<Record<string, Uint8Array>> = {
    empty: new Uint8Array(0),
    "too short": new Uint8Array(5),
    "name length above data": concat(u32(4), text("vol"), u16(0)),
    "name length of 2^32 - 1": concat(u32(0xffffffff), text("vol"), u16(0)),
    "one info missing": concat(u32(3), text("vol"), u16(2), u16(3)),
    "an odd byte behind": concat(u32(3), text("vol"), u16(1), u16(3), Uint8Array.of(0)),
    "count above data": concat(u32(3), text("vol"), u16(0xffff)),
    "NUL in the name": concat(u32(3), Uint8Array.of(0x76, 0, 0x6c), u16(0)),
    "no UTF-8": concat(u32(3), Uint8Array.of(0x76, 0xff, 0x6c), u16(0)),
    "an overlong name": concat(u32(4097), text("x".repeat(4097)), u16(0)),
  };
  for (const number of [NBD_OPT_INFO, NBD_OPT_GO]) {
    const server = haggling();
    for (const [what, data] of Object.entries(bad)) {
      t.same(typesOf(ask(server, option(number, data))), ["NBD_REP_ERR_INVALID"], what);
    }
    t.match(typesOf(ask(server, option(NBD_OPT_LIST))), ["NBD_REP_SERVER"], "still in step");
  }
});

t.test("O16: success means NBD_INFO_EXPORT, then ACK; unknown requests are ignored", async (t) => {
  const server = haggling();
  const none = ask(server, option(NBD_OPT_INFO, encodeInfoRequest("vol", [])));
  t.same(typesOf(none), ["NBD_REP_INFO", "NBD_REP_ACK"]);
  t.match(infosOf(none), [{ info: NBD_INFO_EXPORT, size: VOL.size }]);
  const odd = ask(server, option(NBD_OPT_INFO, encodeInfoRequest("vol", [4711, NBD_INFO_NAME, 4, 4])));
  t.match(infosOf(odd), [{ info: NBD_INFO_EXPORT }, { info: NBD_INFO_NAME, text: "vol" }]);
  const all = ask(server, option(NBD_OPT_INFO, encodeInfoRequest("vol", ALL_INFOS)));
  t.match(infosOf(all), [
    { info: NBD_INFO_EXPORT },
    { info: NBD_INFO_NAME, text: "vol" },
    { info: NBD_INFO_DESCRIPTION, text: "the volume" },
    { info: NBD_INFO_BLOCK_SIZE, blockSizes: VOL.blockSizes },
  ]);
  t.equal(all.at(-1)?.type, "NBD_REP_ACK");
});

t.test("O17: an unknown export is ERR_UNKNOWN without infos, and haggling goes on", async (t) => {
  const server = haggling();
  t.same(typesOf(ask(server, go("nosuch", ALL_INFOS))), ["NBD_REP_ERR_UNKNOWN"]);
  t.equal(server.state, "haggling");
  say(server, go("vol"));
  server.refused(NBD_REP_ERR_UNKNOWN, "gone meanwhile");
  t.same(typesOf(ask(server, new Uint8Array(0))), ["NBD_REP_ERR_UNKNOWN"]);
  t.equal(server.state, "haggling", "also after a failed opening");
  say(server, go("vol"));
  server.refused(NBD_REP_ERR_SHUTDOWN, "stopping");
  t.same(typesOf(ask(server, go("vol")))[0], "NBD_REP_ERR_SHUTDOWN");
  t.equal(server.state, "opening", "and every GO is a new chance");
});

t.test("O18: GO repeats what INFO said with the same parameters", async (t) => {
  for (const options of [[], [NBD_OPT_STRUCTURED_REPLY], [NBD_OPT_EXTENDED_HEADERS]]) {
    const server = haggling();
    for (const number of options) say(server, option(number));
    say(server, option(NBD_OPT_SET_META_CONTEXT, contextQuery("vol", ["base:allocation"])));
    const data = encodeInfoRequest("vol", ALL_INFOS);
    const info = ask(server, option(NBD_OPT_INFO, data));
    say(server, option(NBD_OPT_GO, data));
    server.opened(VOL);
    t.same(infosOf(ask(server, new Uint8Array(0))), infosOf(info));
  }
});

t.test(
  "O19: behind GO's ACK the transmission begins, without zero padding, and no byte is taken",
  async (t) => {
    const server = haggling({}, 1);
    const behind = text("request bytes");
    const bytes = concat(go(), behind);
    t.equal(server.feed(bytes), bytes.length - behind.length, "pipelined requests stay with the caller");
    t.equal(server.feed(behind), 0);
    server.opened(VOL);
    t.same(typesOf(ask(server, new Uint8Array(0))), ["NBD_REP_INFO", "NBD_REP_ACK"]);
    t.equal(server.state, "transmission");
    t.equal(server.feed(behind), 0);
  },
);

t.test("O20: block sizes are sent to those who ask, and demanded only from those who did not", async (t) => {
  const strict = { ...VOL, blockSizeRequired: true };
  const server = haggling({ directory: directoryOf(strict) });
  const refused = ask(server, go("vol"));
  t.same(typesOf(refused), ["NBD_REP_INFO", "NBD_REP_ERR_BLOCK_SIZE_REQD"]);
  t.match(infosOf(refused), [{ blockSizes: VOL.blockSizes }], "preceded by the sizes");
  say(server, go("vol", [NBD_INFO_BLOCK_SIZE]));
  server.opened(strict);
  t.equal(server.negotiated?.blockSizeNegotiated, true);
  t.equal(negotiate([], [], []).blockSizeNegotiated, false);
  const old = haggling({ directory: directoryOf(strict) });
  say(old, option(NBD_OPT_EXPORT_NAME, text("vol")));
  t.equal(old.state, "dead");
});

t.test("O21: STRUCTURED_REPLY takes no data and switches the replies", async (t) => {
  const server = haggling();
  t.same(typesOf(ask(server, option(NBD_OPT_STRUCTURED_REPLY, text("x")))), ["NBD_REP_ERR_INVALID"]);
  say(server, go());
  server.opened(VOL);
  t.equal(server.negotiated?.mode, ReplyMode.Simple, "the refused option changed nothing");
  t.equal(negotiate([NBD_OPT_STRUCTURED_REPLY]).mode, ReplyMode.Structured);
});

t.test("O22: LIST_META_CONTEXT", async (t) => {
  const server = structuredServer();
  const list = (queries: readonly string[]): Answer[] =>
    ask(server, option(NBD_OPT_LIST_META_CONTEXT, contextQuery("vol", queries)));
  t.same(namesOf(list([])), VOL.contexts, "no query: all of them");
  t.same(namesOf(list(["base:"])), ["base:allocation"], "the wildcard of base:");
  t.same(namesOf(list(["lamina:"])), ["lamina:snapshot/a", "lamina:snapshot/b"]);
  t.same(namesOf(list(["base:allocation", "base:", "base:allocation"])), ["base:allocation"], "each once");
  t.same(namesOf(list(["qemu:dirty-bitmap:x", "base:nosuch", "nocolon", ":leaf"])), [], "others are ignored");
  t.equal(list(["qemu:x"]).at(-1)?.type, "NBD_REP_ACK");
  for (const answer of list([])) {
    if (answer.type === "NBD_REP_META_CONTEXT") t.equal(parseContextReply(answer.data)?.id, 0);
  }
  const unknown = option(NBD_OPT_LIST_META_CONTEXT, contextQuery("nosuch", []));
  t.same(typesOf(ask(server, unknown)), ["NBD_REP_ERR_UNKNOWN"]);
});

t.test("O22: wrong lengths in LIST_ and SET_META_CONTEXT are ERR_INVALID", async (t) => {
  const bad: Readonly<Record<string, Uint8Array>> = {
    empty: new Uint8Array(0),
    "too short": new Uint8Array(7),
    "name length of 2^32 - 1": concat(u32(0xffffffff), text("vol"), u32(0)),
    "name length above data": concat(u32(4), text("vol"), u32(0)),
    "count without queries": concat(u32(3), text("vol"), u32(1)),
    "count of 2^32 - 1": concat(u32(3), text("vol"), u32(0xffffffff), u32(0), u32(0)),
    "query length above data": concat(u32(3), text("vol"), u32(1), u32(6), text("base:")),
    "query length of 2^32 - 1": concat(u32(3), text("vol"), u32(1), u32(0xffffffff), text("base:")),
    "bytes behind": concat(u32(3), text("vol"), u32(1), u32(5), text("base:x")),
    "an overlong query": concat(u32(3), text("vol"), u32(1), u32(4097), text("b".repeat(4097))),
    "NUL in a query": concat(u32(3), text("vol"), u32(1), u32(5), text("ba\0e:")),
  };
  for (const number of [NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT]) {
    const server = structuredServer();
    for (const [what, data] of Object.entries(bad)) {
      t.same(typesOf(ask(server, option(number, data))), ["NBD_REP_ERR_INVALID"], what);
    }
  }
});

t.test("O23: SET_META_CONTEXT selects, with unique ids", async (t) => {
  const selected = negotiate(
    [NBD_OPT_STRUCTURED_REPLY],
    [
      "lamina:snapshot/b",
      "base:allocation",
      "base:allocation",
      "base:",
      "lamina:",
      "base:nosuch",
      "x-other:leaf",
    ],
  ).contexts;
  t.same(
    selected.map(({ name }) => name),
    ["lamina:snapshot/b", "base:allocation"],
  );
  t.equal(new Set(selected.map(({ id }) => id)).size, 2);
});

t.test("O23: every SET_META_CONTEXT replaces the selection, also one that fails", async (t) => {
  const after = (data: Uint8Array): number | undefined => {
    const server = structuredServer();
    say(server, option(NBD_OPT_SET_META_CONTEXT, contextQuery("vol", ["base:allocation"])));
    say(server, option(NBD_OPT_SET_META_CONTEXT, data));
    say(server, go());
    server.opened(VOL);
    return server.negotiated?.contexts.length;
  };
  t.equal(after(contextQuery("vol", ["base:allocation"])), 1);
  t.equal(after(contextQuery("vol", [])), 0, "no query selects nothing");
  t.equal(after(new Uint8Array(3)), 0, "malformed");
  t.equal(after(contextQuery("nosuch", ["base:allocation"])), 0, "unknown export");
  t.equal(after(new Uint8Array(100_000)), 0, "too big");
});

t.test("O23: contexts need structured replies, and there is a bound on them", async (t) => {
  const simple = haggling();
  const data = contextQuery("vol", ["base:allocation"]);
  t.same(typesOf(ask(simple, option(NBD_OPT_SET_META_CONTEXT, data))), ["NBD_REP_ERR_INVALID"]);
  t.same(typesOf(ask(simple, option(NBD_OPT_LIST_META_CONTEXT, data))), ["NBD_REP_ERR_INVALID"]);
  const many = { ...VOL, contexts: Array.from({ length: 40 }, (_, i) => `lamina:${i}`) };
  const server = structuredServer({ directory: directoryOf(many) });
  const all = option(NBD_OPT_SET_META_CONTEXT, contextQuery("vol", many.contexts));
  t.same(typesOf(ask(server, all)), ["NBD_REP_ERR_TOO_BIG"]);
});

t.test("O23: a namespace may have queries of its own", async (t) => {
  const asked: unknown[] = [];
  const directory = {
    ...directoryOf(VOL),
    matchContexts: (_info: unknown, query: unknown): readonly string[] => {
      asked.push(query);
      return ["lamina:since/7"];
    },
  };
  const server = structuredServer({ directory });
  const data = contextQuery("vol", ["base:allocation", "lamina:since/last"]);
  t.same(namesOf(ask(server, option(NBD_OPT_SET_META_CONTEXT, data))), ["base:allocation", "lamina:since/7"]);
  t.same(asked, [{ namespace: "lamina", leaf: "since/last", listing: false }], "base: is not asked about");
});

t.test("O24: contexts are valid for the export name that they were selected for", async (t) => {
  const server = structuredServer();
  say(server, option(NBD_OPT_SET_META_CONTEXT, contextQuery("vol", ["base:allocation"])));
  say(server, go("other"));
  server.opened(OTHER);
  t.same(server.negotiated?.contexts, []);
  t.equal(negotiate([NBD_OPT_STRUCTURED_REPLY], ["base:allocation"]).contexts.length, 1);
});

t.test("O25: EXTENDED_HEADERS that is not offered is an unknown option", async (t) => {
  const server = haggling({ extendedHeaders: false });
  t.same(typesOf(ask(server, option(NBD_OPT_EXTENDED_HEADERS))), ["NBD_REP_ERR_UNSUP"]);
  t.same(typesOf(ask(server, option(NBD_OPT_EXTENDED_HEADERS, text("x")))), ["NBD_REP_ERR_UNSUP"]);
});

t.test("EXTENDED_HEADERS takes precedence, needs GO and takes no data", async (t) => {
  const server = haggling();
  t.same(typesOf(ask(server, option(NBD_OPT_EXTENDED_HEADERS, text("x")))), ["NBD_REP_ERR_INVALID"]);
  t.same(typesOf(ask(server, option(NBD_OPT_STRUCTURED_REPLY))), ["NBD_REP_ACK"]);
  t.same(typesOf(ask(server, option(NBD_OPT_EXTENDED_HEADERS))), ["NBD_REP_ACK"], "also after structured");
  t.same(typesOf(ask(server, option(NBD_OPT_STRUCTURED_REPLY))), ["NBD_REP_ERR_EXT_HEADER_REQD"]);
  say(server, option(NBD_OPT_EXPORT_NAME, text("vol")));
  t.equal(server.state, "dead");
  t.equal(negotiate([NBD_OPT_EXTENDED_HEADERS]).mode, ReplyMode.Extended);
});

t.test("X14: flags that need something not negotiated are not advertised", async (t) => {
  t.equal(negotiate().flags & NBD_FLAG_SEND_DF, 0, "DF needs structured replies");
  t.not(negotiate([NBD_OPT_STRUCTURED_REPLY]).flags & NBD_FLAG_SEND_DF, 0);
  const contexts = ["base:allocation"];
  const payload = NBD_FLAG_BLOCK_STATUS_PAYLOAD;
  t.equal(negotiate([NBD_OPT_STRUCTURED_REPLY], contexts).flags & payload, 0);
  t.equal(negotiate([NBD_OPT_EXTENDED_HEADERS]).flags & payload, 0, "it needs a context too");
  t.not(negotiate([NBD_OPT_EXTENDED_HEADERS], contexts).flags & payload, 0);
  const bare = negotiate([], [], [], { ...VOL, flags: NBD_FLAG_SEND_FAST_ZERO | 0x200 });
  t.equal(bare.flags, 1, "HAS_FLAGS always; FAST_ZERO needs WRITE_ZEROES; RESIZE never");
});

t.test("Z1, Z2: sizes that clients choke on are never advertised", async (t) => {
  const open = (change: object): void => {
    const server = haggling();
    say(server, go());
    server.opened({ ...VOL, ...change });
  };
  const sizes = (minimum: number, preferred: number, maximumPayload: number): object => ({
    blockSizes: { minimum, preferred, maximumPayload },
  });
  for (const change of [
    sizes(3, 4096, 1 << 20),
    sizes(0, 4096, 1 << 20),
    sizes(131072, 131072, 1 << 20),
    sizes(512, 256, 1 << 20),
    sizes(8192, 4096, 1 << 20),
    sizes(512, 5000, 1 << 20),
    sizes(512, 1 << 20, 1 << 19),
    sizes(512, 4096, (1 << 20) + 1),
    sizes(512, 4096, 2 ** 32),
    { size: 1000 },
    { size: 2 ** 53 },
    { size: -512 },
    { size: 0.5 },
    { description: "x".repeat(5000) },
    { name: "a\0b" },
  ]) {
    t.throws(() => open(change), NbdUsageError, JSON.stringify(change).slice(0, 60));
  }
  for (const change of [sizes(1, 512, 65536), sizes(65536, 65536, 0xffffffff), { size: 0 }]) {
    t.doesNotThrow(() => open(change));
  }
});

t.test("exports that need TLS do not exist without it", async (t) => {
  const server = haggling();
  t.same(typesOf(ask(server, go(SECRET.name))), ["NBD_REP_ERR_UNKNOWN"]);
});

t.test("the owner's calls out of turn are mistakes, not states", async (t) => {
  const server = haggling();
  t.throws(() => server.opened(VOL), NbdUsageError);
  t.throws(() => server.refused(NBD_REP_ERR_UNKNOWN, ""), NbdUsageError);
  t.throws(() => server.tlsEstablished(), NbdUsageError);
  server.kill("the deadline has passed");
  server.kill("again");
  t.equal(server.state, "dead");
  t.equal(server.reason, "the deadline has passed");
  t.equal(server.feed(go()), 0);
});
