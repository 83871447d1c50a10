/** Bounds of connections and handshakes, deadlines, and the end of the server. */
import {
  encodeText,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_OPT_GO,
  NBD_OPT_LIST,
  NBD_REQUEST_MAGIC,
} from "nbd-protocol-ts";
import t from "tap";
import { HANDSHAKE_DEADLINE_MS, HANDSHAKES_MAX, MIB } from "../../../lib/core/limits.js";
import { Access } from "../../../lib/gateway/exports.js";
import { SHUTDOWN_GRACE_MS, ZEROS_BYTES } from "../../../lib/gateway/limits.js";
import { CLEAN, MODES, pattern, World } from "./support/world.js";

void t.test("idle connections do not keep others out, and are closed at the deadline", (t) => {
  const world = new World({ poolBytes: 64 * MIB });
  const idle = Array.from({ length: 1000 }, () => world.stream());
  world.loop.settle();
  t.same(
    idle.map(({ closed }) => closed),
    idle.map((_, i) => i < idle.length - HANDSHAKES_MAX),
    "the oldest gave way",
  );
  t.equal(world.server.stats().handshakes, HANDSHAKES_MAX);
  t.equal(world.server.counters.handshakesDisplaced, idle.length - HANDSHAKES_MAX);
  t.equal(world.server.counters.connectionsRefused, 0);
  const client = world.attach();
  const read = client.read(0, 512);
  world.loop.settle();
  t.equal(read.errno, 0, "a newcomer is served at once");
  world.loop.advance(HANDSHAKE_DEADLINE_MS + 1);
  t.ok(idle.every(({ closed }) => closed));
  t.equal(world.server.counters.handshakesTimedOut, HANDSHAKES_MAX - 1);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("clients that wait for their volume are not cut for newcomers", (t) => {
  const world = new World({ server: { handshakesMax: 4 } });
  world.holdOpens = true;
  const patient = Array.from({ length: 3 }, () => world.connect());
  world.loop.settle();
  const idle = world.stream();
  const newcomer = world.connect();
  world.loop.settle();
  t.ok(idle.closed, "the oldest that says nothing gives way");
  const refused = world.stream();
  world.loop.settle();
  t.ok(refused.closed, "with only such clients the newcomer is refused");
  t.equal(world.server.counters.connectionsRefused, 1);
  for (const open of world.heldOpens) world.loop.post(open);
  world.loop.settle();
  for (const client of [...patient, newcomer]) t.not(client.transmission, null);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("a client that drips its options in is closed at the deadline", (t) => {
  const world = new World();
  const client = world.stream();
  for (let i = 0; i < 30; i++) {
    world.loop.advance(500);
    client.clientSend(new Uint8Array(1));
  }
  t.ok(client.closed);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("a process that stood still does not blame its clients for it", (t) => {
  const world = new World();
  const slow = world.stream();
  world.loop.settle();
  world.loop.standStill(2 * HANDSHAKE_DEADLINE_MS);
  t.notOk(slow.closed, "what the client sent meanwhile has not been looked at yet");
  world.loop.advance(HANDSHAKE_DEADLINE_MS);
  t.ok(slow.closed, "but it is not waited for without end");
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("nothing is opened before GO", (t) => {
  const world = new World();
  const stream = world.stream();
  stream.clientSend(Uint8Array.of(0, 0, 0, 3));
  stream.clientSend(option(NBD_OPT_LIST, new Uint8Array(0)));
  for (let i = 0; i < 200; i++) stream.clientSend(option(6, info("v")));
  world.loop.settle();
  t.equal(world.opens, 0);
  stream.clientSend(option(NBD_OPT_GO, info("v")));
  world.loop.settle();
  t.equal(world.opens, 1);
  stream.clientReset();
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test(
  "a volume that takes long to open is not the client's fault; giving up leaves nothing open",
  (t) => {
    const world = new World();
    world.holdOpens = true;
    const patient = world.connect();
    const gone = world.connect();
    world.loop.advance(2 * HANDSHAKE_DEADLINE_MS);
    t.notOk(patient.stream.closed);
    gone.stream.clientReset();
    for (const open of world.heldOpens) world.loop.post(open);
    world.loop.settle();
    t.not(patient.transmission, null);
    t.same(world.close(), CLEAN);
    t.end();
  },
);

void t.test("a flood of LIST from a client that does not read keeps nothing but its bound", (t) => {
  const world = new World();
  for (let i = 0; i < 300; i++) world.addVolume(`volume-${i}`, 4096);
  const stream = world.stream();
  stream.clientPause(true);
  stream.clientSend(Uint8Array.of(0, 0, 0, 3));
  for (let i = 0; i < 4000; i++) stream.clientSend(option(NBD_OPT_LIST, new Uint8Array(0)));
  world.loop.settle();
  t.ok(stream.unreadBytes > 60_000, "most options have not been read");
  stream.clientPause(false);
  world.loop.advance(HANDSHAKE_DEADLINE_MS);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("shutdown: what is in flight is answered, what is new gets no answer, all are closed", (t) => {
  const world = new World();
  const busy = world.attach(MODES[1]!.options);
  const idle = world.attach();
  const negotiating = world.stream();
  world.volume.hold(true);
  const before = busy.write(0, pattern(0, 4096));
  world.loop.settle();
  let closed = false;
  let drained = false;
  world.server.close(
    () => {
      closed = true;
    },
    () => {
      drained = true;
    },
  );
  world.loop.settle();
  const after = busy.read(0, 512);
  const late = world.stream();
  world.loop.settle();
  t.ok(idle.stream.serverEnded);
  t.ok(late.closed);
  t.notOk(closed || drained, "a write is in the volume");
  world.volume.hold(false);
  world.loop.settle();
  t.equal(before.errno, 0);
  t.ok(drained && busy.stream.serverEnded, "the volume is free");
  t.notOk(busy.stream.closed, "its last reply is not taken back by a reset");
  world.loop.advance(2000);
  t.equal(after.errno, -1, "no answer, least of all an error: the client asks again elsewhere");
  t.ok(closed && busy.stream.closed && idle.stream.closed && negotiating.closed);
  t.equal(world.opens, world.releases);
  t.end();
});

void t.test(
  "shutdown does not wait for ever for a volume that has no space: it goes on without an answer",
  (t) => {
    const world = new World();
    const client = world.attach();
    world.volume.hold(true);
    const waiting = client.write(0, pattern(0, 4096));
    world.loop.settle();
    let drained = 0;
    let closed = 0;
    world.server.close(
      () => closed++,
      () => drained++,
    );
    world.loop.advance(SHUTDOWN_GRACE_MS - 1);
    t.same([drained, closed], [0, 0]);
    world.loop.advance(1);
    t.same([drained, closed], [1, 0], "the volume may be ended, which still has the write");
    t.ok(client.stream.closed);
    world.volume.hold(false);
    world.loop.settle();
    t.same([drained, closed], [1, 1]);
    t.equal(waiting.errno, -1, "no answer");
    t.equal(world.opens, world.releases);
    t.end();
  },
);

void t.test("shutdown does not wait for the rest of a write", (t) => {
  const world = new World();
  const free = world.loop.pool.freeBytes + ZEROS_BYTES;
  const client = world.attach();
  const header = new DataView(new ArrayBuffer(28));
  header.setUint32(0, NBD_REQUEST_MAGIC);
  header.setUint16(6, NBD_CMD_WRITE);
  header.setUint32(24, 2 * MIB);
  client.stream.clientSend(new Uint8Array(header.buffer));
  client.stream.clientSend(pattern(0, MIB + 5000));
  world.loop.settle();
  let drained = false;
  world.server.close(
    () => {},
    () => {
      drained = true;
    },
  );
  world.loop.settle();
  t.ok(drained && client.stream.serverEnded);
  world.loop.advance(2000);
  t.ok(client.stream.closed);
  t.equal(world.loop.pool.freeBytes, free, "all memory is back");
  t.end();
});

void t.test("shutdown does not wait for ever for a client that takes no replies", (t) => {
  const world = new World({ poolBytes: 16 * MIB });
  world.volume.present.fill(1);
  const client = world.attach();
  client.stream.clientPause(true);
  client.read(0, MIB);
  world.loop.settle();
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("a volume that grows is longer for open connections at once", (t) => {
  const world = new World();
  const client = world.attach();
  const before = client.read(4 * MIB, 512);
  world.loop.settle();
  world.volume.grow(8 * MIB);
  const after = client.read(4 * MIB, 512);
  world.loop.settle();
  t.same([before.errno, after.errno], [22, 0]);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("read-only grants and volumes without any right", (t) => {
  const world = new World({
    server: {
      policy: {
        accessOf: (record) => (record.name === "v" ? Access.ReadOnly : Access.None),
      },
    },
  });
  world.addVolume("hidden", MIB);
  const reader = world.attach();
  const write = reader.write(0, pattern(0, 512));
  const read = reader.request(NBD_CMD_READ, 0, 0, 512);
  const lister = world.connect({ goal: "list" });
  const stranger = world.connect({ exportName: "hidden" });
  world.loop.settle();
  t.same([write.errno, read.errno], [1, 0]);
  t.same(
    lister.handshake.exports.map(({ name }) => name),
    ["v"],
  );
  t.equal(stranger.transmission, null);
  t.equal(world.opens, 1, "a volume without right is not even opened");
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("the empty name is the only volume, or the default export, or none", (t) => {
  const only = new World();
  t.equal(only.attach({ exportName: "" }).negotiated!.size, 4 * MIB);
  t.same(only.close(), CLEAN);
  const two = new World();
  two.addVolume("w", MIB);
  const client = two.connect({ exportName: "" });
  two.loop.settle();
  t.equal(client.transmission, null);
  t.same(two.close(), CLEAN);
  const named = new World({ server: { policy: { defaultExport: "w", accessOf: () => Access.ReadWrite } } });
  named.addVolume("w", MIB);
  t.equal(named.attach({ exportName: "" }).negotiated!.size, MIB);
  t.same(named.close(), CLEAN);
  t.end();
});

function option(number: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16 + data.length);
  bytes.set(encodeText("IHAVEOPT"));
  const view = new DataView(bytes.buffer);
  view.setUint32(8, number);
  view.setUint32(12, data.length);
  bytes.set(data, 16);
  return bytes;
}

function info(name: string): Uint8Array {
  const bytes = new Uint8Array(4 + name.length + 2);
  new DataView(bytes.buffer).setUint32(0, name.length);
  bytes.set(encodeText(name), 4);
  return bytes;
}
