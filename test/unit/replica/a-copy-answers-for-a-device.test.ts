import fc from "fast-check";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { RecordAcceptor } from "../../../lib/replica/acceptor.js";
import type { AcceptorPeer } from "../../../lib/replica/api.js";
import {
  DeviceRegistration,
  decodeDevice,
  deviceKeyOf,
  encodeRetired,
  isDeviceKey,
  OWN_TOKENS_KEY,
} from "../../../lib/replica/identity.js";
import { RecordRegister } from "../../../lib/replica/register.js";
import { Engine } from "../store/support/engine.js";
import { Pages } from "./support/pages.js";

const NODE = "ab".repeat(16);

/** Config nodes, and openings of one device and its copies. */
class Bench {
  readonly engine = new Engine(MIB);
  readonly down = new Set<number>();
  readonly acceptors = [0, 1, 2].map(
    () => new RecordAcceptor(new Pages(this.engine), { nameOf: () => null }),
  );
  #peers = 0;

  device(): Pages {
    return new Pages(this.engine);
  }

  copy(pages: Pages): Pages {
    const other = this.device();
    for (const [key, bytes] of pages.pages) other.pages.set(key, bytes.slice());
    return other;
  }

  register(lag = 0): RecordRegister {
    const acceptors = this.acceptors.map((acceptor, i) => ({
      node: `${i}`.repeat(32),
      peer: this.#slow(acceptor, i, 10 * ((i + lag) % 3)),
    }));
    return new RecordRegister(this.engine, acceptors);
  }

  /** An opening; `lag` acceptors answer it later than the others. */
  open(pages: Pages, lag = 0, place = ""): DeviceRegistration {
    const peer = ++this.#peers;
    const registration = new DeviceRegistration({
      store: pages,
      clock: this.engine,
      // Openings at the same time draw different tokens and pauses.
      random: { u32: () => (this.engine.u32() * (2 * peer + 1)) >>> 0 },
      register: this.register(lag),
      node: NODE,
      peer,
      place,
      changed: () => undefined,
    });
    registration.start();
    return registration;
  }

  #slow(acceptor: RecordAcceptor, index: number, ms: number): AcceptorPeer {
    const late = <T>(
      done: (answer: T | { kind: "unknown" }) => void,
      ask: (answer: (answer: T) => void) => void,
    ) => {
      this.engine.setTimer(1 + ms, () => {
        if (this.down.has(index)) done({ kind: "unknown" });
        else ask((answer) => this.engine.setTimer(1, () => done(answer)));
      });
    };
    return {
      promise: (key, ballot, done) => late(done, (answer) => acceptor.promise(key, ballot, answer)),
      accept: (key, record, done) => late(done, (answer) => acceptor.accept(key, record, answer)),
    };
  }
}

/** An opening that ends. */
function openAndClose(bench: Bench, pages: Pages): void {
  const registration = bench.open(pages);
  bench.engine.advance(5000);
  t.equal(registration.standing, "registered");
  registration.stop();
}

void t.test("a device is registered by each of its openings", async (t) => {
  const bench = new Bench();
  const pages = bench.device();
  for (let i = 0; i < 4; i++) openAndClose(bench, pages);
  bench.down.add(2);
  openAndClose(bench, pages);
  t.ok(isDeviceKey(deviceKeyOf(NODE)));
  t.notOk(isDeviceKey(OWN_TOKENS_KEY));
});

void t.test("an old backup is quarantined, and nothing on it changes", async (t) => {
  const bench = new Bench();
  const pages = bench.device();
  openAndClose(bench, pages);
  const backup = bench.copy(pages);
  const before = [...backup.pages];
  openAndClose(bench, pages);
  const registration = bench.open(backup);
  bench.engine.advance(100_000);
  t.equal(registration.standing, "quarantined");
  t.same([...backup.pages], before);
  registration.stop();
  openAndClose(bench, pages);
});

void t.test(
  "a device that the config nodes never heard of, but that knows a token, is quarantined",
  async (t) => {
    const elsewhere = new Bench();
    const pages = elsewhere.device();
    openAndClose(elsewhere, pages);
    const bench = new Bench();
    const foreign = bench.copy(pages);
    const registration = bench.open(foreign);
    bench.engine.advance(5000);
    t.equal(registration.standing, "quarantined");
  },
);

void t.test("of two copies one is registered, and the other is told when it was", async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.nat(400),
      fc.nat(2),
      fc.nat(2),
      fc.boolean(),
      fc.array(fc.tuple(fc.nat(2), fc.nat(300)), { maxLength: 4 }),
      async (gap, lagA, lagB, wasRegistered, outages) => {
        const bench = new Bench();
        const pages = bench.device();
        if (wasRegistered) openAndClose(bench, pages);
        const copy = bench.copy(pages);
        const a = bench.open(pages, lagA);
        bench.engine.advance(gap);
        const b = bench.open(copy, lagB);
        for (const [node, ms] of outages) {
          bench.down.add(node);
          bench.engine.advance(ms);
          if (a.standing === "registered" && b.standing === "registered") {
            // The first one has not renewed its lease since: as its node does, it hears what was promised.
            for (const one of [a, b]) {
              const epochs = bench.acceptors.map((acceptor) => acceptor.state(one.key).promised.epoch);
              one.promised(Math.max(...epochs));
            }
          }
          bench.down.delete(node);
        }
        bench.engine.advance(10_000);
        for (const one of [a, b]) {
          const epochs = bench.acceptors.map((acceptor) => acceptor.state(one.key).promised.epoch);
          one.promised(Math.max(...epochs));
        }
        bench.engine.advance(10_000);
        const standings = [a.standing, b.standing].sort();
        t.strictSame(standings, ["quarantined", "registered"], `gap ${gap}`);
        a.stop();
        b.stop();
      },
    ),
    { numRuns: 60 },
  );
});

t.test("the config nodes know where the node of a device was reached last", async (t) => {
  const bench = new Bench();
  const pages = bench.device();
  for (const place of ["10.0.0.7:10811", "[fd00::7]:10811"]) {
    const registration = bench.open(pages, 0, place);
    bench.engine.advance(5000);
    t.equal(registration.standing, "registered");
    registration.stop();
    for (const acceptor of bench.acceptors) {
      const [known] = acceptor.devices();
      t.equal(known!.key, deviceKeyOf(NODE));
      t.match(decodeDevice(known!.accepted.bytes), { node: NODE, place });
    }
  }
});

t.test(
  "a device that was taken out of the cluster answers for nothing, now and at its next opening",
  async (t) => {
    const bench = new Bench();
    const pages = bench.device();
    const registration = bench.open(pages);
    bench.engine.advance(5000);
    const key = deviceKeyOf(NODE);
    const ballot = { epoch: 1000, owner: 999 };
    const register = bench.register();
    register.promise(key, ballot, (outcome) => {
      t.equal(outcome.kind, "promised");
      register.accept(key, { ballot, generation: 1000, bytes: encodeRetired(NODE) }, () => undefined);
    });
    bench.engine.advance(1000);
    // What a renewal of its lease tells it.
    registration.promised(ballot.epoch);
    bench.engine.advance(5000);
    t.equal(registration.standing, "quarantined");
    registration.stop();
    const again = bench.open(pages);
    bench.engine.advance(5000);
    t.equal(again.standing, "quarantined");
    again.stop();
  },
);
