import t from "tap";
import { EVENTS_IN_MEMORY } from "../../../lib/catalog/events.js";
import { compareEventIds, EventLog } from "../../../lib/catalog/index.js";

t.test("ids rise with a clock that stands, jumps and goes back", async (t) => {
  let now = 1000;
  const log = new EventLog(() => now);
  const ids: string[] = [];
  for (const next of [1000, 1000, 2000, 1500, 1500, 2000, 3000]) {
    now = next;
    ids.push(log.record("volume-created", "v", "created").id);
  }
  for (let i = 1; i < ids.length; i++) t.ok(compareEventIds(ids[i]!, ids[i - 1]!) > 0, `${ids[i]}`);
});

t.test("and above what an earlier life wrote into the stream", async (t) => {
  const log = new EventLog(() => 1000);
  log.raiseFloor("5000-7");
  t.equal(log.record("volume-created", null, "x").id, "5000-8");
  log.raiseFloor("10-0");
  t.equal(log.record("volume-created", null, "x").id, "5000-9");
});

t.test("what is kept is bounded, and asked for by id", async (t) => {
  const log = new EventLog(() => 1);
  for (let i = 0; i < EVENTS_IN_MEMORY + 5; i++) log.record("volume-created", null, `${i}`);
  const all = log.after("0-0");
  t.equal(all.length, EVENTS_IN_MEMORY);
  t.equal(all.at(-1)?.text, `${EVENTS_IN_MEMORY + 4}`);
  t.same(
    log.after(all.at(-3)!.id).map((event) => event.text),
    all.slice(-2).map((event) => event.text),
  );
  t.same(log.after(all.at(-1)!.id), []);
  t.equal(log.after("0-0", 2).length, 2);
});
