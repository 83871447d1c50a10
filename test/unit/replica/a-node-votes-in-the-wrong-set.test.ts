import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { RecordAcceptor } from "../../../lib/replica/acceptor.js";
import type { AcceptedRecord, AcceptorPeer, LeasePeer } from "../../../lib/replica/api.js";
import { StateCopy, type StateSource, type ToldState } from "../../../lib/replica/config/copy.js";
import { ConfigSeat } from "../../../lib/replica/config/seat.js";
import {
  type ConfigSet,
  decodeConfigSet,
  encodeConfigSet,
  firstSet,
  replaced,
} from "../../../lib/replica/config/set.js";
import { LeaseKeeper } from "../../../lib/replica/lease.js";
import { RecordRegister } from "../../../lib/replica/register.js";
import { Engine } from "../store/support/engine.js";
import { Machine } from "../store/support/machine.js";
import { NodeBench, VOLUME } from "./support/cluster.js";
import { Pages } from "./support/pages.js";

const [A, B, C, D] = ["a", "b", "c", "d"].map((digit) => digit.repeat(32)) as [
  string,
  string,
  string,
  string,
];
const at = (node: string) => ({ node, place: `host-${node[0]}:1` });
const ONE = firstSet([A, B, C].map(at));
const TWO = replaced(ONE, C, at(D));
const THREE = replaced(TWO, B, at(C));

function seat(pages: Pages, node: string, first: ConfigSet, engine: Engine): ConfigSeat {
  const made = new ConfigSeat(pages, node, first, () => undefined);
  made.start();
  engine.settle();
  return made;
}

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function record(epoch: number, generation: number, text: string): AcceptedRecord {
  return { ballot: { epoch, owner: epoch }, generation, bytes: bytes(text) };
}

t.test("a node votes in the set that it has on its device, and in no other one", async (t) => {
  const engine = new Engine(MIB);
  const pages = new Pages(engine);
  const a = new ConfigSeat(pages, A, ONE, () => undefined);
  t.notOk(a.votesIn(1), "nothing is on the device yet");
  a.start();
  engine.settle();
  t.ok(a.votesIn(1));
  t.notOk(a.votesIn(2));
  a.heard(TWO);
  t.notOk(a.votesIn(1), "not for the old one any more");
  t.notOk(a.votesIn(2), "and not for the new one before it is durable");
  engine.settle();
  t.ok(a.votesIn(2));
  a.heard(ONE);
  engine.settle();
  t.ok(a.votesIn(2), "it never goes back");
  t.ok(seat(pages, A, ONE, engine).votesIn(2), "in its next life neither");
});

t.test("a node whose device does not take the set answers for none", async (t) => {
  const engine = new Engine(MIB);
  const pages = new Pages(engine);
  const a = seat(pages, A, ONE, engine);
  pages.failing = "DEVICE_FAILED";
  a.heard(TWO);
  engine.settle();
  t.notOk(a.votesIn(1));
  t.notOk(a.votesIn(2));
});

t.test("who joins votes only when it has copied", async (t) => {
  const engine = new Engine(MIB);
  const pages = new Pages(engine);
  const d = seat(pages, D, ONE, engine);
  t.notOk(d.isConfig);
  d.heard(TWO);
  engine.settle();
  t.ok(d.isConfig);
  t.ok(d.isEmpty);
  t.notOk(d.votesIn(2));
  t.ok(seat(pages, D, ONE, engine).isEmpty, "in its next life neither");
  d.filled(1);
  engine.settle();
  t.ok(d.isEmpty, "a copy for another set counts for nothing");
  d.filled(2);
  engine.settle();
  t.ok(d.votesIn(2));
  t.ok(seat(pages, D, ONE, engine).votesIn(2));
  const late = seat(new Pages(engine), A, TWO, engine);
  t.ok(late.isEmpty, "one that meets a later set first has lost what it had, whoever it says it is");
});

t.test("who was left out votes no more, and tells only those who took its place", async (t) => {
  const engine = new Engine(MIB);
  const c = seat(new Pages(engine), C, ONE, engine);
  c.heard(TWO);
  engine.settle();
  t.notOk(c.votesIn(2));
  t.ok(c.tellsStates(2));
  c.heard(THREE);
  engine.settle();
  t.notOk(c.votesIn(3), "it joins anew, and has to copy what was decided meanwhile");
  t.ok(c.isEmpty);
  t.notOk(c.tellsStates(3));
  const away = seat(new Pages(engine), C, ONE, engine);
  away.heard(THREE);
  engine.settle();
  t.notOk(away.votesIn(3), "it has not even heard of the set that it was left out of");
  t.ok(away.isEmpty);
  const b = seat(new Pages(engine), B, ONE, engine);
  b.heard(THREE);
  engine.settle();
  t.notOk(b.tellsStates(3), "one that was not there when it was left out has nothing to tell");
  const a = seat(new Pages(engine), A, ONE, engine);
  a.heard(THREE);
  engine.settle();
  t.ok(a.votesIn(3), "one that was in all of them needs no copy");
});

t.test("a copy takes a majority of the set before, and makes nothing older", async (t) => {
  const engine = new Engine(MIB);
  const d = seat(new Pages(engine), D, ONE, engine);
  const acceptor = new RecordAcceptor(new Pages(engine), { nameOf: () => null });
  acceptor.promise(2, { epoch: 9, owner: 9 }, () => undefined);
  engine.settle();
  d.heard(TWO);
  engine.settle();
  const told: Record<string, ToldState[]> = {
    [A]: [
      { key: 1, state: { promised: { epoch: 4, owner: 4 }, accepted: record(3, 7, "new") } },
      { key: 2, state: { promised: { epoch: 5, owner: 5 }, accepted: null } },
    ],
    [B]: [{ key: 1, state: { promised: { epoch: 6, owner: 6 }, accepted: record(2, 6, "old") } }],
  };
  const asked: string[] = [];
  const heardOf: string[] = [];
  let isBUp = false;
  const source = (node: string): StateSource => ({
    states: (version, visit, done) => {
      asked.push(`${node[0]}${version}`);
      const isUp = node === A || (node === B && isBUp);
      if (isUp) for (const one of told[node]!) visit(one);
      engine.complete(() => done(isUp));
    },
  });
  const promised = (key: number, epoch: number): void => void heardOf.push(`${key}:${epoch}`);
  new StateCopy({ clock: engine, seat: d, acceptor, source, promised });
  engine.advance(2000);
  t.ok(d.isEmpty, "one of three is not enough");
  isBUp = true;
  engine.advance(1000);
  t.ok(d.votesIn(2));
  t.ok(asked.includes("c2"), "the one that was replaced is asked too");
  t.same(acceptor.state(1).promised, { epoch: 6, owner: 6 });
  t.equal(acceptor.state(1).accepted?.generation, 7);
  t.same(acceptor.state(2).promised, { epoch: 9, owner: 9 });
  t.ok(heardOf.includes("1:6"), "whoever serves an older epoch there hears of it");
});

t.test("answers of two sets make no majority together", async (t) => {
  const engine = new Engine(MIB);
  const waiting: { node: string; answer: () => void }[] = [];
  const peer = (node: string): AcceptorPeer & LeasePeer => ({
    promise: (_key, _ballot, done) => {
      waiting.push({ node, answer: () => done({ kind: "promised", accepted: null }) });
    },
    accept: () => undefined,
    renew: (_volumes, done) => {
      waiting.push({ node, answer: () => done([]) });
    },
  });
  const say = (node: string): void => {
    for (const one of waiting.splice(0)) {
      if (one.node === node) one.answer();
      else waiting.push(one);
    }
  };
  const voters = (set: ConfigSet) => set.nodes.map(({ node }) => ({ node, peer: peer(node) }));
  const register = new RecordRegister(engine, voters(ONE));
  let outcome = "";
  register.promise(1, { epoch: 1, owner: 1 }, ({ kind }) => {
    outcome = kind;
  });
  say(A);
  register.reconfigure(voters(TWO));
  say(B);
  t.equal(outcome, "", "A for the one set, B for the other");
  say(A);
  t.equal(outcome, "promised");

  const lease = new LeaseKeeper(
    engine,
    voters(ONE).map((one) => one.peer),
    { watched: () => [], promised: () => undefined },
  );
  lease.renewNow();
  say(A);
  lease.reconfigure(voters(TWO).map((one) => one.peer));
  say(D);
  t.notOk(lease.holds(0));
  say(B);
  t.ok(lease.holds(0));
});

t.test("over a session: a node names its set, takes a newer one over, and tells its states", async (t) => {
  const bench = new NodeBench(new Machine({ format: { records: 16 } }));
  const own = bench.core.id;
  const one = firstSet([own, B, C].map(at));
  const two = replaced(one, C, at(D));
  bench.useSet(one);
  const named: ConfigSet[] = [];
  const { session } = bench.connect(11, 1, {}, (set) => named.push(set));
  const promise = (set: number): string => {
    let kind = "none";
    session.promise(
      VOLUME,
      { epoch: 1, owner: 11 },
      (answer) => {
        kind = answer.kind;
      },
      set,
    );
    bench.engine.advance(50);
    return kind;
  };
  const states = (set: number): string[] | null => {
    const keys: string[] = [];
    let complete = false;
    session.states(
      set,
      ({ key, state }) => keys.push(`${key}:${state.promised.epoch}/${state.accepted?.generation ?? 0}`),
      (all) => {
        complete = all;
      },
    );
    bench.engine.advance(50);
    return complete ? keys : null;
  };
  t.equal(promise(2), "unknown", "a vote for another set is none");
  t.equal(named.at(-1)?.version, 1);
  t.equal(promise(1), "promised");
  const long = "x".repeat(3900);
  for (let key = 100; key < 110; key++) {
    bench.acceptor.promise(key, { epoch: 1, owner: 1 }, () => undefined);
    bench.acceptor.accept(key, record(1, 3, `${key}${long}`.slice(0, 3900)), () => undefined);
  }
  bench.engine.advance(50);
  t.equal(states(2), null, "not while it answers for the set before");
  session.adopt(two);
  bench.engine.advance(50);
  t.equal(promise(1), "unknown");
  t.same(named.at(-1), two);
  t.equal(promise(0), "promised", "as a member it is asked without a set");
  const told = states(2)!;
  t.equal(told.length, 11, "more than one message can carry");
  t.equal(told[0], `${VOLUME}:1/0`);
  t.equal(told.at(-1), "109:1/3");
});

t.test("what is no set is not taken for one", async (t) => {
  t.same(decodeConfigSet(encodeConfigSet(TWO)), TWO);
  const text = new TextDecoder().decode(encodeConfigSet(TWO));
  for (const wrong of [
    "",
    "{}",
    "[]",
    "null",
    text.slice(1),
    text.replace('"format":1', '"format":2'),
    text.replace('"version":2', '"version":0'),
    text.replace('"version":2', '"version":1.5'),
    text.replace('"since":2', '"since":"2"'),
    text.replaceAll(A, B),
    text.replace(A, "a"),
    text.replace(/"nodes":\[[^\]]*\]/, '"nodes":[]'),
  ])
    t.equal(decodeConfigSet(bytes(wrong)), null, wrong.slice(0, 40));
});
