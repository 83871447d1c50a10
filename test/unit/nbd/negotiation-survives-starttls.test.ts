// TLS in the handshake: rows T1–T8, CVE-2021-3716 and plaintext injection.
import {
  encodeInfoRequest,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  parseServerReply,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import {
  ask,
  concat,
  contextQuery,
  directoryOf,
  go,
  haggling,
  option,
  SECRET,
  say,
  text,
  typesOf,
  VOL,
} from "./helpers.js";

t.test("T2: NOTLS answers STARTTLS with ERR_POLICY and never says ERR_TLS_REQD", async (t) => {
  const server = haggling();
  t.same(typesOf(ask(server, option(NBD_OPT_STARTTLS))), ["NBD_REP_ERR_POLICY"]);
  for (const number of [3, 5, 6, 8, 9, 10, 11, 12]) {
    for (const type of typesOf(ask(server, option(number, text("secret"))))) {
      t.not(type, "NBD_REP_ERR_TLS_REQD");
    }
  }
  t.same(typesOf(ask(server, go("secret"))), ["NBD_REP_ERR_UNKNOWN"]);
});

t.test("T3: FORCEDTLS answers everything but STARTTLS and ABORT with ERR_TLS_REQD", async (t) => {
  const server = haggling({ tlsMode: "forced" });
  for (const number of [0, 3, 4, 6, 7, 8, 9, 10, 11, 12, 0xffffffff]) {
    t.same(typesOf(ask(server, option(number))), ["NBD_REP_ERR_TLS_REQD"], `option ${number}`);
    const withData = option(number, new Uint8Array(20_000));
    t.same(typesOf(ask(server, withData)), ["NBD_REP_ERR_TLS_REQD"], `option ${number} with data`);
  }
  t.same(typesOf(ask(server, go("vol"))), ["NBD_REP_ERR_TLS_REQD"], "no info about exports");
  t.same(typesOf(ask(server, option(NBD_OPT_ABORT))), ["NBD_REP_ACK"]);
  const old = haggling({ tlsMode: "forced" });
  t.equal(say(old, option(NBD_OPT_EXPORT_NAME, text("vol"))).length, 0);
  t.equal(old.state, "dead", "EXPORT_NAME cannot be answered with an error");
});

t.test("T3: a proxy that strips STARTTLS gets no plaintext session from a FORCEDTLS server", async (t) => {
  const server = haggling({ tlsMode: "forced" });
  say(server, concat(option(NBD_OPT_STRUCTURED_REPLY), go("vol"), go("")));
  t.equal(server.state, "haggling");
  t.equal(server.opening, null);
});

t.test("T4: STARTTLS is acknowledged, and all goes on over TLS", async (t) => {
  for (const tlsMode of ["forced", "selective"] as const) {
    const server = haggling({ tlsMode });
    t.same(typesOf(ask(server, option(NBD_OPT_STARTTLS))), ["NBD_REP_ACK"]);
    t.equal(server.state, "starttls");
    server.tlsEstablished();
    t.equal(server.state, "haggling");
    say(server, go("secret"));
    server.opened(SECRET);
    t.equal(server.negotiated?.tls, true);
  }
});

t.test("T5: STARTTLS with data, or twice, is ERR_INVALID", async (t) => {
  const server = haggling({ tlsMode: "selective" });
  t.same(typesOf(ask(server, option(NBD_OPT_STARTTLS, text("x")))), ["NBD_REP_ERR_INVALID"]);
  t.equal(server.state, "haggling");
  say(server, option(NBD_OPT_STARTTLS));
  server.tlsEstablished();
  t.same(typesOf(ask(server, option(NBD_OPT_STARTTLS))), ["NBD_REP_ERR_INVALID"]);
  const direct = haggling({ tlsMode: "forced", tlsFromStart: true });
  t.same(typesOf(ask(direct, option(NBD_OPT_STARTTLS))), ["NBD_REP_ERR_INVALID"]);
});

t.test("T6, CVE-2021-3716: nothing negotiated in plaintext survives STARTTLS", async (t) => {
  for (const number of [NBD_OPT_STRUCTURED_REPLY, NBD_OPT_EXTENDED_HEADERS]) {
    const server = haggling({ tlsMode: "selective" });
    say(server, option(number));
    say(server, option(NBD_OPT_SET_META_CONTEXT, contextQuery("vol", ["base:allocation"])));
    say(server, option(NBD_OPT_STARTTLS));
    server.tlsEstablished();
    const set = option(NBD_OPT_SET_META_CONTEXT, contextQuery("vol", ["base:allocation"]));
    t.same(typesOf(ask(server, set)), ["NBD_REP_ERR_INVALID"], "structured replies are gone");
    say(server, go("vol"));
    server.opened(VOL);
    t.equal(server.negotiated?.mode, ReplyMode.Simple);
    t.same(server.negotiated?.contexts, []);
  }
});

t.test("T7: plaintext behind STARTTLS is never interpreted, however it arrives", async (t) => {
  for (const injected of [option(NBD_OPT_STRUCTURED_REPLY), go("vol"), Uint8Array.of(0)]) {
    const whole = haggling({ tlsMode: "forced" });
    const bytes = concat(option(NBD_OPT_STARTTLS), injected);
    t.equal(whole.feed(bytes), 16, "no byte of it is taken");
    t.equal(whole.state, "dead");
    t.match(whole.reason, /plaintext/);
    const later = haggling({ tlsMode: "forced" });
    later.feed(option(NBD_OPT_STARTTLS));
    t.equal(later.state, "starttls");
    later.feed(injected);
    t.equal(later.state, "dead", "nor later");
    t.throws(() => later.tlsEstablished());
  }
});

t.test("T8: SELECTIVETLS demands TLS for TLS-only exports and hides whether others exist", async (t) => {
  const server = haggling({ tlsMode: "selective" });
  for (const number of [NBD_OPT_INFO, NBD_OPT_GO]) {
    for (const name of ["secret", "nosuch"]) {
      const answers = ask(server, option(number, encodeInfoRequest(name, [1, 2, 3])));
      t.same(typesOf(answers), ["NBD_REP_ERR_TLS_REQD"], `${name}: no infos`);
    }
  }
  const texts = ["secret", "nosucy"].map((name) =>
    Buffer.from(ask(server, go(name))[0]!.data)
      .toString()
      .replace(name, "NAME"),
  );
  t.equal(texts[0], texts[1], "the answers differ in nothing but the name asked for");
  const open = haggling({ tlsMode: "selective", hideUnknown: false });
  t.same(typesOf(ask(open, go("nosuch"))), ["NBD_REP_ERR_UNKNOWN"]);
  t.same(typesOf(ask(open, go("secret"))), ["NBD_REP_ERR_TLS_REQD"]);
});

t.test(
  "T8: SELECTIVETLS says ERR_TLS_REQD to INFO and GO only, and serves the rest in plaintext",
  async (t) => {
    const server = haggling({ tlsMode: "selective" });
    say(server, option(NBD_OPT_STRUCTURED_REPLY));
    for (const number of [NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT]) {
      const answers = ask(server, option(number, contextQuery("secret", [])));
      t.same(typesOf(answers), ["NBD_REP_ERR_UNKNOWN"]);
    }
    const listed = ask(server, option(NBD_OPT_LIST)).map(({ data }) => parseServerReply(data)?.name);
    t.notOk(listed.includes("secret"), "TLS-only exports are not listed");
    say(server, go("vol"));
    t.equal(server.state, "opening");
    const old = haggling({ tlsMode: "selective" });
    say(old, option(NBD_OPT_EXPORT_NAME, text("secret")));
    t.equal(old.state, "dead");
  },
);

t.test("T8: over TLS nobody is told ERR_TLS_REQD any more", async (t) => {
  for (const tlsMode of ["forced", "selective"] as const) {
    const server = haggling({ tlsMode, directory: directoryOf(VOL, SECRET) });
    say(server, option(NBD_OPT_STARTTLS));
    server.tlsEstablished();
    t.same(typesOf(ask(server, go("nosuch"))), ["NBD_REP_ERR_UNKNOWN"]);
    t.equal(ask(server, option(NBD_OPT_LIST)).length, 3, "all exports are listed");
    t.same(typesOf(ask(server, option(99))), ["NBD_REP_ERR_UNSUP"]);
  }
});
