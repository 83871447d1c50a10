import fc from "fast-check";
import t from "tap";
import { type LockOwner, RangeLock, RangeLocks } from "../../../lib/volume/range-lock.js";

class Holder implements LockOwner {
  readonly lock = new RangeLock(this);
  granted = false;
  released = false;
  readonly first: number;
  readonly end: number;
  readonly exclusive: boolean;
  constructor(first: number, end: number, exclusive: boolean) {
    this.first = first;
    this.end = end;
    this.exclusive = exclusive;
  }
  lockGranted(): void {
    this.granted = true;
  }
}

const conflict = (a: Holder, b: Holder): boolean =>
  (a.exclusive || b.exclusive) && a.first < b.end && b.first < a.end;

t.test("locks are granted exactly when no earlier conflicting one is left", async (t) => {
  const step = fc.record({
    // Few regions and far ones that share their buckets (1024 regions of 256 blocks apart).
    first: fc.oneof(
      fc.nat(600),
      fc.nat(600).map((n) => n + 1024 * 256),
    ),
    length: fc.integer({ min: 1, max: 700 }),
    exclusive: fc.boolean(),
    releases: fc.array(fc.nat(), { maxLength: 3 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const locks = new RangeLocks();
      const asked: Holder[] = [];
      const check = (): boolean =>
        asked.every((holder, i) => {
          if (holder.released) return true;
          const blocked = asked.slice(0, i).some((earlier) => !earlier.released && conflict(earlier, holder));
          return holder.granted === !blocked;
        });
      for (const { first, length, exclusive, releases } of steps) {
        const holder = new Holder(first, first + length, exclusive);
        asked.push(holder);
        if (locks.acquire(holder.lock, holder.first, holder.end, exclusive)) holder.granted = true;
        if (!check()) return false;
        for (const pick of releases) {
          const held = asked.filter((candidate) => candidate.granted && !candidate.released);
          if (held.length === 0) break;
          const victim = held[pick % held.length]!;
          victim.released = true;
          locks.release(victim.lock);
          if (!check()) return false;
        }
      }
      for (;;) {
        const victim = asked.find((candidate) => candidate.granted && !candidate.released);
        if (victim === undefined) break;
        victim.released = true;
        locks.release(victim.lock);
      }
      return locks.size === 0 && asked.every((holder) => holder.released);
    }),
    { numRuns: 500 },
  );
  t.pass("model agrees");
});
