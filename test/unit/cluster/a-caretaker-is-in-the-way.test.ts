import t from "tap";
import {
  AWAY_PATIENCE_MS,
  BACKOFF_MAX_MS,
  CARED_MAX,
  type CareHost,
  Caretaker,
  CONCERNS_MAX,
  type Kept,
  PAGE_MAX,
  REPORT_LAG_MS,
  STALL_MS,
} from "../../../lib/cluster/care/caretaker.js";
import type { Need } from "../../../lib/cluster/care/needs.js";
import type { CareWork } from "../../../lib/cluster/care/work.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";

const DELAY_MS = 30_000;
const STALE: Need = { why: ["the copy on n2 is stale"], away: [], isEnough: true, margin: 0 };

/** A volume that is kept, as the registry would have it. */
class FakeKept implements Kept {
  isHeld = true;
  fault: string | null = null;
  clients = 0;
  work: CareWork | null = null;
  released = 0;

  release(): void {
    this.released++;
    this.isHeld = false;
  }
}

class Bench implements CareHost {
  readonly random = { u32: () => 2 ** 31 };
  readonly epochs = new Map<number, number>();
  readonly needs = new Map<number, Need>();
  readonly open = new Set<number>();
  readonly wanted = new Set<number>();
  readonly kept = new Map<number, FakeKept>();
  readonly told: string[] = [];
  rotten = 0;
  looked = 0;
  /** The last `since` that was asked for. */
  since = 0;
  ms = 1_000_000;
  readonly caretaker = new Caretaker(this, DELAY_MS);

  constructor(volumes = 1) {
    for (let id = 1; id <= volumes; id++) this.epochs.set(id, 5);
  }

  now(): number {
    return this.ms;
  }

  volumes(): readonly number[] {
    return [...this.epochs.keys()];
  }

  recordOf(volume: number): ClusterRecord | undefined {
    const epoch = this.epochs.get(volume);
    return epoch === undefined ? undefined : ({ id: volume, name: `v${volume}`, epoch } as ClusterRecord);
  }

  needOf({ id }: ClusterRecord, since: number): Need | null {
    this.looked++;
    this.since = since;
    return this.needs.get(id) ?? null;
  }

  rottenIn(): number {
    return this.rotten;
  }

  isOpen(volume: number): boolean {
    return this.open.has(volume) || this.kept.get(volume)?.isHeld === true;
  }

  isWanted(volume: number): boolean {
    return this.wanted.has(volume);
  }

  keep(volume: number): Kept {
    const kept = new FakeKept();
    this.kept.set(volume, kept);
    return kept;
  }

  tell(kind: "care-started" | "care-ended", volume: string, text: string): void {
    this.told.push(`${kind} ${volume}: ${text}`);
  }

  /** Looks once a second. */
  pass(ms: number): void {
    for (const end = this.ms + ms; this.ms < end; ) {
      this.ms += 1000;
      this.caretaker.look();
    }
  }

  /** A volume in need that is kept already. */
  static keeping(): Bench {
    const b = new Bench();
    b.needs.set(1, STALE);
    b.pass(3 * DELAY_MS);
    return b;
  }

  get one(): FakeKept {
    return this.kept.get(1)!;
  }
}

t.test("a volume is opened when it has needed it for the delay, and let go of when it is whole", (t) => {
  const b = new Bench();
  b.needs.set(1, STALE);
  b.pass(DELAY_MS);
  t.equal(b.kept.size, 0, "its clients may just be coming back");
  t.same(b.caretaker.states(9), [
    { volume: "v1", state: "due", why: "the copy on n2 is stale", inSeconds: 16, waitsFor: [] },
  ]);
  b.pass(DELAY_MS);
  t.equal(b.kept.size, 1);
  t.same(b.caretaker.keeps, [1]);
  t.equal(b.caretaker.inNeed, 0);
  b.one.work = { isDone: false, toGo: 3 };
  b.pass(STALL_MS / 2);
  t.equal(b.one.released, 0);
  b.needs.delete(1);
  b.one.work = { isDone: true, toGo: 0 };
  b.pass(1000);
  t.equal(b.one.released, 1);
  t.same(b.caretaker.keeps, []);
  b.kept.clear();
  b.pass(BACKOFF_MAX_MS);
  t.equal(b.kept.size, 0, "and it is not opened again");
  t.match(b.told, [
    "care-started v1: volume v1 is opened for its copies: the copy on n2 is stale",
    /^care-ended v1: volume v1 is let go of: every copy that can be reached is whole after \d+ s$/,
  ]);
  t.end();
});

t.test("a volume that needs nobody is left alone", (t) => {
  const b = new Bench(3);
  b.pass(BACKOFF_MAX_MS);
  t.equal(b.kept.size, 0);

  b.needs.set(1, STALE);
  b.pass(DELAY_MS);
  b.needs.delete(1);
  b.pass(DELAY_MS);
  t.equal(b.kept.size, 0, "nor one whose need has passed");

  b.needs.set(2, STALE);
  b.open.add(2);
  b.pass(10 * DELAY_MS);
  t.equal(b.kept.size, 0, "nor one that is open here");
  t.equal(b.caretaker.inNeed, 0);
  t.end();
});

t.test("who has been at a volume meanwhile has the next one wait anew", (t) => {
  const b = new Bench();
  b.needs.set(1, STALE);
  for (let i = 0; i < 10; i++) {
    b.pass(DELAY_MS);
    b.epochs.set(1, 6 + i);
  }
  t.equal(b.kept.size, 0, "two gateways do not take it from each other");
  b.pass(2000);
  t.ok(b.since > b.ms, "and what nodes have told before may have been put right");
  b.pass(2 * DELAY_MS);
  t.equal(b.kept.size, 1);
  t.end();
});

t.test("few are kept at a time, those with the fewest copies first", (t) => {
  const b = new Bench(9);
  for (let id = 1; id <= 9; id++) b.needs.set(id, { ...STALE, margin: id === 7 || id === 4 ? 0 : 1 });
  b.pass(3 * DELAY_MS);
  t.same([...b.kept.keys()].sort(), [4, 7]);
  t.equal(b.kept.size, CARED_MAX);
  b.needs.delete(4);
  b.kept.get(4)!.work = { isDone: true, toGo: 0 };
  b.pass(1000);
  t.equal(b.kept.size, CARED_MAX + 1, "the next one follows at once");
  t.end();
});

t.test("many volumes are looked at a page at a time", (t) => {
  const b = new Bench(10 * PAGE_MAX);
  for (const id of b.volumes()) b.needs.set(id, { ...STALE, isEnough: false });
  for (let look = 0; look < 10; look++) {
    const before = b.looked;
    b.pass(1000);
    t.ok(b.looked - before <= PAGE_MAX, `${b.looked - before} in one look`);
  }
  t.equal(b.looked, 10 * PAGE_MAX, "each of them once");
  t.equal(b.caretaker.inNeed, CONCERNS_MAX, "and only so many are kept in mind");
  t.equal(b.caretaker.states(16).length, 16);
  for (const id of b.volumes()) b.epochs.delete(id);
  b.pass(20_000);
  t.equal(b.caretaker.inNeed, 0, "what was removed is forgotten");
  t.end();
});

t.test("whoever asks for a volume gets it", (t) => {
  const elsewhere = Bench.keeping();
  elsewhere.one.work = { isDone: false, toGo: 3 };
  elsewhere.wanted.add(1);
  elsewhere.pass(1000);
  t.equal(elsewhere.one.released, 1, "at the next look");
  elsewhere.kept.clear();
  elsewhere.wanted.clear();
  elsewhere.pass(2 * DELAY_MS);
  t.equal(elsewhere.kept.size, 0, "and has it for a while");
  elsewhere.pass(4 * DELAY_MS);
  t.equal(elsewhere.kept.size, 1);
  elsewhere.pass(1000);

  const here = Bench.keeping();
  here.one.work = { isDone: false, toGo: 3 };
  here.one.clients = 1;
  here.pass(1000);
  t.equal(here.one.released, 1, "a client here does what is left");

  const asked = new Bench();
  asked.needs.set(1, STALE);
  asked.wanted.add(1);
  asked.pass(10 * DELAY_MS);
  t.equal(asked.kept.size, 0, "what somebody asks for is not opened");
  t.end();
});

t.test("what was taken away, or could not be opened, is left alone for longer each time", (t) => {
  const b = new Bench();
  b.needs.set(1, STALE);
  const pauses: number[] = [];
  let last = b.ms;
  for (let i = 0; i < 9; i++) {
    while (b.kept.size === 0) b.pass(1000);
    pauses.push(b.ms - last);
    last = b.ms;
    b.one.isHeld = false;
    b.one.fault = "somebody else asks for it";
    b.pass(1000);
    b.kept.clear();
  }
  for (let i = 1; i < pauses.length; i++) t.ok(pauses[i]! >= pauses[i - 1]!, `${pauses[i]} ms`);
  t.ok(pauses[2]! >= 1.8 * pauses[1]!);
  t.ok(pauses.at(-1)! >= BACKOFF_MAX_MS && pauses.at(-1)! < BACKOFF_MAX_MS + 2 * DELAY_MS);
  t.match(b.told[1], "volume v1 is let go of: somebody else asks for it");
  t.end();
});

t.test("one that makes no progress is let go of", (t) => {
  const b = Bench.keeping();
  b.pass(STALL_MS);
  t.equal(b.one.released, 1, "it was never opened");

  const slow = Bench.keeping();
  for (let left = 20; left > 0; left--) {
    slow.one.work = { isDone: false, toGo: left };
    slow.pass(STALL_MS - 2000);
  }
  t.equal(slow.one.released, 0, "a slow one is not");
  slow.one.work = { isDone: false, toGo: 20 };
  slow.pass(STALL_MS / 2);
  slow.one.work = { isDone: false, toGo: 2 };
  slow.pass(STALL_MS / 2 + 2000);
  t.equal(slow.one.released, 1, "one that begins again and again is");
  t.match(slow.told.at(-1), /nothing has come of it for 90 s/);
  t.end();
});

t.test("bad blocks are waited for, and given up where no copy is good", (t) => {
  const b = Bench.keeping();
  b.rotten = 2;
  b.one.work = { isDone: true, toGo: 0 };
  b.pass(10_000);
  t.equal(b.one.released, 0, "the nodes still tell of them");
  b.rotten = 0;
  b.pass(1000);
  t.equal(b.one.released, 1);
  t.equal(b.since, b.ms + REPORT_LAG_MS, "what nodes have said before is not heeded");

  const hopeless = Bench.keeping();
  hopeless.needs.delete(1);
  hopeless.rotten = 2;
  hopeless.one.work = { isDone: true, toGo: 0 };
  hopeless.pass(2 * STALL_MS);
  t.equal(hopeless.one.released, 1);
  t.ok(hopeless.since > hopeless.ms + BACKOFF_MAX_MS - 2 * STALL_MS, "nor, for long, what is hopeless");
  t.end();
});

t.test("copies that are in sync and away are waited for by name", (t) => {
  const b = new Bench();
  b.needs.set(1, { ...STALE, away: ["n3"] });
  b.pass(AWAY_PATIENCE_MS - 1000);
  t.equal(b.kept.size, 0);
  t.match(b.caretaker.states(1), [{ volume: "v1", state: "waits", waitsFor: ["n3"] }]);
  b.pass(2000);
  t.equal(b.kept.size, 1, "and given up after long, as by anybody who opens the volume");

  const short = new Bench();
  short.needs.set(1, { ...STALE, away: ["n3"], isEnough: false });
  short.pass(2 * AWAY_PATIENCE_MS);
  t.equal(short.kept.size, 0, "but not where an operator has to decide");

  const back = new Bench();
  back.needs.set(1, { ...STALE, away: ["n3"] });
  back.pass(AWAY_PATIENCE_MS / 2);
  back.needs.set(1, STALE);
  back.pass(1000);
  t.equal(back.kept.size, 1, "they may come back before");
  t.end();
});

t.test("it lets go of everything when the gateway ends", (t) => {
  const b = Bench.keeping();
  b.caretaker.stop();
  t.equal(b.one.released, 1);
  b.kept.clear();
  b.pass(10 * DELAY_MS);
  t.equal(b.kept.size, 0);
  t.end();
});
