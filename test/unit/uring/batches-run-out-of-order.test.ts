import { join } from "node:path";
import t from "tap";
import { KIB, MIB } from "../../../lib/core/limits.js";
import { diskRead, onEachEngine } from "./support/engines.js";

onEachEngine(
  t,
  "tasks run in the order of their asking, those of tasks in the same batch",
  async (t, engine) => {
    const order: string[] = [];
    const done = new Promise<void>((resolve) => {
      engine.atTickEnd({
        tick() {
          order.push("a");
          engine.atTickEnd({ tick: () => order.push("c") });
          setImmediate(() => {
            order.push("next pass");
            resolve();
          });
        },
      });
      engine.atTickEnd({ tick: () => order.push("b") });
    });
    t.same(order, [], "not inside the call that asked");
    await done;
    t.same(order, ["a", "b", "c", "next pass"]);
  },
);

onEachEngine(t, "completions that arrive together share one end of batch", async (t, engine) => {
  const { disk } = await engine.openDisk({ path: join(t.testdir(), "disk"), createBytes: MIB });
  const memory = engine.pool.allocate(64 * KIB);
  let ticks = 0;
  let asked = false;
  let insideTick = false;
  const task = {
    tick(): void {
      ticks++;
      asked = false;
      insideTick = true;
      // What a task asks for completes later, never inside it.
      insideTick = false;
    },
  };
  const count = 256;
  let completed = 0;
  await new Promise<void>((resolve) => {
    const listener = {
      diskDone(): void {
        if (insideTick) t.fail("delivered inside a task");
        completed++;
        if (!asked) {
          asked = true;
          engine.atTickEnd(task);
        }
        if (completed === count) engine.atTickEnd({ tick: resolve });
      },
    };
    for (let i = 0; i < count; i++)
      disk.read((i % 16) * 4 * KIB, memory + (i % 16) * 4 * KIB, 4 * KIB, listener, i);
  });
  t.equal(completed, count);
  t.ok(ticks < count, `${count} completions in ${ticks} batches`);
  disk.close();
});

onEachEngine(t, "what a task asks of a disk is submitted by the same batch", async (t, engine) => {
  const { disk } = await engine.openDisk({ path: join(t.testdir(), "disk"), createBytes: MIB });
  const memory = engine.pool.allocate(4 * KIB);
  const result = await new Promise<number>((resolve) => {
    engine.atTickEnd({
      tick() {
        void diskRead(disk, 0, memory, 4 * KIB).then(resolve);
      },
    });
  });
  t.equal(result, 4 * KIB);
  disk.close();
});

onEachEngine(t, "timers fire once, in a batch, not when cancelled", async (t, engine) => {
  const { clock } = engine;
  const events: string[] = [];
  const before = clock.now();
  const cancelled = clock.setTimer(5, () => events.push("cancelled"));
  await new Promise<void>((resolve) => {
    clock.setTimer(10, () => {
      events.push("timer");
      engine.atTickEnd({
        tick() {
          events.push("end of its batch");
          resolve();
        },
      });
    });
    cancelled.cancel();
  });
  t.same(events, ["timer", "end of its batch"]);
  t.ok(clock.now() - before >= 9, "not early");
  t.ok(Math.abs(clock.wall() - Date.now()) < 60_000);
  cancelled.cancel();
});

onEachEngine(t, "a listener that throws loses no other completion", async (t, engine) => {
  const { disk } = await engine.openDisk({ path: join(t.testdir(), "disk"), createBytes: MIB });
  const memory = engine.pool.allocate(4 * KIB);
  const thrown: unknown[] = [];
  // Tap watches for uncaught exceptions too: this one is expected.
  const others = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (error) => thrown.push(error));
  const count = 32;
  let completed = 0;
  await new Promise<void>((resolve) => {
    const listener = {
      diskDone(tag: number): void {
        completed++;
        if (completed === count) engine.atTickEnd({ tick: resolve });
        if (tag === 3) throw new Error("from a listener");
      },
    };
    for (let i = 0; i < count; i++) disk.read(0, memory, 4 * KIB, listener, i);
  });
  await new Promise((resolve) => setImmediate(resolve));
  process.removeAllListeners("uncaughtException");
  for (const listener of others) process.on("uncaughtException", listener);
  t.equal(completed, count);
  t.match(thrown, [{ message: "from a listener" }]);
  disk.close();
});

onEachEngine(t, "random numbers differ and fill 32 bits", async (t, engine) => {
  let bits = 0;
  const seen = new Set<number>();
  for (let i = 0; i < 5000; i++) {
    const number = engine.random.u32();
    bits |= number;
    seen.add(number);
  }
  t.equal(bits, -1);
  t.ok(seen.size > 4990);
});

onEachEngine(t, "a full pool wakes those who wait, and counters count", async (t, engine) => {
  const { pool } = engine;
  const held: number[] = [];
  for (let at = pool.allocate(MIB); at >= 0; at = pool.allocate(MIB)) held.push(at);
  t.equal(pool.freeBytes, 0);
  const room = new Promise<void>((resolve) => pool.wait({ poolHasRoom: resolve }));
  pool.free(held.pop()!);
  await room;
  for (const at of held) pool.free(at);
  t.equal(pool.freeBytes, pool.capacityBytes);
  for (const value of Object.values(engine.stats())) t.equal(typeof value, "number");
});
