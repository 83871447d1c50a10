import t from "tap";
import { askMajority } from "../../../lib/cluster/catalogue.js";
import type { DialEnvironment, NodePlace } from "../../../lib/cluster/dial.js";
import { keyOf } from "../../../lib/cluster/key.js";
import { hearNode, mostOf } from "../../../lib/cluster/patience.js";
import { Purpose } from "../../../lib/cluster/prelude.js";
import type { Clock } from "../../../lib/core/clock.js";

const KEY = keyOf(new Uint8Array(16).fill(1), new Uint8Array(32).fill(2));

/** Time passes when it is told to. */
class Hands implements Pick<Clock, "setTimer"> {
  #now = 0;
  readonly #timers = new Set<{ readonly at: number; readonly ring: () => void }>();

  setTimer(ms: number, ring: () => void) {
    const timer = { at: this.#now + ms, ring };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  async pass(ms: number): Promise<void> {
    this.#now += ms;
    for (const timer of [...this.#timers].filter(({ at }) => at <= this.#now)) {
      this.#timers.delete(timer);
      timer.ring();
    }
    await new Promise(setImmediate);
  }

  get waiting(): number {
    return this.#timers.size;
  }
}

const HANGS = new Promise<string>(() => undefined);

/** What has come of it; undefined: it still waits. */
function watched<T>(asked: Promise<T>): () => T | Error | undefined {
  let outcome: T | Error | undefined;
  asked.then(
    (value) => {
      outcome = value;
    },
    (error: Error) => {
      outcome = error;
    },
  );
  return () => outcome;
}

t.test("once enough have answered, those who hang are waited for a moment only", async (t) => {
  const hands = new Hands();
  const outcome = watched(mostOf(hands, [Promise.resolve("a"), HANGS, Promise.resolve("c")], 2));
  await hands.pass(0);
  await hands.pass(400);
  t.equal(outcome(), undefined);
  await hands.pass(200);
  t.same(outcome(), [{ status: "fulfilled", value: "a" }, null, { status: "fulfilled", value: "c" }]);
  t.equal(hands.waiting, 0);
});

t.test("when all have said something nobody waits", async (t) => {
  const hands = new Hands();
  const no = new Error("no");
  const outcome = watched(mostOf(hands, [Promise.resolve("a"), Promise.reject(no), Promise.reject(no)], 2));
  await hands.pass(0);
  const rejected = { status: "rejected", reason: no };
  t.same(outcome(), [{ status: "fulfilled", value: "a" }, rejected, rejected]);
  t.equal(hands.waiting, 0);
});

t.test("with too few answers it ends, too", async (t) => {
  const hands = new Hands();
  const outcome = watched(mostOf(hands, [Promise.resolve("a"), HANGS, HANGS], 2));
  await hands.pass(9999);
  t.equal(outcome(), undefined);
  await hands.pass(1);
  t.same(outcome(), [{ status: "fulfilled", value: "a" }, null, null]);
});

const PLACES: readonly NodePlace[] = [1, 2, 3].map((i) => ({
  node: `${i}`.repeat(32),
  address: { kind: "tcp", host: "127.0.0.1", port: 11000 + i },
}));

/** Whatever is connected to hangs. */
function hanging(hands: Hands): DialEnvironment {
  const connect = () => new Promise<never>(() => undefined);
  return { clock: hands, connect } as unknown as DialEnvironment;
}

t.test("a node that hangs is one that does not answer, by its address", async (t) => {
  const hands = new Hands();
  const heard = watched(hearNode(hanging(hands), KEY, PLACES[0]!));
  for (let second = 0; second < 6; second++) await hands.pass(1000);
  t.equal(heard(), "cannot connect to 127.0.0.1:11001: it does not answer");
  const majority = watched(askMajority(hanging(hands), KEY, PLACES, Purpose.Records));
  for (let second = 0; second < 11; second++) await hands.pass(1000);
  t.match(majority(), { code: "CLUSTER_UNREACHABLE" });
  for (const port of [11001, 11002, 11003]) t.match(String(majority()), `127.0.0.1:${port}`);
});
