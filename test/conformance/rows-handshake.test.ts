// Rows H1–H8 of the conformance list against the running server: greeting and client flags.
import {
  EXPORT_NAME_REPLY_BYTES,
  EXPORT_NAME_ZEROES_BYTES,
  NBD_CMD_READ,
  NBD_FLAG_C_FIXED_NEWSTYLE,
  NBD_FLAG_C_NO_ZEROES,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_LIST,
  NBD_OPT_STARTTLS,
  NBD_SIMPLE_REPLY_MAGIC,
} from "nbd-protocol-ts";
import t from "tap";
import { requires } from "../interop/support/requirements.js";
import { option, request, u32 } from "./encode.js";
import { Haggling, openSession } from "./raw-client.js";
import { RawSocket } from "./raw-socket.js";
import { rowsOf, serveLive, VOL, VOL_BYTES } from "./support/live.js";
import {
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINTVL,
  TCP_NODELAY,
  TCP_USER_TIMEOUT,
  tcpOptionOf,
} from "./support/socket-options.js";

const live = await serveLive(t);
const row = rowsOf(live);

row("H1: the server speaks first: NBDMAGIC, IHAVEOPT, 16 bits of flags", async (t, place) => {
  const client = await Haggling.begin(place, null);
  t.equal(client.greeting.toString("latin1", 0, 16), "NBDMAGICIHAVEOPT");
  t.equal(client.socket.available, 0, "and no more before the client flags");
  client.socket.destroy();
});

row("H2: the handshake flags are FIXED_NEWSTYLE and NO_ZEROES", async (t, place) => {
  const client = await Haggling.begin(place, null);
  t.equal(client.flags, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  client.socket.destroy();
});

row("H3: each unknown client flag ends the connection", async (t, place) => {
  for (let bit = 2; bit < 32; bit++) {
    const client = await Haggling.begin(place, (1 << bit) | 3);
    t.equal((await client.socket.rest()).length, 0, `bit ${bit}`);
  }
});

row("H4: EXPORT_NAME is answered with 124 zero bytes unless the client refused them", async (t, place) => {
  for (const flags of [0, 1, 2, 3]) {
    const client = await Haggling.begin(place, flags);
    // A request behind the option, so that one byte too many or too few shows.
    client.send(option(NBD_OPT_EXPORT_NAME, Buffer.from(VOL)), request(NBD_CMD_READ, { length: 512 }));
    const answer = await client.socket.exactly(EXPORT_NAME_REPLY_BYTES);
    t.equal(Number(answer.readBigUInt64BE(0)), VOL_BYTES, `size with client flags ${flags}`);
    if ((flags & NBD_FLAG_C_NO_ZEROES) === 0) {
      const zeroes = await client.socket.exactly(EXPORT_NAME_ZEROES_BYTES);
      t.ok(
        zeroes.every((byte) => byte === 0),
        "124 zero bytes",
      );
    }
    const reply = await client.socket.exactly(16 + 512);
    t.equal(reply.readUInt32BE(0), NBD_SIMPLE_REPLY_MAGIC, "then a simple reply");
    client.socket.destroy();
  }
});

row(
  "H5: a client without fixed newstyle gets errors for options, but an export by name",
  async (t, place) => {
    const client = await Haggling.begin(place, 0);
    t.equal(await client.outcome(NBD_OPT_LIST), "NBD_REP_ERR_INVALID");
    client.send(option(NBD_OPT_EXPORT_NAME, Buffer.from(VOL)));
    t.equal(Number((await client.socket.exactly(8)).readBigUInt64BE()), VOL_BYTES);
    client.socket.destroy();
  },
);

t.test(
  "H6: connections have TCP_NODELAY",
  requires({ root: true, paths: ["/usr/bin/python3"] }),
  async (t) => {
    const session = await openSession(live.tcp, VOL);
    const values = await tcpOptionOf(live.server.pid, live.server.port, TCP_NODELAY);
    t.ok(values.length > 0, "the server has an accepted connection");
    t.ok(
      values.every((value) => value !== 0),
      `TCP_NODELAY is ${values.join()}`,
    );
    session.destroy();
  },
);

t.test(
  "H6: a vanished peer is bounded by TCP_USER_TIMEOUT",
  requires({ root: true, paths: ["/usr/bin/python3"] }),
  async (t) => {
    const session = await openSession(live.tcp, VOL);
    const values = await tcpOptionOf(live.server.pid, live.server.port, TCP_USER_TIMEOUT);
    t.ok(values.length > 0, "the server has an accepted connection");
    t.ok(
      values.every((value) => value > 0),
      `TCP_USER_TIMEOUT is ${values.join()} ms`,
    );
    session.destroy();
  },
);

t.test(
  "H6: a peer that vanished while nothing was asked is found by probes within the same time",
  requires({ root: true, paths: ["/usr/bin/python3"] }),
  async (t) => {
    const session = await openSession(live.tcp, VOL);
    const { pid, port } = live.server;
    const [silence, idle, interval, count] = await Promise.all(
      [TCP_USER_TIMEOUT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT].map(async (option) => {
        const values = await tcpOptionOf(pid, port, option);
        t.equal(new Set(values).size, 1, `option ${option} is ${values.join()} on every connection`);
        return values[0]!;
      }),
    );
    t.ok(idle! > 0 && (idle! + interval! * count!) * 1000 <= silence!, `${idle} + ${count} × ${interval} s`);
    session.destroy();
  },
);

row("H7: oldstyle is not offered, and nothing is served before the client flags", async (t, place) => {
  const client = await Haggling.begin(place, null);
  client.send(request(NBD_CMD_READ, { length: 512 }));
  t.equal((await client.socket.rest()).length, 0, "a request in place of flags ends it");
  const silent = await RawSocket.connect(place);
  const greeting = await silent.exactly(18);
  t.equal(greeting.toString("latin1", 8, 16), "IHAVEOPT", "the newstyle magic, not the oldstyle one");
  silent.destroy();
});

row("H8: a client without fixed newstyle is served without TLS", async (t, place) => {
  const client = await Haggling.begin(place, 0);
  t.equal(await client.outcome(NBD_OPT_STARTTLS), "NBD_REP_ERR_POLICY");
  client.socket.destroy();
});

row("client flags may arrive byte by byte", async (t, place) => {
  const client = await Haggling.begin(place, null);
  for (const byte of u32(NBD_FLAG_C_FIXED_NEWSTYLE)) await client.socket.sent(Uint8Array.of(byte));
  t.equal(await client.outcome(NBD_OPT_LIST), "NBD_REP_ACK");
  client.socket.destroy();
});
