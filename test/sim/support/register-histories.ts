/** Random histories of one register: right ones, made by a register that does what it should, and wrong ones. */
import { History } from "../history.js";
import type { Prng } from "../prng.js";
import { Violation } from "../violation.js";
import type { HistoryEvent } from "./brute-force.js";

interface Pending {
  readonly op: number;
  readonly kind: "write" | "read" | "flush";
  readonly zeros: boolean;
  readonly fua: boolean;
  /** Write: whether it has taken effect. */
  done: boolean;
  /** Read: what it has seen; flush: the effect it covers. */
  seen: number;
}

export interface HistoryShape {
  readonly events: number;
  readonly zeros: boolean;
  readonly crashes: boolean;
}

/** A history that a correct register produced. */
export function rightHistory(random: Prng, shape: HistoryShape): HistoryEvent[] {
  const events: HistoryEvent[] = [];
  let effects = [{ at: 0, value: 0, op: 0 }];
  let pending: Pending[] = [];
  let ops = 0;
  const settle = (at: number): void => {
    effects = effects.filter((effect) => effect.at >= at);
  };
  const effect = (write: Pending): void => {
    write.done = true;
    effects.push({ at: effects.at(-1)!.at + 1, value: write.zeros ? 0 : write.op, op: write.op });
  };
  while (events.length < shape.events) {
    const roll = random.below(20);
    if (shape.crashes && roll === 0) {
      for (const write of pending)
        if (write.kind === "write" && !write.done && random.chance(0.5)) effect(write);
      pending = [];
      if (random.chance(0.5)) events.push({ kind: "kill" });
      else {
        effects = [random.pick(effects)];
        events.push({ kind: "power" });
      }
    } else if (roll < 9 && pending.length < 4) {
      const op = ++ops;
      const kind = random.pick(["write", "write", "write", "read", "read", "flush"] as const);
      const zeros = shape.zeros && random.chance(0.3);
      const fua = random.chance(0.2);
      pending.push({ op, kind, zeros, fua, done: false, seen: effects.at(-1)!.at });
      events.push(kind === "write" ? { kind, op, zeros, fua } : { kind, op });
    } else if (pending.length > 0) {
      const one = random.pick(pending);
      if (one.kind === "write" && !one.done) {
        if (random.chance(0.1)) {
          events.push({ kind: "failed", op: one.op });
          pending = pending.filter((other) => other !== one);
        } else effect(one);
        continue;
      }
      pending = pending.filter((other) => other !== one);
      if (one.kind === "write") {
        events.push({ kind: "written", op: one.op });
        const own = effects.find((other) => other.op === one.op);
        if (one.fua && own !== undefined) settle(own.at);
      } else if (one.kind === "read") {
        events.push({ kind: "seen", op: one.op, value: effects.at(-1)!.value });
      } else {
        events.push({ kind: "flushed", op: one.op });
        settle(one.seen);
      }
    }
  }
  return events;
}

/** The same with one read that claims to have seen something else. */
export function wrongHistory(random: Prng, right: readonly HistoryEvent[]): HistoryEvent[] {
  const reads = right.filter((event) => event.kind === "seen");
  if (reads.length === 0) return [...right];
  const changed = random.pick(reads);
  const values = [0, ...right.flatMap((event) => (event.kind === "write" && !event.zeros ? [event.op] : []))];
  return right.map((event) => (event === changed ? { ...changed, value: random.pick(values) } : event));
}

/** What the checker says of a history: null, or the violation. */
export function judge(events: readonly HistoryEvent[]): Violation | null {
  const history = new History(1);
  history.create(0);
  const invoked = new Map<number, number>();
  const open = new Set<number>();
  const fua = new Set<number>();
  const oldest = (): number => Math.min(Number.POSITIVE_INFINITY, ...[...open].map((op) => invoked.get(op)!));
  try {
    for (const event of events) {
      if (event.kind === "kill" || event.kind === "power") {
        open.clear();
        history.oldestReadAt = oldest();
        if (event.kind === "kill") history.kill();
        else history.powerLoss();
        continue;
      }
      const at = history.tick();
      switch (event.kind) {
        case "write":
          history.invoke(0, event.op, event.zeros ? 0 : event.op, at);
          if (event.fua) fua.add(event.op);
          break;
        case "written":
          history.acknowledge(0, event.op, at, fua.has(event.op));
          break;
        case "failed":
          history.doubt(0, event.op, at);
          break;
        case "read":
          open.add(event.op);
          invoked.set(event.op, at);
          break;
        case "flush":
          invoked.set(event.op, at);
          break;
        case "flushed":
          history.flushed(invoked.get(event.op)!);
          break;
        case "seen":
          open.delete(event.op);
          history.read(0, event.value, invoked.get(event.op)!, at);
          break;
      }
      history.oldestReadAt = oldest();
    }
  } catch (error) {
    if (error instanceof Violation) return error;
    throw error;
  }
  return null;
}
