import t from "tap";
import { BLOCK_BYTES } from "../../lib/core/limits.js";
import { freshArena } from "./arena.js";
import { fillGranule, identify } from "./content.js";
import { SimDevice } from "./device.js";
import type { SimDiskHandle } from "./disk-handle.js";
import { SimPool, simMemory } from "./memory.js";
import { Violation } from "./violation.js";
import { type SimProcess, SimWorld } from "./world.js";

const SECTOR = 512;

interface Bench {
  world: SimWorld;
  device: SimDevice;
  pool: SimPool;
  process: SimProcess;
  disk: SimDiskHandle;
}

function bench(seed: number): Bench {
  const world = new SimWorld(seed);
  const options = {
    sizeBytes: 64 * BLOCK_BYTES,
    alignBytes: 512,
    zeroGrainBytes: 4096,
    latencyUs: 100,
    granuleBytes: 512,
  };
  const device = new SimDevice(world, freshArena(), options);
  const pool = new SimPool(2 << 20);
  const process = world.spawn();
  return { world, device, pool, process, disk: device.open(process, pool) };
}

/** A block whose sectors are those of write `id` for registers `at`, `at` + 1, … */
function block(pool: SimPool, id: number, at: number): number {
  const memory = pool.allocate(BLOCK_BYTES);
  for (let sector = 0; sector < 8; sector++) fillGranule(memory + sector * SECTOR, SECTOR, id, at + sector);
  return memory;
}

/** Runs until every request asked for so far is answered. */
function settle({ world, device }: Bench): void {
  while (device.inFlight > 0) world.step();
}

/** Ids of the sectors of page `page`, whose registers begin at 8 × page. */
function idsOf(device: SimDevice, page: number): number[] {
  return Array.from({ length: 8 }, (_, sector) =>
    identify(device.contentOf(page) + sector * SECTOR, SECTOR, page * 8 + sector),
  );
}

function write(b: Bench, page: number, id: number): number[] {
  const results: number[] = [];
  const memory = block(b.pool, id, page * 8);
  b.disk.write(
    page * BLOCK_BYTES,
    memory,
    BLOCK_BYTES,
    { diskDone: (_tag, result) => results.push(result) },
    0,
  );
  return results;
}

function sync(b: Bench): number[] {
  const results: number[] = [];
  b.disk.sync({ diskDone: (_tag, result) => results.push(result) }, 0);
  return results;
}

void t.test("a synced write survives every power loss, an unsynced one some, in any sectors", (t) => {
  let whole = 0;
  let none = 0;
  let torn = 0;
  for (let seed = 1; seed <= 200; seed++) {
    const b = bench(seed);
    write(b, 1, 1);
    settle(b);
    sync(b);
    settle(b);
    write(b, 1, 2);
    write(b, 2, 3);
    settle(b);
    b.device.powerLoss();
    const ids = idsOf(b.device, 1);
    if (ids.some((id) => id !== 1 && id !== 2)) return void t.fail(`sectors ${ids.join(" ")}`);
    if (ids.every((id) => id === 2)) whole++;
    else if (ids.every((id) => id === 1)) none++;
    else torn++;
  }
  t.ok(whole > 0 && none > 0 && torn > 0, `whole ${whole}, none ${none}, torn ${torn}`);
  t.end();
});

void t.test("a sync covers what was complete when it was asked for, and nothing else", (t) => {
  let lost = 0;
  for (let seed = 1; seed <= 100; seed++) {
    const b = bench(seed);
    sync(b);
    write(b, 3, 1);
    settle(b);
    b.device.powerLoss();
    if (idsOf(b.device, 3).some((id) => id !== 1)) lost++;
  }
  t.ok(lost > 20, `lost in ${lost} of 100`);
  t.end();
});

void t.test("a kill keeps the page cache and what has landed", (t) => {
  for (let seed = 1; seed <= 50; seed++) {
    const b = bench(seed);
    write(b, 1, 1);
    settle(b);
    b.disk.appendNow(5 * BLOCK_BYTES, block(b.pool, 9, 40), BLOCK_BYTES);
    write(b, 2, 2);
    b.process.kill();
    b.device.crashInFlight();
    t.strictSame(idsOf(b.device, 1), new Array(8).fill(1));
    t.strictSame(idsOf(b.device, 5), new Array(8).fill(9));
    t.ok(idsOf(b.device, 2).every((id) => id === 0 || id === 2));
    t.equal(b.device.inFlight, 0);
  }
  t.end();
});

void t.test("a power loss can bring back any version since the last sync", (t) => {
  const seen = new Set<number>();
  for (let seed = 1; seed <= 200; seed++) {
    const b = bench(seed);
    for (const id of [1, 2, 3]) {
      write(b, 1, id);
      settle(b);
    }
    b.device.powerLoss();
    for (const id of idsOf(b.device, 1)) seen.add(id);
  }
  t.strictSame([...seen].sort(), [0, 1, 2, 3]);
  t.end();
});

void t.test("after a failed sync the next one does not save what was lost", (t) => {
  let lost = 0;
  for (let seed = 1; seed <= 50; seed++) {
    const b = bench(seed);
    write(b, 1, 1);
    settle(b);
    b.device.faults.syncEio = 1;
    const failed = sync(b);
    settle(b);
    t.strictSame(failed, [-5]);
    b.device.faults.syncEio = 0;
    const again = sync(b);
    settle(b);
    t.strictSame(again, [0]);
    t.strictSame(idsOf(b.device, 1), new Array(8).fill(1), "reads still show it");
    b.device.powerLoss();
    if (idsOf(b.device, 1).some((id) => id !== 1)) lost++;
  }
  t.ok(lost > 10, `lost in ${lost} of 50`);
  t.end();
});

void t.test("a full device refuses writes into holes only", (t) => {
  const b = bench(1);
  write(b, 1, 1);
  settle(b);
  b.device.spacePages = b.device.usedPages;
  const refused = write(b, 2, 2);
  const overwrite = write(b, 1, 3);
  settle(b);
  t.strictSame(refused, [-28]);
  t.strictSame(overwrite, [BLOCK_BYTES]);
  b.disk.zero(BLOCK_BYTES, BLOCK_BYTES, { diskDone: () => undefined }, 0);
  settle(b);
  const accepted = write(b, 2, 2);
  settle(b);
  t.strictSame(accepted, [BLOCK_BYTES], "a punched page gives room");
  t.end();
});

void t.test("refused: two changes in flight to one page", (t) => {
  const b = bench(1);
  write(b, 1, 1);
  t.throws(
    () => write(b, 1, 2),
    new Violation("I19", "a second change of page 1 was asked for while one is in flight"),
  );
  t.end();
});

void t.test("refused: memory given back while the disk works on it", (t) => {
  const b = bench(1);
  const memory = block(b.pool, 1, 8);
  b.disk.write(BLOCK_BYTES, memory, BLOCK_BYTES, { diskDone: () => undefined }, 0);
  t.throws(() => b.pool.free(memory), Violation);
  t.end();
});

void t.test("rot flips exactly one bit of data at rest", (t) => {
  const b = bench(1);
  write(b, 1, 1);
  settle(b);
  sync(b);
  settle(b);
  const before = simMemory().bytes.slice(b.device.contentOf(1), b.device.contentOf(1) + BLOCK_BYTES);
  while (!b.device.rot());
  const after = simMemory().bytes.subarray(b.device.contentOf(1), b.device.contentOf(1) + BLOCK_BYTES);
  let bits = 0;
  for (let i = 0; i < BLOCK_BYTES; i++) {
    for (let diff = before[i]! ^ after[i]!; diff !== 0; diff &= diff - 1) bits++;
  }
  t.equal(bits, 1);
  t.end();
});
