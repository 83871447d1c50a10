/** Node's timers are early by up to a millisecond; what compares the time with its own deadline then waits on for ever. */
import t from "tap";
import { systemClock } from "../../../lib/uring/system-clock.js";

const TIMERS = 200;
const DELAY_MS = 20;

void t.test("no timer fires before its time, whenever it is set", async (t) => {
  const clock = systemClock((event) => event());
  let early = 0;
  const pending: Promise<void>[] = [];
  for (let i = 0; i < TIMERS; i++) {
    // At fractions of a millisecond that all differ.
    await new Promise((resolve) => setTimeout(resolve, 1));
    const due = clock.now() + DELAY_MS;
    pending.push(
      new Promise((resolve) => {
        clock.setTimer(DELAY_MS, () => {
          if (clock.now() < due) early++;
          resolve();
        });
      }),
    );
  }
  await Promise.all(pending);
  t.equal(early, 0, `${early} of ${TIMERS} timers were early`);
});

void t.test("a cancelled timer does not fire, also when it had been armed again", async (t) => {
  const clock = systemClock((event) => event());
  let afterCancel = 0;
  for (let i = 0; i < 20; i++) {
    let cancelled = false;
    const timer = clock.setTimer(5, () => {
      if (cancelled) afterCancel++;
    });
    // About when it falls due: some fire before, some are cancelled.
    await new Promise((resolve) => setTimeout(resolve, 5));
    cancelled = true;
    timer.cancel();
  }
  await new Promise((resolve) => setTimeout(resolve, 30));
  t.equal(afterCancel, 0);
});
