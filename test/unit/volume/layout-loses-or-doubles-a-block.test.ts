import fc from "fast-check";
import t from "tap";
import { Layout } from "../../../lib/volume/layout.js";

const shapes = fc
  .record({
    extentPower: fc.integer({ min: 2, max: 6 }),
    unitPower: fc.integer({ min: 0, max: 6 }),
    stripeCount: fc.integer({ min: 1, max: 7 }),
  })
  .map(({ extentPower, unitPower, stripeCount }) => {
    const extentBlocks = 1 << extentPower;
    return new Layout(extentBlocks, stripeCount, Math.min(1 << unitPower, extentBlocks));
  });

t.test("every volume block has a place of its own, and runs are contiguous", async (t) => {
  fc.assert(
    fc.property(shapes, (layout) => {
      const total = layout.groupBlocks * 3;
      const taken = new Set<number>();
      for (let block = 0; block < total; block++) {
        layout.locate(block);
        const { extent, block: inside, run } = layout;
        if (inside < 0 || inside >= layout.extentBlocks || run < 1) return false;
        taken.add(extent * layout.extentBlocks + inside);
        if (layout.volumeBlockOf(extent, inside) !== block) return false;
        if (run > 1) {
          layout.locate(block + 1);
          if (layout.extent !== extent || layout.block !== inside + 1) return false;
        }
      }
      return taken.size === total && Math.max(...taken) === total - 1;
    }),
  );
  t.pass("bijection");
});

t.test("coveredFrom tells exactly which blocks of each extent a range covers", async (t) => {
  fc.assert(
    fc.property(shapes, fc.nat(), fc.nat(), (layout, a, b) => {
      const from = a % (layout.groupBlocks + 1);
      const to = from + (b % (layout.groupBlocks - from + 1));
      for (let column = 0; column < layout.stripeCount; column++) {
        const covered = new Set<number>();
        for (let block = from; block < to; block++) {
          layout.locate(block);
          if (layout.extent === column) covered.add(layout.block);
        }
        const low = layout.coveredFrom(from, column);
        const high = layout.coveredFrom(to, column);
        if (covered.size !== Math.max(0, high - low)) return false;
        for (let block = low; block < high; block++) if (!covered.has(block)) return false;
      }
      return true;
    }),
  );
  t.pass("ranges");
});
