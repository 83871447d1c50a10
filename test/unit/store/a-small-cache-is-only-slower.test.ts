import t from "tap";
import { ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES, MIB } from "../../../lib/core/limits.js";
import { Machine } from "./support/machine.js";

const EXTENTS = 30;

t.test("more dirty extents than the cache holds: all are kept, and the bound too", async (t) => {
  const machine = new Machine({ open: { cacheBytes: 0, checkpointBatch: 2, coolAfterMs: 1e6 } }).start();
  for (let extent = 0; extent < EXTENTS; extent++) machine.write(extent, 1, [100 + extent]);
  const { cacheBytes, cacheLimitBytes, cacheMisses, checkpoints } = machine.store.stats();
  t.ok(cacheBytes <= cacheLimitBytes);
  t.ok(checkpoints >= EXTENTS - cacheLimitBytes / 64, "dirty tables were written to be evicted");
  for (let extent = 0; extent < EXTENTS; extent++) t.same(machine.read(extent, 0, 3), [0, 100 + extent, 0]);
  t.ok(machine.store.stats().cacheMisses > cacheMisses);
  machine.kill().start();
  for (let extent = 0; extent < EXTENTS; extent++) t.same(machine.read(extent, 0, 3), [0, 100 + extent, 0]);
  t.equal(machine.stop(), null);
  t.same(machine.fsck(), []);
});

t.test("more operations at once than the cache has tables: all are answered", async (t) => {
  const machine = new Machine({ open: { cacheBytes: 0, checkpointBatch: 1, preHotSlots: 1 } }).start();
  const ops = Array.from({ length: EXTENTS }, (_, extent) =>
    machine.submit(machine.writing(extent, 0, [1 + extent])),
  );
  machine.engine.advance(1000);
  t.ok(ops.every((op) => machine.answered(op) && op.status === 0));
  for (const op of ops) machine.engine.pool.free(op.memory);
  const reads = Array.from({ length: EXTENTS }, (_, extent) => {
    const op = machine.op(ExtentOpKind.Read, extent, 0, 1);
    op.memory = machine.engine.pool.allocate(BLOCK_BYTES);
    return machine.submit(op);
  });
  machine.engine.advance(1000);
  reads.forEach((op, extent) => {
    t.equal(machine.answered(op) && op.status, 0);
    t.equal(machine.engine.pool.bytes[op.memory], 1 + extent);
    machine.engine.pool.free(op.memory);
  });
  t.equal(machine.stop(), null);
});

t.test(
  "on a miss the data is read together with the table; holes and rot are seen all the same",
  async (t) => {
    const machine = new Machine().start();
    machine.write(0, 2, [7, 8]);
    machine.stop();
    machine.start();
    machine.disk.frozen = true;
    const op = machine.op(ExtentOpKind.Read, 0, 0, 6);
    op.memory = machine.engine.pool.allocate(6 * BLOCK_BYTES);
    machine.engine.pool.bytes.fill(0xee, op.memory, op.memory + 6 * BLOCK_BYTES);
    const from = machine.disk.events.length;
    machine.submit(op);
    machine.engine.settle();
    const { slotsStart } = machine.layout;
    const places = machine.disk.events
      .slice(from)
      .map((e) => (e.kind === "read" ? e.offset >= slotsStart : null));
    t.same(places.sort(), [false, true], "both are in flight");
    machine.disk.thaw();
    machine.engine.settle();
    t.match(op, { status: 0, presentCount: 2 });
    t.equal(op.present[0], 0b1100);
    const fills = [0, 1, 2, 3, 4, 5].map((i) => machine.engine.pool.bytes[op.memory + i * BLOCK_BYTES]);
    t.same(fills, [0, 0, 7, 8, 0, 0]);
    machine.engine.pool.free(op.memory);
    machine.stop();
    machine.start();
    t.same(machine.read(0, 4, 2), [0, 0], "nothing but holes");
    machine.stop();
    const at = machine.disk.bytes.indexOf(8, slotsStart);
    machine.disk.bytes[at + 5]! ^= 1;
    machine.start();
    t.same(machine.read(0, 0, 6), new Array<number>(6).fill(-5));
    t.match(machine.seen.rot, [{ extent: 0, block: 3 }]);
    machine.stop();
  },
);

t.test("a log with more holders in one frame than a round writes does not stall", async (t) => {
  const machine = new Machine({
    sizeBytes: 4 * MIB,
    format: { logBytes: 16384 },
    open: { checkpointBatch: 1, preHotSlots: 8, coolAfterMs: 1e6 },
  }).start();
  for (let round = 0; round < 60; round++) {
    const ops = [0, 1, 2, 3, 4, 5].map((extent) =>
      machine.submit(machine.writing(extent, round % 16, [1 + round])),
    );
    machine.engine.advance(200);
    t.ok(ops.every((op) => machine.answered(op)));
    for (const op of ops) machine.engine.pool.free(op.memory);
  }
  t.equal(machine.stop(), null);
});
