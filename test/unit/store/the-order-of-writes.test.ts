/** What must be on the disk before what: asserted on the order in which the disk was asked. */
import t from "tap";
import { ExtentFlag, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES, MIB } from "../../../lib/core/limits.js";
import type { Layout } from "../../../lib/store/index.js";
import { type OpenStoreOptions, STORE_DEFAULTS, tunablesOf } from "../../../lib/store/options.js";
import { Machine, VOLUME } from "./support/machine.js";
import type { DiskEvent } from "./support/memory-disk.js";

type Area = "hot" | "log" | "table" | "slot" | "directory" | "anchor" | "superblock" | "sync" | "record";

function areaOf(layout: Layout, event: DiskEvent): Area {
  if (event.kind === "sync") return "sync";
  const { offset } = event;
  if (offset >= layout.slotsStart) return "slot";
  if (offset >= layout.tablesA) return "table";
  if (offset >= layout.log) return "log";
  if (offset >= layout.directoryA) return "directory";
  if (offset >= layout.hotA) return "hot";
  if (offset >= layout.recordsA) return "record";
  return offset % 65536 === 0 ? "superblock" : "anchor";
}

/** Areas in the order in which they were changed or synced since event `from`; reads are left out. */
function order(machine: Machine, from: number): Area[] {
  return machine.disk.events
    .slice(from)
    .filter(({ kind }) => kind !== "read")
    .map((event) => areaOf(machine.layout, event));
}

t.test("a write: record, then data; and no sync by itself", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  const from = machine.disk.events.length;
  machine.write(0, 1, [2]);
  t.same(order(machine, from), ["log", "slot"]);
  machine.stop();
});

t.test("a sync is announced only where flushes follow every few writes", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.flush();
  machine.write(0, 1, [2]);
  machine.flush();
  const { disk } = machine;
  const hints = disk.hints;
  const from = disk.events.length;
  machine.write(0, 2, [3]);
  t.equal(disk.hints, hints + 1, "the flush of this write is expected");
  t.same(order(machine, from), ["log", "slot"], "and changes nothing about what is written");
  for (let i = 0; i < 10; i++) machine.write(0, 3, [i]);
  t.ok(disk.hints < hints + 8, "nobody has flushed for ten writes: the log is left to the sync");
  const settled = disk.hints;
  for (let i = 0; i < 10; i++) machine.write(0, 3, [i]);
  t.equal(disk.hints, settled);
  machine.stop();
});

t.test("the first write of an extent waits for nothing: its slot was hot in advance", async (t) => {
  const machine = new Machine({ open: { preHotSlots: 4 } }).start();
  const from = machine.disk.events.length;
  machine.write(0, 0, [1]);
  t.same(order(machine, from).slice(0, 2), ["log", "slot"]);
  machine.stop();
});

t.test("a cool slot: the bit is durable before the record, and the record before the data", async (t) => {
  for (const kind of [ExtentOpKind.Write, ExtentOpKind.Zero]) {
    const machine = new Machine({ open: { coolAfterMs: 0 } }).start();
    machine.write(0, 0, [1, 2]);
    machine.engine.advance(5000);
    t.equal(machine.store.stats().hotSlots, 0, "it has cooled");
    const from = machine.disk.events.length;
    if (kind === ExtentOpKind.Write) machine.write(0, 0, [3]);
    else machine.zero(0, 0, 1);
    const seen = order(machine, from);
    t.equal(seen[0], "hot");
    t.ok(seen.indexOf("sync") < seen.indexOf("log"), "synced before the record");
    t.ok(seen.indexOf("log") < seen.indexOf("slot"), "record before data");
    machine.stop();
  }
});

t.test("an operation is answered only when its bytes have landed, zeroing included", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1, 2, 3]);
  machine.disk.frozen = true;
  const ops = [machine.writing(0, 0, [9]), machine.op(ExtentOpKind.Zero, 0, 1, 2)];
  for (const op of ops) machine.submit(op);
  machine.engine.settle();
  for (const op of ops) t.notOk(machine.answered(op));
  machine.disk.thaw();
  machine.engine.settle();
  for (const op of ops) t.ok(machine.answered(op));
  t.same(machine.read(0, 0, 3), [9, 0, 0]);
  machine.engine.pool.free(ops[0]!.memory);
  machine.stop();
});

t.test("FUA and FLUSH are answered by a sync that was asked for afterwards", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.flush();
  for (const flags of [ExtentFlag.Fua]) {
    const from = machine.disk.events.length;
    machine.write(0, 0, [2], flags);
    t.same(order(machine, from), ["log", "slot", "sync"]);
  }
  machine.write(0, 0, [3]);
  const from = machine.disk.events.length;
  machine.flush();
  t.same(order(machine, from), ["sync"]);
  const again = machine.disk.events.length;
  machine.flush();
  t.same(order(machine, again), [], "nothing has changed since");
  machine.stop();
});

t.test("the first FLUSH of an opening syncs although this process has written nothing", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.kill().start();
  machine.engine.settle();
  const from = machine.disk.events.length;
  machine.flush();
  t.ok(order(machine, from).includes("sync"));
  machine.stop();
});

t.test("FUA over a hole waits for the TRIM that made it", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.flush();
  machine.zero(0, 0, 1);
  t.equal(machine.write(0, 0, [0], ExtentFlag.Fua), 0);
  machine.powerLoss(() => false).start();
  t.same(machine.read(0, 0, 1), [0]);
  machine.stop();
});

t.test("concurrent flushes share a sync", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  const before = machine.store.stats().syncs;
  const ops = [1, 2, 3, 4].map(() => machine.submit(machine.op(ExtentOpKind.Flush, 0, 0, 0)));
  machine.engine.settle();
  t.ok(ops.every((op) => machine.answered(op)));
  t.equal(machine.store.stats().syncs, before + 1);
  machine.stop();
});

t.test(
  "a freed slot: FREE synced, bit hot, zeroed, synced, then FREED, and only then someone else's",
  async (t) => {
    const machine = new Machine({ open: { coolAfterMs: 0 } }).start();
    machine.write(0, 0, [1, 2, 3]);
    machine.engine.advance(5000);
    const from = machine.disk.events.length;
    machine.free(0);
    machine.engine.advance(1);
    const seen = order(machine, from);
    const log = seen.indexOf("log");
    const zeroed = seen.indexOf("slot");
    t.equal(log, 0, "FREE first");
    t.ok(
      seen.indexOf("sync") < seen.indexOf("hot") && seen.indexOf("hot") < zeroed,
      "durable, hot, then zeroed",
    );
    t.equal(seen[zeroed + 1], "sync", "the zeros are synced");
    t.ok(seen.indexOf("log", zeroed) > zeroed + 1, "FREED after that");
    machine.stop();
  },
);

t.test("a checkpoint: log synced, copy A, sync, copy B, sync, then the anchor twice", async (t) => {
  const machine = new Machine({
    format: { logBytes: 16384 },
    open: { checkpointBatch: 1, syncIntervalMs: 1e6 },
  });
  machine.start();
  machine.write(0, 0, [1]);
  const from = machine.disk.events.length;
  for (let i = 0; i < 500; i++) machine.write(0, i % 16, [i % 250]);
  const events = machine.disk.events.slice(from);
  const areas = events.map((event) => areaOf(machine.layout, event));
  const tables = events.flatMap((event, i) => (areas[i] === "table" && event.kind === "write" ? [i] : []));
  t.ok(tables.length >= 4, "several checkpoints happened");
  tables.forEach((at, n) => {
    const event = events[at]!;
    const isA = event.kind !== "sync" && event.offset < machine.layout.tablesB;
    t.equal(isA, n % 2 === 0, "A and B in turn");
    const next = tables[n + 1] ?? events.length;
    t.ok(areas.slice(at, next).includes("sync"), "a sync between");
  });
  machine.stop();
});

t.test("never two writes in flight to one block: zeroing of a slot touches only that slot", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [1]);
  machine.write(1, 0, [2]);
  const from = machine.disk.events.length;
  machine.free(0);
  machine.engine.advance(3000);
  const inSlots = machine.disk.events
    .slice(from)
    .filter(
      (event) => event.kind !== "sync" && event.kind !== "read" && event.offset >= machine.layout.slotsStart,
    );
  t.equal(
    new Set(
      inSlots.map((e) =>
        e.kind === "sync" ? -1 : Math.floor((e.offset - machine.layout.slotsStart) / (16 * BLOCK_BYTES)),
      ),
    ).size,
    1,
  );
  t.same(machine.read(1, 0, 1), [2]);
  machine.stop();
});

/** Twelve extents that are there and cool, and the store opened again. */
function coolExtents(open: Partial<OpenStoreOptions> = {}, extents = 12): Machine {
  const machine = new Machine({ sizeBytes: 8 * MIB, open: { preHotSlots: 1, ...open } }).start();
  for (let extent = 0; extent < extents; extent++) machine.write(extent, 0, [1]);
  machine.stop();
  return machine.start();
}

/** Rounds of the hot bitmap that were written since event `from`; each writes two copies. */
function hotRounds(machine: Machine, from: number): number {
  return order(machine, from).filter((area) => area === "hot").length / 2;
}

/** Rounds that a write to the beginning of each of these extents, which are there and cool, takes. */
function roundsOfWriter(extents: readonly number[], open: Partial<OpenStoreOptions>): number {
  const machine = coolExtents(open, 64);
  let rounds = 0;
  for (const extent of extents) {
    const from = machine.disk.events.length;
    machine.write(extent, 0, [2]);
    rounds += hotRounds(machine, from);
    for (let block = 1; block < 16; block++) machine.write(extent, block, [2]);
  }
  machine.engine.advance(20_000);
  t.equal(machine.store.stats().hotSlots, 0, "what was heated for nothing cools too");
  machine.stop();
  return rounds;
}

t.test("who writes through cool extents waits for a sync at every ninth, who jumps at each", async (t) => {
  const inOrder = Array.from({ length: 38 }, (_, extent) => extent);
  t.equal(roundsOfWriter(inOrder, {}), 1 + Math.ceil(37 / 9));
  t.equal(roundsOfWriter(inOrder, { heatAheadExtents: 0 }), 38);
  const jumping = inOrder.map((extent) => (extent * 23) % 64);
  t.equal(roundsOfWriter(jumping.slice(0, 13), {}), 13, "no two of them beside each other");
});

t.test("nothing is heated ahead where others have to call it stable", async (t) => {
  t.equal(tunablesOf({ soleMember: true }).heatAheadExtents, 8);
  t.equal(tunablesOf({ heatAheadExtents: 8 }).heatAheadExtents, 0);
  const stability = { isStable: () => true };
  t.equal(tunablesOf({ stability, heatAheadExtents: 8 }).heatAheadExtents, 0);
  t.throws(() => tunablesOf({ stability, soleMember: true }), /nobody to call an extent stable/);
  const machine = coolExtents({ stability });
  for (let extent = 0; extent < 2; extent++) machine.write(extent, 0, [2]);
  t.equal(machine.store.stats().hotSlots, 2);
  machine.stop();
});

t.test(
  "what is heated ahead costs no round of its own, and stays hot as long as what is written",
  async (t) => {
    const machine = coolExtents();
    machine.write(0, 0, [2]);
    machine.disk.frozen = true;
    const from = machine.disk.events.length;
    // The first asks for the bit, the second comes while it is being written.
    const middle = machine.submit(machine.writing(1, 8, [3]));
    machine.engine.settle();
    const first = machine.submit(machine.writing(1, 0, [3]));
    machine.engine.settle();
    machine.disk.thaw();
    machine.engine.settle();
    t.ok(machine.answered(middle) && machine.answered(first));
    t.equal(hotRounds(machine, from), 1, "a page on its way is not written once more for it");
    t.equal(machine.store.stats().hotSlots, 2);
    for (const op of [middle, first]) machine.engine.pool.free(op.memory);
    machine.write(2, 0, [3]);
    t.equal(machine.store.stats().hotSlots, 11);
    machine.engine.advance(STORE_DEFAULTS.coolAfterMs - 1000);
    t.equal(machine.store.stats().hotSlots, 11, "the next tick does not undo it");
    machine.engine.advance(3000);
    t.equal(machine.store.stats().hotSlots, 0);
    machine.stop();
  },
);

/** A drop of the volume, begun; returns what becomes of it. */
function dropping(machine: Machine): { error: unknown } {
  const outcome: { error: unknown } = { error: "not yet" };
  machine.store.dropVolume(VOLUME, (error) => {
    outcome.error = error;
  });
  return outcome;
}

t.test("slots that are freed while they are heated ahead are zeroed, then used again", async (t) => {
  const begun: boolean[] = [];
  // From "asked for" to "both copies written".
  for (let steps = 0; steps < 6; steps++) {
    const machine = coolExtents();
    const { slots } = machine.layout;
    machine.write(0, 0, [2]);
    machine.disk.frozen = true;
    const from = machine.disk.events.length;
    const write = machine.submit(machine.writing(1, 0, [3]));
    machine.engine.settle();
    for (let step = 0; step < steps; step++) machine.disk.step();
    const wasHot = order(machine, from).includes("slot");
    begun.push(wasHot);
    const dropped = dropping(machine);
    machine.engine.settle();
    machine.disk.thaw();
    machine.engine.settle();
    t.equal(dropped.error, null);
    t.ok(machine.answered(write));
    machine.engine.pool.free(write.memory);
    t.same(machine.read(1, 0, 2), [wasHot ? 0 : 3, 0], "a write that still waits makes an extent of its own");
    t.match(machine.store.stats(), { freeingSlots: 0 });
    const statuses = Array.from({ length: slots }, (_, extent) => machine.write(extent, 1, [4]));
    t.ok(statuses.every((status) => status === 0));
    t.match(machine.store.stats(), { freeSlots: 0, liveSlots: slots });
    t.same(machine.read(2, 0, 2), [0, 4], "of the extent before nothing is left");
    machine.stop();
    t.same(machine.fsck(), []);
  }
  t.ok(begun.includes(true) && begun.includes(false), "before and after the bits are set");
});

t.test("who waits for a slot gets it when one is zero, however long that takes", async (t) => {
  const { slots } = new Machine({ sizeBytes: 8 * MIB }).layout;
  const machine = coolExtents({}, slots);
  machine.write(0, 0, [2]);
  machine.disk.frozen = true;
  const write = machine.submit(machine.writing(1, 0, [3]));
  machine.engine.settle();
  const free = machine.submit(machine.op(ExtentOpKind.Free, 3, 0, 16));
  const waiting = machine.submit(machine.writing(slots, 0, [5]));
  machine.engine.settle();
  while (machine.disk.held?.kind !== "zero") machine.disk.step();
  t.ok(machine.answered(write) && machine.answered(free));
  machine.engine.advance(50_000);
  t.notOk(machine.answered(waiting), "the bytes of another are still there");
  machine.disk.thaw();
  machine.engine.settle();
  t.ok(machine.answered(waiting) && waiting.status === 0);
  for (const op of [write, waiting]) machine.engine.pool.free(op.memory);
  t.same(machine.read(slots, 0, 2), [5, 0]);
  machine.stop();
  t.same(machine.fsck(), []);
});
