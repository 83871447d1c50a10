/** An access list that changes holds for open connections too. */
import { NBD_FLAG_READ_ONLY } from "nbd-protocol-ts";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { Access } from "../../../lib/gateway/exports.js";
import { WITHDRAWAL_GRACE_MS } from "../../../lib/gateway/limits.js";
import { CLEAN, MODES, pattern, World } from "./support/world.js";

/** A world in which the right of everybody is what it was set to last. */
class Gate {
  access: Access = Access.ReadWrite;
  tlsOnly = false;
  readonly world = new World({
    poolBytes: 16 * MIB,
    server: { policy: { accessOf: () => this.access, needsTls: () => this.tlsOnly } },
  });

  set(access: Access): void {
    this.access = access;
    this.world.server.recordChanged(this.world.volume.record);
    this.world.loop.settle();
  }
}

for (const { name, options } of MODES) {
  void t.test(`${name}: what was asked is answered, what comes later is not`, (t) => {
    const gate = new Gate();
    const { world } = gate;
    const client = world.attach(options);
    world.volume.hold(true);
    const before = client.write(0, pattern(0, 4096));
    world.loop.settle();
    gate.set(Access.None);
    const after = client.write(0, pattern(0, 4096, 2));
    const read = client.read(0, 512);
    world.loop.settle();
    t.notOk(client.stream.serverEnded, "an answer is due");
    world.volume.hold(false);
    world.loop.settle();
    t.equal(before.errno, 0);
    t.same([after.errno, read.errno], [-1, -1], "no answer: the client asks again, and is told then");
    t.ok(client.stream.serverEnded);
    t.equal(client.complaint, "");
    t.equal(world.volume.applied.length, 1, "nothing was executed without a right");
    t.equal(world.server.counters.rightsWithdrawn, 1);
    world.loop.advance(WITHDRAWAL_GRACE_MS);
    t.ok(client.stream.closed);
    t.match(world.ended.join(), /withdrawn/);
    t.same(world.close(), CLEAN);
    t.end();
  });
}

void t.test("from writing to reading: those who were promised writing are ended, readers stay", (t) => {
  const gate = new Gate();
  const { world } = gate;
  const writer = world.attach();
  gate.access = Access.ReadOnly;
  const reader = world.attach();
  t.equal(reader.negotiated!.flags & NBD_FLAG_READ_ONLY, NBD_FLAG_READ_ONLY);
  gate.set(Access.ReadOnly);
  t.ok(writer.stream.serverEnded);
  t.notOk(reader.stream.serverEnded);
  // More rights take nothing from anybody: the next connection has them.
  gate.set(Access.ReadWrite);
  const read = reader.read(0, 512);
  world.loop.settle();
  t.equal(read.errno, 0);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("a volume that is served over TLS only from now on leaves plaintext", (t) => {
  const gate = new Gate();
  const { world } = gate;
  const client = world.attach();
  gate.tlsOnly = true;
  gate.set(Access.ReadWrite);
  t.ok(client.stream.serverEnded);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("connections of other volumes are left alone", (t) => {
  const gate = new Gate();
  const { world } = gate;
  const other = world.addVolume("w", MIB);
  const client = world.attach();
  gate.access = Access.None;
  world.server.recordChanged(other.record);
  const read = client.read(0, 512);
  world.loop.settle();
  t.equal(read.errno, 0);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("a right that is withdrawn while the volume is being opened is not had", (t) => {
  const gate = new Gate();
  const { world } = gate;
  world.holdOpens = true;
  const client = world.connect();
  world.loop.settle();
  gate.set(Access.None);
  for (const open of world.heldOpens) world.loop.post(open);
  world.loop.settle();
  t.ok(client.stream.closed);
  t.equal(world.server.counters.rightsWithdrawn, 1);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("who takes no replies is cut off in the end", (t) => {
  const gate = new Gate();
  const { world } = gate;
  world.volume.present.fill(1);
  const client = world.attach();
  client.stream.clientPause(true);
  client.read(0, MIB);
  world.loop.settle();
  gate.set(Access.None);
  t.notOk(client.stream.closed);
  world.loop.advance(WITHDRAWAL_GRACE_MS + 1);
  t.ok(client.stream.closed);
  t.same(world.close(), CLEAN);
  t.end();
});
