import t from "tap";
import { ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { WHOLE_EXTENT } from "../../../lib/store/index.js";
import { Machine, VOLUME } from "./support/machine.js";

/** Offset on the disk of a block that is filled with `fill`. */
function find(machine: Machine, fill: number): number {
  const { bytes } = machine.disk;
  for (let at = machine.layout.slotsStart; at < bytes.length; at += BLOCK_BYTES) {
    if (bytes[at] === fill && bytes[at + BLOCK_BYTES - 1] === fill) return at;
  }
  throw new Error("the block is not on the disk");
}

t.test("any flipped bit of a block is found, in that block only, and reported once", async (t) => {
  const machine = new Machine().start();
  machine.write(2, 4, [11, 12, 13]);
  machine.stop();
  const at = find(machine, 12);
  for (const byte of [0, 1, 511, 512, 2048, 4095]) {
    for (const bit of [0, 7]) {
      machine.disk.bytes[at + byte]! ^= 1 << bit;
      machine.start();
      t.same(machine.read(2, 4, 1), [11]);
      t.same(machine.read(2, 5, 1), [-5]);
      t.same(machine.read(2, 6, 1), [13]);
      const op = machine.op(ExtentOpKind.Read, 2, 4, 3);
      op.memory = machine.engine.pool.allocate(3 * BLOCK_BYTES);
      machine.do(op);
      t.match(op, { status: 5, badBlock: 5 });
      machine.engine.pool.free(op.memory);
      t.match(machine.store.badBlocks(VOLUME), [{ extent: 2, block: 5 }]);
      t.equal(machine.store.stats().bitRotBlocks, 1);
      machine.stop();
      t.match(machine.fsck(), [/extent 2 block 5 .*do not match/]);
      machine.disk.bytes[at + byte]! ^= 1 << bit;
    }
  }
  t.same(machine.fsck(), []);
});

t.test("a block that is written again is whole again", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [11, 12]);
  machine.stop();
  machine.disk.bytes[find(machine, 11) + 9]! ^= 1;
  machine.start();
  t.same(machine.read(0, 0, 1), [-5]);
  machine.write(0, 0, [14]);
  t.same(machine.read(0, 0, 2), [14, 12]);
  t.same(machine.store.badBlocks(VOLUME), []);
  machine.stop();
  t.same(machine.fsck(), []);
});

t.test("blocks that changed places are both found", async (t) => {
  const machine = new Machine().start();
  machine.write(0, 0, [21, 22]);
  machine.write(1, 0, [23]);
  machine.stop();
  const { bytes } = machine.disk;
  for (const [x, y] of [
    [21, 22],
    [22, 23],
  ] as const) {
    const a = find(machine, x);
    const b = find(machine, y);
    const kept = bytes.slice(a, a + BLOCK_BYTES);
    bytes.copyWithin(a, b, b + BLOCK_BYTES);
    bytes.set(kept, b);
    t.equal(machine.fsck().length, 2);
    machine.start();
    t.equal(
      [machine.read(0, 0, 1), machine.read(0, 1, 1), machine.read(1, 0, 1)].filter(([v]) => v === -5).length,
      2,
    );
    machine.stop();
    bytes.copyWithin(b, a, a + BLOCK_BYTES);
    bytes.set(kept, a);
  }
});

t.test(
  "a table whose copy A rotted is read from B and mended; both gone fail the extent, not the device",
  async (t) => {
    const machine = new Machine().start();
    machine.write(0, 0, [31]);
    machine.write(1, 0, [32]);
    machine.stop();
    const { tablesA, tablesB, tableBytes, slots } = machine.layout;
    const damage = (area: number): void => {
      for (let slot = 0; slot < slots; slot++) {
        const at = area + slot * tableBytes;
        if (machine.disk.bytes[at + 4] !== 0) machine.disk.bytes[at + 40]! ^= 1;
      }
    };
    damage(tablesA);
    t.equal(machine.fsck().length, 2, "two tables differ");
    machine.start();
    t.same(machine.read(0, 0, 1), [31]);
    t.same(machine.read(1, 0, 1), [32]);
    machine.stop();
    t.same(machine.fsck(), [], "mended");
    damage(tablesA);
    damage(tablesB);
    machine.start();
    t.same(machine.read(0, 0, 1), [-5]);
    t.equal(machine.write(0, 1, [1]), 5);
    t.equal(machine.write(5, 0, [33]), 0, "other extents go on");
    t.same(machine.read(5, 0, 1), [33]);
    t.equal(machine.free(0), 0);
    t.same(machine.read(0, 0, 1), [0]);
    t.ok(machine.seen.rot.every(({ block }) => block === WHOLE_EXTENT));
    machine.stop();
  },
);

t.test(
  "a read that fails or goes astray once is repeated; one that always fails is an error of that read",
  async (t) => {
    const machine = new Machine().start();
    machine.write(0, 0, [41]);
    let left = 1;
    machine.disk.fault = ({ kind }) => (kind === "read" && left-- > 0 ? -5 : 0);
    t.same(machine.read(0, 0, 1), [41]);
    left = 2;
    t.same(machine.read(0, 0, 1), [-5]);
    t.same(machine.read(0, 0, 1), [41]);
    t.same(machine.seen.rot, []);
    t.equal(machine.stop(), null);
  },
);

t.test("the scrub finds what nobody reads, and leaves what is being written alone", async (t) => {
  const machine = new Machine().start();
  for (let extent = 0; extent < 4; extent++) machine.write(extent, 3, [50 + extent, 60 + extent]);
  machine.stop();
  machine.disk.bytes[find(machine, 52) + 100]! ^= 8;
  machine.start();
  machine.store.startScrub(1e9);
  for (let i = 0; i < 20; i++) {
    machine.write(1, 3, [100 + i]);
    machine.engine.advance(5);
  }
  machine.engine.advance(1000);
  t.match(machine.store.stats().scrub, { running: false, passes: 1 });
  t.match(machine.seen.rot, [{ extent: 2, block: 3 }]);
  t.equal(machine.stop(), null);
});
