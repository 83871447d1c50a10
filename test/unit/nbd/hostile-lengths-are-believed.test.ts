// Lengths that have broken other servers, in every length field of the handshake: CVE-2022-26495 (length
// 2^32 − 1), CVE-2022-26496 (draining a bad INFO), CVE-2017-15118 (long names), CVE-2017-15119 (4 GiB of
// option data), CVE-2020-10761 (error text for a long name).
import {
  encodeInfoRequest,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  OPTION_DATA_BYTES_MAX,
  OPTION_SKIP_BYTES_MAX,
  OUTPUT_BYTES_HIGH,
} from "nbd-protocol-ts";
import t from "tap";
import {
  ask,
  concat,
  go,
  haggling,
  option,
  say,
  structuredServer,
  text,
  typesOf,
  u16,
  u32,
} from "./helpers.js";

const HOSTILE = [0, 1, 4095, 4096, 4097, 0x7fffffff, 0x80000000, 0xfffffffa, 0xffffffff];
const OPTIONS = [...Array(13).keys(), 0xffffffff];

t.test("CVE-2022-26495: any length in an option header is bounded before it is believed", async (t) => {
  for (const number of OPTIONS) {
    for (const claimed of HOSTILE) {
      const server = structuredServer();
      server.feed(option(number, new Uint8Array(0), claimed));
      if (claimed > OPTION_SKIP_BYTES_MAX) t.equal(server.state, "dead", `${number}: ${claimed}`);
      else if (server.state === "haggling" && claimed > 0) {
        say(server, new Uint8Array(claimed));
        t.not(server.state, "greeting", `${number}: ${claimed} is consumed`);
      }
      t.ok(server.outputLength <= 2 * OUTPUT_BYTES_HIGH);
    }
  }
});

t.test("CVE-2017-15119: 4 GiB of option data end the connection at the header", async (t) => {
  const server = haggling();
  server.feed(option(99, new Uint8Array(0), 0xffffffff));
  t.equal(server.state, "dead");
  t.match(server.reason, /NBD_OPT_99 announces 4294967295 bytes/);
});

t.test("CVE-2022-26495: name lengths inside INFO, GO and the context options", async (t) => {
  const tails = [u16(0), u32(0)];
  for (const number of [NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT]) {
    const tail = number <= NBD_OPT_GO ? tails[0]! : tails[1]!;
    for (const real of [0, 3, 4096, 4097]) {
      const name = text("n".repeat(real));
      const length = 4 + real + tail.length;
      // Around what is really there: the name fits, or reaches into or past what follows it.
      for (const claimed of [
        ...HOSTILE,
        length - 8,
        length - 7,
        length - 6,
        length - 5,
        length - 4,
        length,
      ]) {
        if (claimed < 0) continue;
        const server = structuredServer();
        const types = typesOf(ask(server, option(number, concat(u32(claimed), name, tail))));
        const legal = claimed === real && real <= 4096;
        const want = legal && real > 0 ? "NBD_REP_ERR_UNKNOWN" : "NBD_REP_ERR_INVALID";
        const empty = legal && real === 0;
        if (!empty) t.same(types, [want], `${number}: name of ${real} claimed as ${claimed}`);
        if (server.state === "haggling") {
          t.equal(typesOf(ask(server, option(NBD_OPT_LIST))).at(-1), "NBD_REP_ACK", "in step");
        }
      }
    }
  }
});

t.test("CVE-2022-26496: up to 64 KiB behind a bad INFO are drained", async (t) => {
  for (const kib of [1, 4, 15, 16, 17, 64]) {
    const server = haggling();
    const data = concat(encodeInfoRequest("vol", []), new Uint8Array(kib * 1024));
    const types = typesOf(ask(server, concat(option(NBD_OPT_INFO, data), option(NBD_OPT_LIST))));
    t.match(types[0], data.length > OPTION_DATA_BYTES_MAX ? /TOO_BIG/ : /INVALID/, `${kib} KiB`);
    t.equal(types.at(-1), "NBD_REP_ACK", "a valid LIST follows on the same connection");
  }
});

t.test("CVE-2017-15118: long names, in every option that has one", async (t) => {
  for (const length of [256, 257, 3000, 4096, 4097, 65536]) {
    const name = "x".repeat(length);
    const server = haggling();
    const types = typesOf(ask(server, go(name)));
    const want = length <= 4096 ? "UNKNOWN" : length + 6 <= OPTION_DATA_BYTES_MAX ? "INVALID" : "TOO_BIG";
    t.same(types, [`NBD_REP_ERR_${want}`], `GO with ${length}`);
    const old = haggling();
    t.equal(say(old, option(NBD_OPT_EXPORT_NAME, text(name))).length, 0);
    t.equal(old.state, "dead", `EXPORT_NAME with ${length}`);
    t.ok(old.reason.length < 400);
  }
});

t.test("CVE-2020-10761: the error text for a 4096-byte name keeps its limit", async (t) => {
  const answer = ask(haggling(), go("y".repeat(4096)))[0]!;
  t.equal(answer.type, "NBD_REP_ERR_UNKNOWN");
  t.ok(answer.data.length <= 880);
});

t.test("a client that pipelines without reading is not served into memory", async (t) => {
  const server = haggling();
  const flood = concat(...Array.from({ length: 3000 }, () => option(NBD_OPT_LIST)));
  let at = 0;
  for (let i = 0; i < 100; i++) at += server.feed(flood, at);
  t.ok(at < flood.length, "input is refused while output waits");
  t.ok(server.outputLength < 2 * OUTPUT_BYTES_HIGH, `${server.outputLength} bytes wait`);
  say(server, flood.subarray(at));
  t.equal(server.state, "haggling", "and taken when it is read");
});

t.test("nor one whose every option is answered with an error text", async (t) => {
  const server = haggling();
  const flood = concat(...Array.from({ length: 3000 }, () => option(77)));
  const taken = server.feed(flood);
  t.ok(taken < flood.length, "input is refused while output waits");
  t.ok(server.outputLength < 2 * OUTPUT_BYTES_HIGH, `${server.outputLength} bytes wait`);
  t.equal(server.feed(flood, taken), 0, "until some is sent");
  const answers = ask(server, flood.subarray(taken));
  t.equal(answers.length, 3000, "and every option is answered once");
});
