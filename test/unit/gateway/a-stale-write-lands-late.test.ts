/**
 * The hazard of a client that reconnects and sends again what was not answered: its old copy must never be
 * executed after the new one (ydb-platform/nbs #7070).
 */
import { NBD_CMD_WRITE } from "nbd-protocol-ts";
import t from "tap";
import { ADMISSION_WAIT_MS } from "../../../lib/gateway/limits.js";
import { CLEAN, MODES, pattern, World } from "./support/world.js";

const KERNEL = MODES[0]!.options;

void t.test("unread writes of a peer that has gone are discarded before its next connection acts", (t) => {
  const world = new World();
  const old = world.attach(KERNEL, { tellsPeerGone: true });
  world.volume.hold(true);
  // As many requests as may be in flight, so that the write behind them stays in the socket.
  for (let i = 0; i < 256; i++) old.read(0, 4096);
  world.loop.settle();
  const [, stale] = old.encode(NBD_CMD_WRITE, 0, 0, 4096, pattern(0, 4096, 1));
  old.send(stale);
  world.loop.settle();
  t.ok(old.stream.unreadBytes > 0 || !old.stream.wantsBytes, "the write has not been executed");
  old.stream.clientEnd();

  const next = world.connect(KERNEL);
  world.loop.settle();
  t.equal(next.transmission, null, "the new connection waits until the old one's work is done");
  world.volume.hold(false);
  world.loop.settle();
  const fresh = next.write(0, pattern(0, 4096, 2));
  world.loop.settle();
  t.equal(fresh.errno, 0);
  t.ok(Buffer.from(world.volume.bytes.subarray(0, 4096)).equals(pattern(0, 4096, 2)));
  t.equal(world.volume.applied.length, 1, "the stale copy was never executed");
  t.equal(world.server.counters.supersededConnections, 1);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("work that waits in the volume without end (a full device) keeps nobody out", (t) => {
  const world = new World();
  const old = world.attach(KERNEL);
  world.volume.hold(true);
  old.write(0, pattern(0, 4096, 1));
  world.loop.settle();
  old.stream.clientReset();
  world.loop.settle();
  const next = [world.connect(KERNEL), world.connect(KERNEL)];
  world.loop.advance(ADMISSION_WAIT_MS - 1);
  for (const client of next) t.equal(client.transmission, null);
  world.loop.advance(2);
  for (const client of next) t.not(client.transmission, null);
  t.equal(world.server.counters.admissionsForced, 2);
  const fresh = next[0]!.write(0, pattern(0, 4096, 2));
  world.loop.settle();
  world.volume.hold(false);
  world.loop.settle();
  t.equal(fresh.errno, 0);
  t.ok(Buffer.from(world.volume.bytes.subarray(0, 4096)).equals(pattern(0, 4096, 2)));
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("a connection whose peer is there is left alone", (t) => {
  const world = new World();
  const first = world.attach(KERNEL, { tellsPeerGone: true });
  const second = world.attach(KERNEL, { tellsPeerGone: true });
  const both = [first.write(0, pattern(0, 4096)), second.write(4096, pattern(4096, 4096))];
  world.loop.settle();
  t.same(
    both.map(({ errno }) => errno),
    [0, 0],
  );
  t.equal(world.server.counters.supersededConnections, 0);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("work of a dead connection that is still in the volume is waited for", (t) => {
  const world = new World();
  const old = world.attach(KERNEL);
  world.volume.hold(true);
  old.write(0, pattern(0, 4096, 1));
  world.loop.settle();
  old.stream.clientReset();
  world.loop.settle();
  const next = world.connect(KERNEL);
  world.loop.settle();
  t.equal(next.transmission, null);
  // A client that gives up while it waits leaves nothing behind.
  const impatient = world.connect(KERNEL);
  world.loop.settle();
  impatient.stream.clientReset();
  world.volume.hold(false);
  world.loop.settle();
  t.not(next.transmission, null);
  next.write(0, pattern(0, 4096, 2));
  world.loop.settle();
  t.ok(Buffer.from(world.volume.bytes.subarray(0, 4096)).equals(pattern(0, 4096, 2)));
  t.same(world.close(), CLEAN);
  t.end();
});
