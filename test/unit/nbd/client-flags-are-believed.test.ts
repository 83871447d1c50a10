// Greeting and client flags: rows H1–H8 of the conformance list.
import {
  GREETING_BYTES,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_LIST,
  NBD_OPT_STARTTLS,
} from "nbd-protocol-ts";
import t from "tap";
import { ask, clientFlags, haggling, option, say, serverOf, text, typesOf, VOL } from "./helpers.js";

t.test("H1: the greeting is NBDMAGIC, IHAVEOPT and 16 bits of flags", async (t) => {
  const greeting = serverOf().takeOutput();
  t.equal(greeting.length, GREETING_BYTES);
  t.equal(Buffer.from(greeting.subarray(0, 16)).toString("latin1"), "NBDMAGICIHAVEOPT");
});

t.test("H2: FIXED_NEWSTYLE is set, and no flag but bits 0 and 1", async (t) => {
  const greeting = serverOf().takeOutput();
  t.equal(Buffer.from(greeting).readUInt16BE(16), 3);
});

t.test("H3: an unknown client flag ends the connection", async (t) => {
  for (let bit = 2; bit < 32; bit++) {
    const server = serverOf();
    server.feed(clientFlags((1 << bit) >>> 0));
    t.equal(server.state, "dead", `bit ${bit}`);
    t.match(server.reason, /unknown flags/);
  }
  for (const flags of [0, 1, 2, 3]) {
    const server = serverOf();
    server.feed(clientFlags(flags));
    t.equal(server.state, "haggling", `flags ${flags}`);
  }
});

t.test("H4: EXPORT_NAME is answered with 124 zero bytes unless the client refused them", async (t) => {
  for (const [flags, length] of [
    [1, 134],
    [3, 10],
    [0, 134],
    [2, 10],
  ] as const) {
    const server = haggling({}, flags);
    say(server, option(NBD_OPT_EXPORT_NAME, text("vol")));
    t.equal(server.state, "opening");
    server.opened(VOL);
    const answer = server.takeOutput();
    t.equal(answer.length, length, `client flags ${flags}`);
    t.equal(Buffer.from(answer).readBigUInt64BE(0), BigInt(VOL.size));
    t.ok(
      answer.subarray(10).every((byte) => byte === 0),
      "only zeroes",
    );
    t.equal(server.state, "transmission");
  }
});

t.test(
  "H5: a client without fixed newstyle gets ERR_INVALID for all but EXPORT_NAME and ABORT",
  async (t) => {
    const server = haggling({}, 2);
    t.same(typesOf(ask(server, option(NBD_OPT_LIST))), ["NBD_REP_ERR_INVALID"]);
    t.same(typesOf(ask(server, option(99, text("data")))), ["NBD_REP_ERR_INVALID"]);
    t.same(typesOf(ask(server, option(NBD_OPT_ABORT))), ["NBD_REP_ACK"]);
    t.equal(server.state, "closed");
  },
);

t.test("H7: oldstyle is not offered, and nothing more is said before the client flags", async (t) => {
  const server = serverOf();
  const greeting = server.takeOutput();
  t.not(Buffer.from(greeting.subarray(8, 16)).toString("hex"), "00420281861253", "no oldstyle magic");
  t.equal(server.outputLength, 0);
  server.feed(clientFlags(3).subarray(0, 3));
  t.equal(server.state, "greeting");
  t.equal(server.outputLength, 0);
});

t.test("H8: a client without fixed newstyle is served in NOTLS mode", async (t) => {
  const selective = haggling({ tlsMode: "selective" }, 2);
  t.same(typesOf(ask(selective, option(NBD_OPT_STARTTLS))), ["NBD_REP_ERR_POLICY"]);
  t.equal(selective.state, "haggling");
  const forced = haggling({ tlsMode: "forced" }, 2);
  t.same(typesOf(ask(forced, option(NBD_OPT_LIST))), ["NBD_REP_ERR_INVALID"], "never ERR_TLS_REQD");
  say(forced, option(NBD_OPT_EXPORT_NAME, text("vol")));
  t.equal(forced.state, "dead", "but an export that needs TLS is not served");
});
