import fc from "fast-check";
import t from "tap";
import { BLOCK_BYTES, MIB } from "../../../lib/core/limits.js";
import { Pool } from "../../../lib/core/pool.js";

t.test("buffers never overlap, are aligned, and all come back", async (t) => {
  const step = fc.oneof(
    fc.record({ take: fc.integer({ min: 1, max: MIB }) }),
    fc.record({ take: fc.integer({ min: 1, max: 3 * BLOCK_BYTES }) }),
    fc.record({ give: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const pool = new Pool(new Uint8Array(4 * MIB));
      const held = new Map<number, number>();
      for (const what of steps) {
        if ("take" in what) {
          const at = pool.allocate(what.take);
          if (at < 0) continue;
          const end = at + Pool.capacityOf(what.take);
          if (at % BLOCK_BYTES !== 0 || end > pool.capacityBytes) return false;
          for (const [from, to] of held) if (at < to && from < end) return false;
          held.set(at, end);
        } else if (held.size > 0) {
          const at = [...held.keys()][what.give % held.size]!;
          held.delete(at);
          pool.free(at);
        }
        let bytes = pool.capacityBytes;
        for (const [from, to] of held) bytes -= to - from;
        if (bytes !== pool.freeBytes) return false;
      }
      for (const at of held.keys()) pool.free(at);
      // Everything has merged again: as many whole pieces as in the beginning.
      return [0, 1, 2, 3].every(() => pool.allocate(MIB) >= 0) && pool.allocate(1) === -1;
    }),
  );
  t.pass("model agrees");
});

t.test("freeing twice or nowhere is found", async (t) => {
  const pool = new Pool(new Uint8Array(MIB));
  const at = pool.allocate(8192);
  pool.free(at);
  t.throws(() => pool.free(at), /not allocated/);
  t.throws(() => pool.free(4096), /not allocated/);
  t.throws(() => pool.free(1), /not allocated/);
});

t.test(
  "waiters are told once each, in order, and one that waits again is not asked in the same turn",
  async (t) => {
    const pool = new Pool(new Uint8Array(MIB));
    const at = pool.allocate(MIB);
    const told: string[] = [];
    const again = {
      poolHasRoom(): void {
        told.push("a");
        pool.wait(again);
      },
    };
    pool.wait(again);
    pool.wait({ poolHasRoom: () => void told.push("b") });
    pool.free(at);
    t.same(told, ["a", "b"]);
    pool.free(pool.allocate(1));
    t.same(told, ["a", "b", "a"]);
  },
);
