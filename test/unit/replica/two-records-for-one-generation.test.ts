import fc from "fast-check";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { decodeState, encodeState, RecordAcceptor } from "../../../lib/replica/acceptor.js";
import type { AcceptedRecord, AcceptorPeer, Ballot } from "../../../lib/replica/api.js";
import { type AcceptOutcome, type PromiseOutcome, RecordRegister } from "../../../lib/replica/register.js";
import { Engine } from "../store/support/engine.js";
import { Pages } from "./support/pages.js";

const VOLUME = 7;
const text = (record: AcceptedRecord | null): string | null =>
  record === null ? null : new TextDecoder().decode(record.bytes);

const nameOf = (bytes: Uint8Array): string | null => new TextDecoder().decode(bytes).split("=")[0] || null;

function record(epoch: number, owner: number, generation: number, content: string): AcceptedRecord {
  return { ballot: { epoch, owner }, generation, bytes: new TextEncoder().encode(content) };
}

interface Bench {
  readonly engine: Engine;
  readonly pages: Pages[];
  readonly acceptors: RecordAcceptor[];
  /** Acceptors that do not answer. */
  readonly down: Set<number>;
  readonly register: RecordRegister;
}

function bench(count: number): Bench {
  const engine = new Engine(MIB);
  const pages = Array.from({ length: count }, () => new Pages(engine));
  const acceptors = pages.map((store) => new RecordAcceptor(store, { nameOf }));
  const down = new Set<number>();
  const peers = acceptors.map((_, i): AcceptorPeer => {
    const answerOr = <T>(
      done: (answer: T | { kind: "unknown" }) => void,
      ask: (done: (answer: T) => void) => void,
    ): void => {
      engine.complete(() => {
        if (down.has(i)) done({ kind: "unknown" });
        else ask((answer) => engine.complete(() => done(answer)));
      });
    };
    return {
      promise: (volume, ballot, done) =>
        answerOr(done, (then) => acceptors[i]!.promise(volume, ballot, then)),
      accept: (volume, one, done) => answerOr(done, (then) => acceptors[i]!.accept(volume, one, then)),
    };
  });
  const register = new RecordRegister(
    engine,
    peers.map((peer, i) => ({ node: String(i), peer })),
  );
  return { engine, pages, acceptors, down, register };
}

function promise(b: Bench, ballot: Ballot): PromiseOutcome | null {
  let got: PromiseOutcome | null = null;
  b.register.promise(VOLUME, ballot, (outcome) => {
    got = outcome;
  });
  b.engine.advance(600);
  return got;
}

function accept(b: Bench, one: AcceptedRecord, volume = VOLUME): AcceptOutcome | null {
  let got: AcceptOutcome | null = null;
  b.register.accept(volume, one, (outcome) => {
    got = outcome;
  });
  b.engine.advance(600);
  return got;
}

t.test("what a majority has accepted is what the next owner finds, whoever is down then", async (t) => {
  for (let first = 0; first < 3; first++) {
    for (let second = 0; second < 3; second++) {
      const b = bench(3);
      b.down.add(first);
      t.equal(promise(b, { epoch: 1, owner: 11 })?.kind, "promised");
      t.equal(accept(b, record(1, 11, 1, "a=1"))?.kind, "chosen");
      t.equal(accept(b, record(1, 11, 2, "a=2"))?.kind, "chosen");
      b.down.clear();
      b.down.add(second);
      const outcome = promise(b, { epoch: 2, owner: 22 });
      t.equal(
        outcome?.kind === "promised" ? text(outcome.highest) : "",
        "a=2",
        `down: ${first}, then ${second}`,
      );
      t.equal(accept(b, record(1, 11, 3, "a=3"))?.kind, "refused", "the older one is over");
      t.equal(accept(b, record(2, 22, 3, "b=3"))?.kind, "chosen");
    }
  }
});

t.test("without a majority nothing is answered; when it is back, everything is", async (t) => {
  const b = bench(3);
  b.down.add(0).add(1);
  let outcome: string | null = null;
  const asking = b.register.promise(VOLUME, { epoch: 1, owner: 11 }, ({ kind }) => {
    outcome = kind;
  });
  b.engine.advance(5000);
  t.equal(outcome, null);
  t.same([...asking.waitingFor], ["0", "1"]);
  b.down.clear();
  b.engine.advance(1000);
  t.equal(outcome, "promised");
  t.same([...asking.waitingFor], []);
});

t.test("an epoch belongs to one owner, a generation to one record", async (t) => {
  const b = bench(3);
  promise(b, { epoch: 4, owner: 11 });
  t.same(promise(b, { epoch: 4, owner: 22 }), { kind: "refused", promised: { epoch: 4, owner: 11 } });
  t.equal(accept(b, record(4, 11, 1, "a=1"))?.kind, "chosen");
  t.equal(accept(b, record(4, 11, 1, "a=1"))?.kind, "chosen", "the same again");
  t.equal(accept(b, record(4, 11, 1, "a=2"))?.kind, "refused");
  t.equal(accept(b, record(4, 22, 2, "a=2"))?.kind, "refused");
});

t.test("an acceptor that was down is fenced before it accepts", async (t) => {
  const b = bench(3);
  b.down.add(2);
  promise(b, { epoch: 1, owner: 11 });
  b.down.clear();
  accept(b, record(1, 11, 1, "a=1"));
  t.same(b.acceptors[2]!.state(VOLUME).promised, { epoch: 1, owner: 11 });
  t.equal(text(b.acceptors[2]!.state(VOLUME).accepted), "a=1");
});

t.test("two live volumes never get one name; a free one is given again", async (t) => {
  const b = bench(3);
  const other = 8;
  promise(b, { epoch: 1, owner: 11 });
  b.register.promise(other, { epoch: 1, owner: 11 }, () => undefined);
  b.engine.advance(100);
  t.equal(accept(b, record(1, 11, 1, "a=1"))?.kind, "chosen");
  t.equal(accept(b, record(1, 11, 1, "a=9"), other)?.kind, "name-taken");
  t.equal(accept(b, record(1, 11, 2, "b=1"))?.kind, "chosen", "renamed");
  t.equal(accept(b, record(1, 11, 1, "a=9"), other)?.kind, "chosen");
});

t.test(
  "a device that fails answers nothing more; one without room for records only refuses that",
  async (t) => {
    const engine = new Engine(MIB);
    const pages = new Pages(engine);
    const acceptor = new RecordAcceptor(pages, { nameOf });
    const ask = (epoch: number): string => {
      let kind = "none";
      acceptor.promise(VOLUME, { epoch, owner: 1 }, (answer) => {
        kind = answer.kind;
      });
      engine.settle();
      return kind;
    };
    pages.failing = "VOLUMES_FULL";
    t.equal(ask(1), "unknown");
    pages.failing = null;
    t.equal(ask(2), "promised");
    pages.failing = "DEVICE_FAILED";
    t.equal(ask(3), "unknown");
    pages.failing = null;
    t.equal(ask(4), "unknown", "what is on it is not known any more");
    t.equal(ask(2), "unknown");
  },
);

t.test("states survive their page; damaged pages are not read as empty", async (t) => {
  const ballot = fc.record({ epoch: fc.nat(), owner: fc.integer({ min: 0, max: 2 ** 48 }) });
  const accepted = fc.option(
    fc.record({ ballot, generation: fc.nat(), bytes: fc.uint8Array({ maxLength: 300 }) }),
  );
  fc.assert(
    fc.property(ballot, accepted, (promised, one) => {
      t.same(decodeState(encodeState({ promised, accepted: one })), { promised, accepted: one });
    }),
    { numRuns: 50 },
  );
  const bytes = encodeState({ promised: { epoch: 3, owner: 4 }, accepted: record(3, 4, 1, "a=1") });
  for (let cut = 1; cut < bytes.length; cut++) t.throws(() => decodeState(bytes.subarray(0, cut)));
  t.throws(() => decodeState(new Uint8Array(64)));
});

t.test("random owners: a chosen record is never unseen, and none shares its number", async (t) => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          owner: fc.integer({ min: 1, max: 3 }),
          down: fc.integer({ min: 0, max: 7 }),
          writes: fc.nat(2),
        }),
        {
          minLength: 2,
          maxLength: 12,
        },
      ),
      (turns) => {
        const b = bench(3);
        let chosen: string | null = null;
        let epoch = 0;
        let generation = 0;
        for (const turn of turns) {
          b.down.clear();
          for (let i = 0; i < 3; i++) if ((turn.down >> i) & 1) b.down.add(i);
          epoch++;
          const phaseOne = promise(b, { epoch, owner: turn.owner });
          if (phaseOne?.kind !== "promised") continue;
          if (chosen !== null && phaseOne.highest === null) return false;
          generation = Math.max(generation, phaseOne.highest?.generation ?? 0);
          for (let i = 0; i < turn.writes; i++) {
            generation++;
            const content = `v=${epoch}.${generation}`;
            if (accept(b, record(epoch, turn.owner, generation, content))?.kind === "chosen")
              chosen = content;
          }
          const before = chosen;
          const found = b.acceptors.filter(
            (acceptor) => text(acceptor.state(VOLUME).accepted) === before,
          ).length;
          if (before !== null && found < 2) return false;
        }
        return true;
      },
    ),
    { numRuns: 40 },
  );
  t.pass("over three acceptors");
});

t.test(
  "who copies the promises of two that asked for one epoch gives neither a second majority of it",
  async (t) => {
    const [x, y] = [
      { epoch: 5, owner: 11 },
      { epoch: 5, owner: 22 },
    ] as const;
    const asked = (b: Bench, ballot: Ballot): string => {
      let kind = "";
      b.acceptors[0]!.promise(VOLUME, ballot, (answer) => {
        kind = answer.kind;
      });
      b.engine.settle();
      return kind;
    };
    const older = record(4, 11, 7, "v=old");
    for (const orders of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 0, 2],
    ]) {
      // Whether either has a majority nobody can tell who hears of some acceptors only.
      const states = [
        { promised: x, accepted: older },
        { promised: y, accepted: null },
        { promised: x, accepted: null },
      ];
      const b = bench(1);
      for (const i of orders) b.acceptors[0]!.merge(VOLUME, states[i]!, () => undefined);
      b.engine.settle();
      t.same([asked(b, x), asked(b, y)], ["refused", "refused"], `${orders}`);
      t.equal(asked(b, { epoch: 6, owner: 22 }), "promised");
      // Who has had a record accepted had one.
      const told = bench(1);
      const accepted = record(5, 11, 8, "v=new");
      for (const i of orders)
        told.acceptors[0]!.merge(
          VOLUME,
          { ...states[i]!, accepted: i === 0 ? accepted : null },
          () => undefined,
        );
      told.engine.settle();
      t.same([asked(told, y), asked(told, x)], ["refused", "promised"], `${orders}`);
      t.equal(text(told.acceptors[0]!.state(VOLUME).accepted), "v=new");
    }
  },
);
