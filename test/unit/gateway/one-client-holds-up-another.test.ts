/** A client that does not read its replies, or asks without end, costs the others nothing. */
import { encodeRequest, NBD_CMD_READ, NBD_REQUEST_BYTES } from "nbd-protocol-ts";
import t from "tap";
import { MIB, REQUESTS_PER_CONNECTION_MAX } from "../../../lib/core/limits.js";
import { HOME_BYTES, UNSENT_BYTES_MAX } from "../../../lib/gateway/limits.js";
import { CLEAN, MODES, pattern, World } from "./support/world.js";

for (const { name, options } of MODES) {
  void t.test(`${name}: slow readers hold no more than their bound, and others are served`, (t) => {
    const world = new World({ poolBytes: 64 * MIB, volumeBytes: 32 * MIB });
    world.volume.present.fill(1);
    const slow = Array.from({ length: 5 }, () => world.attach(options));
    for (const client of slow) {
      client.stream.clientPause(true);
      for (let i = 0; i < 64; i++) client.read(0, 32 * MIB);
    }
    world.loop.advance(30_000);
    const { poolBytesHeld, poolBytesLimit } = world.server.stats();
    t.ok(poolBytesHeld > 4 * MIB, `they hold ${poolBytesHeld} bytes`);
    t.ok(poolBytesHeld < poolBytesLimit, "and leave some");
    for (const connection of world.server.connections) {
      t.ok(connection.heldBytes <= UNSENT_BYTES_MAX + MIB, `${connection.heldBytes}`);
    }
    const quick = world.attach(options);
    const written = quick.write(0, pattern(0, 2 * MIB));
    world.loop.settle();
    const read = quick.read(0, 2 * MIB);
    world.loop.settle();
    t.equal(written.errno, 0, "without any time passing");
    t.equal(read.errno, 0, "without any time passing");
    for (const client of slow) client.stream.clientReset();
    t.same(world.close(), CLEAN);
    t.end();
  });
}

void t.test("at the bound of requests in flight the socket is not read", (t) => {
  const world = new World();
  const client = world.attach(MODES[0]!.options);
  world.volume.hold(true);
  const bytes = new Uint8Array(NBD_REQUEST_BYTES * 1000);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < 1000; i++) {
    encodeRequest(view, i * NBD_REQUEST_BYTES, false, 0, NBD_CMD_READ, 1, i, 0, 512);
  }
  client.stream.clientListen(() => {});
  client.send(bytes);
  world.loop.settle();
  t.equal(world.volume.inFlight, REQUESTS_PER_CONNECTION_MAX);
  t.notOk(client.stream.wantsBytes);
  t.equal(world.server.stats().requestsInFlight, REQUESTS_PER_CONNECTION_MAX);
  t.ok(world.server.counters.stalledForRequests > 0);
  world.volume.hold(false);
  world.loop.settle();
  t.equal(world.volume.submitted, 1000, "and goes on when there is room again");
  t.equal(world.server.stats().requestsInFlight, 0);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("an idle connection holds its home and nothing else", (t) => {
  const world = new World({ poolBytes: 16 * MIB });
  const before = world.loop.pool.freeBytes;
  const client = world.attach();
  for (let i = 0; i < 20; i++) client.write(i * 131_072, pattern(i, 131_072));
  world.loop.settle();
  const busy = before - world.loop.pool.freeBytes;
  for (let i = 0; i < 600; i++) {
    client.read(0, 512);
    world.loop.settle();
  }
  t.ok(busy > HOME_BYTES, "it had a larger buffer while it was used");
  t.equal(before - world.loop.pool.freeBytes, HOME_BYTES);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("answers of one batch go out in one send", (t) => {
  const world = new World();
  const client = world.attach(MODES[1]!.options);
  world.volume.present.fill(1);
  world.volume.hold(true);
  for (let i = 0; i < 64; i++) client.read(i * 4096, 4096);
  world.loop.settle();
  const before = client.stream.sends;
  world.volume.hold(false);
  client.stream.clientPause(true);
  world.loop.settle();
  client.stream.clientPause(false);
  world.loop.settle();
  t.ok(client.stream.sends - before <= 3, `${client.stream.sends - before} sends for 64 replies`);
  t.same(world.close(), CLEAN);
  t.end();
});
