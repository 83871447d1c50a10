/**
 * Crash replay: a short workload is run again and again, ended after each of its events in turn, by a kill and by
 * power losses that leave different states; each time the device is opened with the real code, everything is
 * read, and it is checked offline. What the workload's clients had been promised by then decides what may be found.
 */
import { type CrashPoint, FEATURES, type Feature, type FrontKind } from "./config.js";
import { run } from "./run.js";
import type { Failure } from "./seeds.js";
import type { Subject } from "./subject.js";

/** States per event that a power loss is made to leave. */
const POWER_LOSSES = 3;
/** Operations of the workload: few, so that every event can be tried. */
const OPERATIONS = 16;
/** A second life ends within this many events; one that has to upgrade the device first, within so many more. */
const SECOND_LIFE_EVENTS = 150;
const UPGRADE_EVENTS = 250;
/** Left out: nothing but the crash goes wrong. */
const FAULTS: readonly Feature[] = FEATURES.slice(FEATURES.indexOf("kill-while-opening"));

export interface ReplayResult {
  readonly images: number;
  readonly events: number;
  readonly failure: (Failure & { readonly crash: CrashPoint }) | null;
}

/** `step`: every so many events; `stop`: asked before each crash, ends the replay early. */
export async function replay(
  subject: Subject,
  seed: number,
  front: FrontKind,
  step = 1,
  stop: () => boolean = () => false,
): Promise<ReplayResult> {
  const options = { seed, front, operations: OPERATIONS, without: FAULTS };
  const whole = await run(subject, {
    ...options,
    crash: { event: Number.MAX_SAFE_INTEGER, kind: "kill", variant: 0, again: 0 },
  });
  const lifeEvents = whole.coverage.get("replay:life-events");
  const secondLife = SECOND_LIFE_EVENTS + (whole.config.features.has("old-format") ? UPGRADE_EVENTS : 0);
  let images = 0;
  let events = 0;
  for (let event = 1; event <= lifeEvents && !(images > 0 && stop()); event += step) {
    for (let variant = 0; variant <= POWER_LOSSES; variant++) {
      // The last two states get a second, shorter life before everything is checked.
      const again = variant < 2 ? 0 : 1 + ((event * 37 + variant * 11) % secondLife);
      const crash: CrashPoint = { event, kind: variant === 0 ? "kill" : "power", variant, again };
      const { violation, coverage } = await run(subject, { ...options, crash });
      images++;
      events += coverage.events;
      if (violation === null) continue;
      const { invariant, words, message } = violation;
      return { images, events, failure: { seed, invariant, words, message, crash } };
    }
  }
  return { images, events, failure: null };
}

export function replayOptions(seed: number, front: FrontKind, crash: CrashPoint) {
  return { seed, front, operations: OPERATIONS, without: FAULTS, crash };
}
