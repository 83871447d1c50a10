import t from "tap";
import { History } from "./support/history.js";
import { decodeSectors, encodeSectors, GARBAGE, SECTOR_BYTES, ZEROS } from "./support/sector-codec.js";

/** What one read of a sector tells the history; true when it found nothing wrong. */
function reads(history: History, sector: number, value: number): boolean {
  const before = history.violationCount;
  history.endRead(history.beginRead(sector, 1), Int32Array.of(value));
  return history.violationCount === before;
}

t.test("sectors tell who wrote them", async (t) => {
  const bytes = encodeSectors(7, 100, 3);
  t.same([...decodeSectors(bytes, 100)], [7, 7, 7]);
  t.same([...decodeSectors(bytes, 101)], [GARBAGE, GARBAGE, GARBAGE], "at another address");
  bytes[SECTOR_BYTES + 400]! ^= 1;
  t.same([...decodeSectors(bytes, 100)], [7, GARBAGE, 7], "one bit");
  const torn = Buffer.concat([encodeSectors(7, 5, 1).subarray(0, 256), encodeSectors(8, 5, 1).subarray(256)]);
  t.same([...decodeSectors(torn, 5)], [GARBAGE], "torn");
  t.same([...decodeSectors(Buffer.alloc(SECTOR_BYTES), 0)], [ZEROS]);
});

t.test("an acknowledged write must be there", async (t) => {
  const history = new History(8);
  t.ok(reads(history, 0, ZEROS));
  const write = history.begin("write", 0, 4);
  history.acknowledge(write);
  t.ok(reads(history, 3, write.id));
  t.notOk(reads(history, 3, ZEROS), "zeros are gone");
  t.ok(reads(history, 4, ZEROS), "its neighbour has not changed");
  t.notOk(reads(history, 4, write.id));
});

t.test("an older write does not come back", async (t) => {
  const history = new History(1);
  const first = history.begin("write", 0, 1);
  history.acknowledge(first);
  const second = history.begin("write", 0, 1);
  t.ok(reads(history, 0, first.id), "the second is not acknowledged yet");
  t.ok(reads(history, 0, second.id), "but may be there already");
  history.acknowledge(second);
  t.notOk(reads(history, 0, first.id));
});

t.test("of two concurrent writes either stays, once and for all", async (t) => {
  const history = new History(1);
  const [a, b] = [history.begin("write", 0, 1), history.begin("write", 0, 1)];
  history.acknowledge(a);
  history.acknowledge(b);
  t.ok(reads(history, 0, a.id));
  t.notOk(reads(history, 0, b.id), "the first read has settled it");
});

t.test("an unfinished write may have happened, and is settled by a read", async (t) => {
  for (const seen of ["old", "new"] as const) {
    const history = new History(1);
    const old = history.begin("write", 0, 1);
    history.acknowledge(old);
    const unfinished = history.begin("write", 0, 1);
    history.settleUnfinished();
    const [first, other] = seen === "old" ? [old.id, unfinished.id] : [unfinished.id, old.id];
    t.ok(reads(history, 0, first));
    t.notOk(reads(history, 0, other));
  }
});

t.test("an unfinished write of an earlier life does not undo a later one", async (t) => {
  const history = new History(1);
  const unfinished = history.begin("write", 0, 1);
  history.settleUnfinished();
  const later = history.begin("write", 0, 1);
  history.acknowledge(later);
  t.notOk(reads(history, 0, unfinished.id));
  t.ok(reads(history, 0, later.id));
});

t.test("before it is settled an unfinished write may still land", async (t) => {
  const history = new History(1);
  const unfinished = history.begin("write", 0, 1);
  const later = history.begin("write", 0, 1);
  history.acknowledge(later);
  t.ok(reads(history, 0, unfinished.id));
  t.ok(reads(history, 0, later.id));
});

t.test("TRIM may do nothing, WRITE_ZEROES may not", async (t) => {
  const history = new History(2);
  const write = history.begin("write", 0, 2);
  history.acknowledge(write);
  history.acknowledge(history.begin("trim", 0, 1));
  t.ok(reads(history, 0, write.id));
  t.notOk(reads(history, 0, ZEROS), "settled: it was ignored");
  history.acknowledge(history.begin("zero", 1, 1));
  t.notOk(reads(history, 1, write.id));
});

t.test("a slow read may see what began and was superseded meanwhile", async (t) => {
  const history = new History(1);
  const reading = history.beginRead(0, 1);
  const first = history.begin("write", 0, 1);
  history.acknowledge(first);
  const second = history.begin("write", 0, 1);
  history.acknowledge(second);
  history.endRead(reading, Int32Array.of(first.id));
  t.equal(history.violationCount, 0);
  t.notOk(reads(history, 0, first.id), "a later read may not");
});

t.test("garbage is never legal", async (t) => {
  const history = new History(1);
  history.begin("write", 0, 1);
  t.notOk(reads(history, 0, GARBAGE));
});
