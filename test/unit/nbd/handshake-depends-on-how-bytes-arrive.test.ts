// Both handshakes, fed whole, cut in two at every offset, and byte by byte: the same answers, the same end.
import fc from "fast-check";
import {
  ClientHandshake,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ERR_UNKNOWN,
  type ServerHandshake,
} from "nbd-protocol-ts";
import t from "tap";
import { clientFlags, concat, contextQuery, go, option, serverOf, text, u16, u32, VOL } from "./helpers.js";

/** Feeds `bytes` in pieces that end at `cuts`, answering what the machine asks; returns all it did. */
function transcript(server: ServerHandshake, bytes: Uint8Array, cuts: readonly number[]): string {
  const said: Uint8Array[] = [server.takeOutput()];
  let at = 0;
  let refusals = 1;
  for (const end of [...cuts, bytes.length]) {
    for (;;) {
      at += server.feed(bytes, at, Math.max(end, at));
      const opening = server.state === "opening";
      // The first opening fails, so that the way back is walked too.
      if (opening && refusals-- > 0) server.refused(NBD_REP_ERR_UNKNOWN, "not now");
      else if (opening) server.opened(VOL);
      const output = server.takeOutput();
      said.push(output);
      if (output.length === 0 && !opening) break;
    }
  }
  return `${Buffer.from(concat(...said)).toString("hex")} ${server.state} ${server.reason} ${at}`;
}

const query = contextQuery("vol", ["base:allocation", "lamina:", "nosuch:x"]);
const STREAMS: Readonly<Record<string, Uint8Array>> = {
  everything: concat(
    clientFlags(3),
    option(NBD_OPT_LIST),
    option(77, text("unknown")),
    option(NBD_OPT_LIST, text("wrong")),
    option(NBD_OPT_STRUCTURED_REPLY),
    option(NBD_OPT_LIST_META_CONTEXT, contextQuery("vol", [])),
    option(NBD_OPT_SET_META_CONTEXT, query),
    go("nosuch", [1, 2, 3]),
    option(7, concat(u32(0xffffffff), u16(0))),
    go("vol", [3]),
    go("vol", [1, 2, 3]),
    text("requests follow"),
  ),
  "old client": concat(clientFlags(0), option(NBD_OPT_LIST), option(NBD_OPT_EXPORT_NAME, text("vol"))),
  extended: concat(clientFlags(3), option(NBD_OPT_EXTENDED_HEADERS), go(""), go("")),
  "starttls injection": concat(clientFlags(3), option(NBD_OPT_STARTTLS), go("vol")),
  abort: concat(clientFlags(1), option(NBD_OPT_ABORT, text("bye")), text("rest")),
  "bad flags": concat(clientFlags(4), go("vol")),
  "bad magic": concat(clientFlags(3), text("GET / HTTP/1.0\r\n\r\n")),
  "too long": concat(clientFlags(3), option(5, new Uint8Array(0), 0xffffffff), go("vol")),
};

t.test("the server's handshake does not depend on how bytes arrive", async (t) => {
  for (const [name, bytes] of Object.entries(STREAMS)) {
    const tlsMode = name === "starttls injection" ? "selective" : "notls";
    const whole = transcript(serverOf({ tlsMode }), bytes, []);
    for (let cut = 0; cut <= bytes.length; cut++) {
      const parts = transcript(serverOf({ tlsMode }), bytes, [cut]);
      if (parts !== whole) t.equal(parts, whole, `${name}, cut at ${cut}`);
    }
    const each = Array.from({ length: bytes.length }, (_, i) => i);
    t.equal(transcript(serverOf({ tlsMode }), bytes, each), whole, name);
  }
});

t.test("property: any cuts", async (t) => {
  const names = Object.keys(STREAMS);
  fc.assert(
    fc.property(
      fc.constantFrom(...names),
      fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 12 }),
      (name, cuts) => {
        const bytes = STREAMS[name]!;
        const sorted = cuts.filter((cut) => cut <= bytes.length).sort((a, b) => a - b);
        return transcript(serverOf(), bytes, sorted) === transcript(serverOf(), bytes, []);
      },
    ),
  );
  t.pass("100 ways of cutting");
});

t.test("the client's handshake does not depend on how bytes arrive", async (t) => {
  const scripts = [
    {},
    { exportName: "nosuch" },
    { goal: "list" as const },
    { goal: "info" as const, exportName: "vol", contexts: ["base:"] },
    { oldExportName: true, noZeroes: false },
    { extendedHeaders: false, contexts: ["base:allocation"] },
    { tls: "require" as const },
  ];
  for (const options of scripts) {
    const talk = (step: number): string => {
      const server = serverOf();
      const client = new ClientHandshake(options);
      const heard: Uint8Array[] = [];
      for (let moved = true; moved; ) {
        moved = false;
        const down = server.takeOutput();
        for (let at = 0; at < down.length; at += step)
          client.feed(down, at, Math.min(at + step, down.length));
        const up = client.takeOutput();
        heard.push(up);
        server.feed(up);
        if (server.state === "opening") server.opened(VOL);
        moved = down.length > 0 || up.length > 0;
      }
      const { state, reason, negotiated, exports, canonicalName } = client;
      const end = JSON.stringify({ state, reason, negotiated, exports, canonicalName });
      return `${Buffer.from(concat(...heard)).toString("hex")} ${end}`;
    };
    const whole = talk(1 << 20);
    for (const step of [1, 2, 3, 7, 19, 20, 21]) t.equal(talk(step), whole, JSON.stringify(options));
  }
});
