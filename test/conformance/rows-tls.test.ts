// Rows T1–T11 of the conformance list against running servers: one that forces TLS, one that allows it, one without.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { ConnectionOptions } from "node:tls";
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_READ,
  NBD_EINVAL,
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
  NBD_SIMPLE_REPLY_MAGIC,
  ReplyMode,
} from "nbd-protocol-ts";
import t from "tap";
import { requires } from "../interop/support/requirements.js";
import { scratchDirectory } from "../interop/support/scratch.js";
import { contextData, go, infoData, option, request } from "./encode.js";
import { Haggling, openSession } from "./raw-client.js";
import type { Place } from "./raw-socket.js";
import { makeCertificates } from "./support/certificates.js";
import { BLOCK, pattern, serveLive, VOL } from "./support/live.js";
import { TLS_ALERT, Wiretap } from "./support/wiretap.js";

const needs = requires({ lamina: true, commands: ["openssl"] });
const directory = scratchDirectory();
if (needs.skip === undefined) await makeCertificates(directory);
const tls = ["--tls-dir", directory];

/** What alice shows. */
function credentials(more: ConnectionOptions = {}): ConnectionOptions {
  const file = (name: string): Buffer => readFileSync(join(directory, name));
  return {
    ca: file("ca-cert.pem"),
    cert: file("client-cert.pem"),
    key: file("client-key.pem"),
    servername: "localhost",
    ...more,
  };
}

async function secured(place: Place, more: ConnectionOptions = {}): Promise<[Haggling, string]> {
  const client = await Haggling.begin(place);
  await client.ask(NBD_OPT_STARTTLS);
  return [client, await client.socket.startTls(credentials(more))];
}

async function fails(what: Promise<unknown>): Promise<boolean> {
  return what.then(
    () => false,
    () => true,
  );
}

t.test("T2: without TLS, STARTTLS is ERR_POLICY and ERR_TLS_REQD is never said", needs, async (t) => {
  const live = await serveLive(t);
  const client = await Haggling.begin(live.tcp);
  t.equal(await client.outcome(NBD_OPT_STARTTLS), "NBD_REP_ERR_POLICY");
  for (const name of [VOL, "nothing"]) {
    for (const number of [NBD_OPT_INFO, NBD_OPT_GO]) {
      if (name === VOL && number === NBD_OPT_GO) continue;
      t.not(await client.outcome(number, infoData(name)), "NBD_REP_ERR_TLS_REQD");
    }
  }
  client.socket.destroy();
});

t.test("a server that forces TLS", needs, async (t) => {
  const live = await serveLive(t, { args: ["--tls", "require", ...tls] });

  for (const place of [live.tcp, live.unix]) {
    await t.test("T3, T10: in plaintext nothing but STARTTLS and ABORT is heard", async (t) => {
      const client = await Haggling.begin(place);
      const numbers = [
        NBD_OPT_LIST,
        NBD_OPT_INFO,
        NBD_OPT_GO,
        NBD_OPT_STRUCTURED_REPLY,
        NBD_OPT_EXTENDED_HEADERS,
      ];
      for (const number of [...numbers, NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT, 99]) {
        for (const data of [Buffer.alloc(0), infoData(VOL), contextData(VOL, [])]) {
          t.equal(await client.outcome(number, data), "NBD_REP_ERR_TLS_REQD", `option ${number}`);
        }
      }
      t.equal(await client.outcome(NBD_OPT_ABORT), "NBD_REP_ACK");
      await client.socket.rest();
      const old = await Haggling.begin(place);
      old.send(option(NBD_OPT_EXPORT_NAME, Buffer.from(VOL)));
      t.equal((await old.socket.rest()).length, 0, "EXPORT_NAME ends the connection");
    });

    await t.test("T4: STARTTLS is acknowledged, and everything goes on over TLS", async (t) => {
      const [client] = await secured(place);
      t.equal(await client.outcome(NBD_OPT_LIST), "NBD_REP_ACK");
      const session = await client.go(VOL, { mode: ReplyMode.Structured });
      const data = pattern(4, 300_000);
      await session.write(512, data);
      t.ok((await session.read(512, data.length)).equals(data));
      session.destroy();
    });

    await t.test("T4: a TLS handshake that fails ends the connection", async (t) => {
      const plain = await Haggling.begin(place);
      await plain.ask(NBD_OPT_STARTTLS);
      plain.send(option(NBD_OPT_LIST));
      t.notMatch((await plain.socket.rest()).toString("latin1"), VOL, "plaintext in place of a handshake");
      const stranger = secured(place, { cert: undefined, key: undefined }).then(([client]) =>
        client.outcome(NBD_OPT_LIST),
      );
      t.ok(await fails(stranger), "no certificate");
    });

    await t.test("T5: STARTTLS with data is ERR_INVALID; over TLS it is too", async (t) => {
      const client = await Haggling.begin(place);
      // In forced mode the demand for TLS is an answer to malformed options as well.
      t.match(await client.outcome(NBD_OPT_STARTTLS, Buffer.alloc(1)), /ERR_(INVALID|TLS_REQD)/);
      client.socket.destroy();
      const [over] = await secured(place);
      t.equal(await over.outcome(NBD_OPT_STARTTLS), "NBD_REP_ERR_INVALID");
      over.socket.destroy();
    });

    await t.test("T7: plaintext behind STARTTLS is never interpreted", async (t) => {
      const client = await Haggling.begin(place);
      client.send(
        option(NBD_OPT_STARTTLS),
        option(NBD_OPT_LIST),
        go(VOL),
        request(NBD_CMD_READ, { length: BLOCK }),
      );
      const answered = await client.socket.rest();
      t.ok(answered.length <= 20 + 7, `${answered.length} bytes: at most the ACK and an alert`);
      t.notMatch(answered.toString("latin1"), VOL);
    });

    await t.test("T9: TLS 1.2 and 1.3, nothing older", async (t) => {
      for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
        const [client, protocol] = await secured(place, { minVersion: version, maxVersion: version });
        t.equal(protocol, version);
        t.equal(await client.outcome(NBD_OPT_LIST), "NBD_REP_ACK");
        client.socket.destroy();
      }
      const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" } as const;
      t.ok(await fails(secured(place, old)), "TLS 1.1 is refused");
    });

    await t.test("T11: TLS is closed in order: the end is a close_notify, not a cut", async (t) => {
      // Node takes a cut for an end, so the bytes themselves are looked at: the last record must be an alert.
      const wire = await Wiretap.to(place);
      const [client] = await secured(wire.place, { minVersion: "TLSv1.2", maxVersion: "TLSv1.2" });
      const session = await client.go(VOL);
      await session.read(0, BLOCK);
      await session.leave();
      t.equal(wire.lastRecordType(), TLS_ALERT);
      wire.close();
    });
  }
});

t.test("a server that allows TLS", needs, async (t) => {
  const live = await serveLive(t, { args: ["--tls", "allow", ...tls] });
  await live.server.lamina("volume", "create", "secret", "--size", "1M");
  await live.server.lamina("volume", "set", "secret", "--allow", "cert:alice");

  await t.test("T1: the mode is the same all along a connection, and plaintext is served", async (t) => {
    const session = await openSession(live.tcp, VOL);
    t.equal((await session.read(0, BLOCK)).length, BLOCK);
    session.destroy();
    const [client] = await secured(live.tcp);
    const over = await client.go(VOL);
    t.equal((await over.read(0, BLOCK)).length, BLOCK);
    over.destroy();
  });

  await t.test("T6, CVE-2021-3716: what was negotiated in plaintext is forgotten", async (t) => {
    const client = await Haggling.begin(live.tcp);
    t.equal(await client.outcome(NBD_OPT_STRUCTURED_REPLY), "NBD_REP_ACK");
    t.equal(
      await client.outcome(NBD_OPT_SET_META_CONTEXT, contextData(VOL, ["base:allocation"])),
      "NBD_REP_ACK",
    );
    await client.ask(NBD_OPT_STARTTLS);
    await client.socket.startTls(credentials());
    await client.ask(NBD_OPT_GO, infoData(VOL));
    client.send(request(NBD_CMD_READ, { length: 1 }));
    t.equal((await client.socket.exactly(17)).readUInt32BE(0), NBD_SIMPLE_REPLY_MAGIC, "replies are simple");
    client.send(request(NBD_CMD_BLOCK_STATUS, { length: BLOCK }));
    const status = await client.socket.exactly(16);
    t.equal(status.readUInt32BE(0), NBD_SIMPLE_REPLY_MAGIC);
    t.equal(status.readUInt32BE(4), NBD_EINVAL, "no context is selected");
    client.socket.destroy();
  });

  await t.test(
    "T8: INFO and GO of a TLS-only export are ERR_TLS_REQD or hidden, no other option is",
    async (t) => {
      const client = await Haggling.begin(live.tcp);
      const list = await client.ask(NBD_OPT_LIST);
      t.equal(list.at(-1)!.type, "NBD_REP_ACK");
      t.notOk(
        list.some(({ data }) => data.includes("secret")),
        "not listed",
      );
      for (const number of [NBD_OPT_INFO, NBD_OPT_GO]) {
        t.match(await client.outcome(number, infoData("secret")), /ERR_(TLS_REQD|UNKNOWN)/);
      }
      t.equal(await client.outcome(NBD_OPT_STRUCTURED_REPLY), "NBD_REP_ACK");
      t.equal(
        await client.outcome(NBD_OPT_SET_META_CONTEXT, contextData("secret", [])),
        "NBD_REP_ERR_UNKNOWN",
      );
      client.socket.destroy();
      const [over] = await secured(live.tcp);
      t.equal(await over.outcome(NBD_OPT_INFO, infoData("secret")), "NBD_REP_ACK", "alice may over TLS");
      over.socket.destroy();
    },
  );
});
