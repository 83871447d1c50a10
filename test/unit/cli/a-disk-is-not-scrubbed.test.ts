/** The schedule of scrubs, with a clock that the test moves: what is due outlives restarts and odd files. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import {
  CHECK_INTERVAL_MS,
  QUIET_AFTER_START_MS,
  SCRUB_PERIOD_MS,
  ScrubSchedule,
} from "../../../lib/cli/serve/scrub-schedule.js";
import type { Clock } from "../../../lib/core/clock.js";
import type { StoreStats } from "../../../lib/store/api.js";
import { MapStore } from "../admin/support/sources.js";

const PACE = 1000;
const DAY_MS = SCRUB_PERIOD_MS / 14;
const BEGINNING = Date.parse("2030-01-01T00:00:00.000Z");

/** One timer is all that a schedule has. */
class HandClock implements Clock {
  #now = 0;
  /** Between wall clock and steady clock. */
  offset = BEGINNING;
  #timer: { at: number; fire: () => void } | null = null;

  now(): number {
    return this.#now;
  }

  wall(): number {
    return this.#now + this.offset;
  }

  setTimer(delayMs: number, fire: () => void) {
    const timer = { at: this.#now + delayMs, fire };
    this.#timer = timer;
    return {
      cancel: () => {
        if (this.#timer === timer) this.#timer = null;
      },
    };
  }

  pass(ms: number): void {
    const end = this.#now + ms;
    while (this.#timer !== null && this.#timer.at <= end) {
      const { at, fire } = this.#timer;
      this.#now = at;
      this.#timer = null;
      fire();
    }
    this.#now = end;
  }

  get isWaiting(): boolean {
    return this.#timer !== null;
  }
}

class ScrubStore extends MapStore {
  readonly #clock: Clock;
  scrub: StoreStats["scrub"] = { running: false, passes: 0, lastPassEndedAt: 0 };
  lossy = false;
  liveSlots = 8;

  constructor(clock: Clock) {
    super();
    this.#clock = clock;
  }

  override startScrub(pace: number): void {
    super.startScrub(pace);
    this.scrub = { ...this.scrub, running: true };
  }

  endScrub(): void {
    this.scrub = { running: false, passes: this.scrub.passes + 1, lastPassEndedAt: this.#clock.wall() };
  }

  override stats(): StoreStats {
    const { scrub, lossy, liveSlots } = this;
    return { ...super.stats(), scrub, lossy, liveSlots };
  }
}

interface Life {
  readonly store: ScrubStore;
  readonly schedule: ScrubSchedule;
  readonly told: string[];
}

/** One life of a server. */
async function start(clock: Clock, path: string, deviceId = "d1"): Promise<Life> {
  const store = new ScrubStore(clock);
  const told: string[] = [];
  const schedule = await ScrubSchedule.open({
    clock,
    store,
    deviceId,
    path,
    pace: PACE,
    onStarted: () => told.push("started"),
    onEnded: () => told.push("ended"),
    onUnsaved: (reason) => told.push(reason),
  });
  return { store, schedule, told };
}

const fileIn = (t: Test): string => join(t.testdir({}), "scrub.json");

t.test("every 14 days, and not before", async (t) => {
  const clock = new HandClock();
  const { store, schedule, told } = await start(clock, fileIn(t));
  t.same(schedule.status(), { running: false, lastEndedAt: null, nextAt: BEGINNING + SCRUB_PERIOD_MS });
  clock.pass(SCRUB_PERIOD_MS - CHECK_INTERVAL_MS);
  t.same(store.scrubs, []);
  clock.pass(CHECK_INTERVAL_MS);
  t.same(store.scrubs, [PACE]);
  clock.pass(3 * DAY_MS);
  t.same(store.scrubs, [PACE], "one that runs is left alone");
  store.endScrub();
  const endedAt = clock.wall();
  clock.pass(CHECK_INTERVAL_MS);
  t.same(schedule.status(), { running: false, lastEndedAt: endedAt, nextAt: endedAt + SCRUB_PERIOD_MS });
  clock.pass(SCRUB_PERIOD_MS - 2 * CHECK_INTERVAL_MS);
  t.same(store.scrubs.length, 1);
  clock.pass(CHECK_INTERVAL_MS);
  t.same(store.scrubs.length, 2);
  t.same(told, ["started", "ended", "started"]);
  await schedule.close();
  t.notOk(clock.isWaiting, "no timer is left");
});

t.test("a server that restarts every day scrubs as often as one that never does", async (t) => {
  const clock = new HandClock();
  const path = fileIn(t);
  let scrubs = 0;
  for (let day = 0; day < 60; day++) {
    const { store, schedule } = await start(clock, path);
    clock.pass(DAY_MS);
    if (store.scrub.running) {
      scrubs++;
      // Ended in the last moment: noticed when the schedule is closed.
      store.endScrub();
    }
    await schedule.close();
  }
  t.equal(scrubs, 4);
});

t.test("one that was cut short is begun again, once the server has had its time", async (t) => {
  const clock = new HandClock();
  const path = fileIn(t);
  const first = await start(clock, path);
  clock.pass(SCRUB_PERIOD_MS);
  t.equal(first.store.scrubs.length, 1);
  await first.schedule.close();
  const second = await start(clock, path);
  clock.pass(QUIET_AFTER_START_MS - CHECK_INTERVAL_MS);
  t.equal(second.store.scrubs.length, 0);
  clock.pass(CHECK_INTERVAL_MS);
  t.equal(second.store.scrubs.length, 1);
  await second.schedule.close();
});

t.test("an operator's scrub counts", async (t) => {
  const clock = new HandClock();
  const { store, schedule } = await start(clock, fileIn(t));
  clock.pass(10 * DAY_MS);
  store.startScrub(1);
  store.endScrub();
  clock.pass(10 * DAY_MS);
  t.same(store.scrubs, [1]);
  clock.pass(4 * DAY_MS);
  t.same(store.scrubs, [1, PACE]);
  await schedule.close();
});

t.test("not while the device is being settled, nor when it has failed", async (t) => {
  const clock = new HandClock();
  const { store, schedule } = await start(clock, fileIn(t));
  store.lossy = true;
  clock.pass(15 * DAY_MS);
  t.same(store.scrubs, []);
  store.lossy = false;
  store.failed = "fsync failed";
  clock.pass(DAY_MS);
  t.same(store.scrubs, []);
  store.failed = null;
  clock.pass(CHECK_INTERVAL_MS);
  t.same(store.scrubs, [PACE]);
  await schedule.close();
});

t.test("a large device is read faster, within half of the period", async (t) => {
  const clock = new HandClock();
  const { store, schedule } = await start(clock, fileIn(t));
  store.liveSlots = 25_000_000;
  clock.pass(SCRUB_PERIOD_MS);
  const [pace] = store.scrubs;
  const { slotBytes } = store.stats();
  t.equal(pace, Math.ceil((25_000_000 * slotBytes * 1000) / (SCRUB_PERIOD_MS / 2)));
  await schedule.close();
});

t.test("a clock that is set back delays by one period at most", async (t) => {
  const clock = new HandClock();
  const { store, schedule } = await start(clock, fileIn(t));
  clock.offset -= 1000 * DAY_MS;
  clock.pass(SCRUB_PERIOD_MS + CHECK_INTERVAL_MS);
  t.equal(store.scrubs.length, 1);
  await schedule.close();
});

t.test("files that are no schedule of this device begin a new one", async (t) => {
  const nextAt = "2029-01-01T00:00:00.000Z";
  const strange = [
    "",
    "{",
    "[]",
    "null",
    JSON.stringify({ device: "d1" }),
    JSON.stringify({ device: "d1", lastEndedAt: null, nextAt: "soon" }),
    JSON.stringify({ device: "d2", lastEndedAt: null, nextAt }),
  ];
  for (const text of strange) {
    const clock = new HandClock();
    const path = fileIn(t);
    writeFileSync(path, text);
    const { schedule } = await start(clock, path);
    t.equal(schedule.status().nextAt, BEGINNING + SCRUB_PERIOD_MS, text);
    t.match(JSON.parse(readFileSync(path, "utf8")), { device: "d1", lastEndedAt: null });
    await schedule.close();
  }
});

t.test("a directory that cannot be written to is told once, and tried again", async (t) => {
  const clock = new HandClock();
  const directory = join(t.testdir({}), "missing");
  const path = join(directory, "scrub.json");
  const { schedule, told } = await start(clock, path);
  t.match(told, [/ENOENT/]);
  clock.pass(5 * CHECK_INTERVAL_MS);
  t.equal(told.length, 1);
  mkdirSync(directory);
  await schedule.close();
  t.ok(existsSync(path));
});
