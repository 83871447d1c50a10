/**
 * Connections that break at any moment: what the volume has begun ends, nothing else is begun, memory comes
 * back, and no late completion reaches anybody else.
 */
import fc from "fast-check";
import { encodeRequest, NBD_CMD_FLUSH, NBD_CMD_WRITE, NBD_EIO, NBD_REQUEST_BYTES } from "nbd-protocol-ts";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { Workload } from "./support/workload.js";
import { CLEAN, MODES, pattern, World } from "./support/world.js";

const VOLUME_BYTES = 4 * MIB;

interface Case {
  readonly seed: number;
  readonly poolMib: number;
  readonly depth: number;
  readonly events: number;
  readonly how: "reset" | "end" | "disconnect" | "cut";
}

/** One client dies after so many events; the other must not notice. */
function run(c: Case): void {
  const world = new World({ seed: c.seed, poolBytes: c.poolMib * MIB, volumeBytes: VOLUME_BYTES });
  const { options } = MODES[c.seed % MODES.length]!;
  const half = VOLUME_BYTES / 2;
  const dying = world.attach({ ...options, blockSizes: false }, { sendMax: 50_000 });
  const living = world.attach({ ...options, blockSizes: false });
  const load = { requests: 40, depth: c.depth, lengthMax: 300_000 };
  new Workload(dying, world.random, { ...load, from: 0, to: half });
  const other = new Workload(living, world.random, { ...load, depth: 4, from: half, to: VOLUME_BYTES });
  for (let i = 0; i < c.events; i++) world.loop.step();
  if (c.how === "reset") dying.stream.clientReset();
  else if (c.how === "end") dying.stream.clientEnd();
  else if (c.how === "disconnect") dying.disconnect();
  else {
    const cut = encodeRequest(new DataView(new ArrayBuffer(32)), 0, false, 0, NBD_CMD_WRITE, 1, 1, 0, 512);
    dying.stream.clientSend(new Uint8Array(cut).fill(0xff));
  }
  for (let i = 0; i < 20; i++) world.loop.advance(1000);
  if (!dying.stream.closed) throw new Error("the stream of the dead connection is still open");
  if (world.server.connections.size !== 1) throw new Error("the dead connection is still there");
  if (!other.finished || other.fault !== "" || living.complaint !== "") {
    throw new Error(`the other client: ${other.done} done, ${other.fault} ${living.complaint}`);
  }
  const end = world.close();
  if (JSON.stringify(end) !== JSON.stringify(CLEAN)) throw new Error(JSON.stringify(end));
}

void t.test("a connection that ends at any moment takes nothing with it", (t) => {
  const cases = fc.record({
    seed: fc.integer({ min: 1, max: 2 ** 31 }),
    poolMib: fc.constantFrom(1, 2, 8),
    depth: fc.constantFrom(1, 8, 30),
    events: fc.integer({ min: 0, max: 400 }),
    how: fc.constantFrom("reset" as const, "end" as const, "disconnect" as const, "cut" as const),
  });
  fc.assert(fc.property(cases, run), { numRuns: 60 });
  t.end();
});

void t.test("DISC: what was asked before is answered, then the stream is closed", (t) => {
  const world = new World({ seed: 3 });
  const client = world.attach();
  const outcomes = [client.write(0, pattern(0, 65_536)), client.request(NBD_CMD_FLUSH, 0, 0, 0)];
  client.disconnect();
  world.loop.settle();
  t.same(
    outcomes.map(({ errno }) => errno),
    [0, 0],
  );
  t.ok(client.stream.closed);
  t.same(world.ended, [""], "a connection that ends in order has no reason");
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("a write that has not arrived whole is never executed", (t) => {
  for (const how of ["end", "reset"] as const) {
    const world = new World();
    const client = world.attach(MODES[0]!.options);
    const [, bytes] = client.encode(NBD_CMD_WRITE, 0, 0, 65_536, pattern(0, 65_536));
    client.send(bytes.subarray(0, bytes.length - 1));
    world.loop.settle();
    if (how === "end") client.stream.clientEnd();
    else client.stream.clientReset();
    world.loop.advance(5000);
    t.equal(world.volume.submitted, 0, how);
    t.ok(client.stream.closed, how);
    t.same(world.close(), CLEAN, how);
  }
  t.end();
});

void t.test(
  "a write in the volume is completed after its connection is gone, and its reply goes nowhere",
  (t) => {
    const world = new World();
    const client = world.attach(MODES[0]!.options);
    const next = world.attach(MODES[0]!.options);
    world.volume.hold(true);
    client.write(0, pattern(0, 8192));
    world.loop.settle();
    client.stream.clientReset();
    world.loop.settle();
    t.ok(client.stream.closed);
    t.equal(world.server.connections.size, 2, "it is kept until the volume has answered");
    const taken = next.stream.takenBytes;
    world.volume.hold(false);
    world.loop.settle();
    t.equal(world.server.connections.size, 1);
    t.equal(next.stream.takenBytes, taken, "the other connection hears nothing of the dead one's write");
    const read = next.read(0, 8192);
    world.loop.settle();
    t.ok(Buffer.from(read.data!).equals(pattern(0, 8192)));
    t.same(world.close(), CLEAN);
    t.end();
  },
);

void t.test("a streamed reply whose read fails ends the connection instead of sending other bytes", (t) => {
  const world = new World({ poolBytes: MIB, volumeBytes: 8 * MIB });
  world.volume.present.fill(1);
  world.volume.fails = (request) => (request.offset >= 4 * MIB ? NBD_EIO : 0);
  const client = world.attach(MODES[0]!.options);
  const read = client.read(0, 8 * MIB);
  world.loop.advance(10_000);
  t.equal(read.errno, -1, "there is no reply");
  t.ok(client.stream.closed);
  t.equal(world.server.counters.streamedFailures, 1);
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("garbage instead of a request ends the connection", (t) => {
  const world = new World();
  const client = world.attach();
  client.stream.clientSend(new Uint8Array(NBD_REQUEST_BYTES).fill(0x55));
  world.loop.settle();
  t.ok(client.stream.closed);
  t.match(world.ended[0], /magic/);
  t.equal(world.server.counters.protocolErrors, 1);
  t.same(world.close(), CLEAN);
  t.end();
});
