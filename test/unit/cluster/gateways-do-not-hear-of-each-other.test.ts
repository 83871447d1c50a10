import t from "tap";
import { Board, type BoardText, encodeNote, parseBoard, WANTED_MS } from "../../../lib/cluster/care/board.js";
import { BoardAsker, BoardView, GATEWAY_SILENT_MAX_MS } from "../../../lib/cluster/care/board-view.js";
import { type CareGround, CareRounds } from "../../../lib/cluster/care/rounds.js";
import { keyOf } from "../../../lib/cluster/key.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import { NODE, serve } from "./support/served.js";

const KEY = keyOf(new Uint8Array(16).fill(1), new Uint8Array(32).fill(2));

function note(peer: number, keeps: number[] = [], wants: number[] = []): string {
  return encodeNote({ peer, name: `g${peer}`, keeps, wants });
}

t.test("a board says who was heard of, what is kept, and for a while what is asked for", (t) => {
  let ms = 1000;
  const board = new Board(() => ms);
  t.same(parseBoard(board.post(note(1, [7]))).gateways, [{ peer: 1, name: "g1", keeps: [7], agoMs: 0 }]);
  ms += 400;
  const said = parseBoard(board.post(note(2, [], [7])));
  t.same(said.gateways[0], { peer: 1, name: "g1", keeps: [7], agoMs: 400 });
  t.same(said.wanted, [7]);
  ms += WANTED_MS - 1;
  t.same(parseBoard(board.post(note(1))).wanted, [7]);
  t.same(parseBoard(board.post(note(1))).gateways.at(-1)?.keeps, [], "it has let go");
  ms += 1;
  t.same(parseBoard(board.post(note(1))).wanted, [], "who does not ask again has what he asked for");
  t.throws(() => board.post("{}"));
  t.throws(() => board.post(note(1, Array(17).fill(1))), "more than anybody may keep");
  t.end();
});

t.test("a board is bounded, whoever comes", (t) => {
  let ms = 1000;
  const board = new Board(() => ms);
  for (let peer = 1; peer <= 1000; peer++) {
    ms++;
    board.post(
      note(
        peer,
        [],
        Array.from({ length: 16 }, (_, i) => 16 * peer + i),
      ),
    );
  }
  const { gateways, wanted } = parseBoard(board.post(note(1000)));
  t.equal(gateways.length, 256);
  t.equal(gateways.at(-1)?.peer, 1000);
  t.ok(wanted.length <= 256, `${wanted.length} are asked for`);
  t.end();
});

function heard(agoMs: number, keeps: number[] = []): BoardText {
  return { gateways: [{ peer: 5, name: "g", keeps, agoMs }], wanted: [] };
}
const NOBODY: BoardText = { gateways: [], wanted: [] };

t.test("a gateway is gone only when most remember it and none has heard of it lately", (t) => {
  const long = GATEWAY_SILENT_MAX_MS;
  t.ok(new BoardView([heard(long), heard(long + 7)], 2).isGone(5));
  t.notOk(new BoardView([heard(long), heard(long - 1)], 2).isGone(5), "one has heard of it");
  t.notOk(new BoardView([heard(long), NOBODY], 2).isGone(5), "one was started anew");
  t.notOk(new BoardView([heard(long)], 2).isGone(5), "one does not answer");
  t.notOk(new BoardView([heard(long), heard(long)], 2).isGone(6), "it has never said anything");
  t.end();
});

t.test("the newest of what config nodes say of a gateway counts", (t) => {
  t.equal(new BoardView([heard(900, [7]), heard(100, [])], 2).keeperOf(7), null);
  t.equal(new BoardView([heard(900, []), heard(100, [7])], 2).keeperOf(7), "g");
  t.equal(new BoardView([heard(5001, [7])], 1).keeperOf(7), null, "it may have ended");
  t.ok(new BoardView([NOBODY, { gateways: [], wanted: [7] }], 2).isWanted(7));
  t.notOk(new BoardView([NOBODY], 2).isHeard);
  t.end();
});

t.test("a note is taken from who has the key, and answered; what is none is not", async (t) => {
  const board = new Board(() => 0);
  const { engine, address } = await serve(t, () => ({ key: KEY, tls: null }), {
    board: (text) => board.post(text),
  });
  const config = () => [{ node: NODE, address }];
  const asker = new BoardAsker(engine, KEY, config);
  const view = await asker.post({ peer: 3, name: "x".repeat(1000), keeps: [7], wants: [8] });
  t.ok(view.isHeard);
  t.ok(view.isWanted(8));
  t.equal(view.keeperOf(7), "x".repeat(256));
  const refused = await asker.post({ peer: 3, name: "g", keeps: Array<number>(17).fill(1), wants: [] });
  t.notOk(refused.isHeard);
  const other = new BoardAsker(engine, keyOf(new Uint8Array(16).fill(1), new Uint8Array(32).fill(3)), config);
  t.notOk((await other.post({ peer: 3, name: "g", keeps: [], wants: [] })).isHeard, "another key");
});

/** Two gateways and one board, where a volume is kept by the first. */
function rounds(
  board: Board,
  peer: number,
  of: Partial<CareGround>,
  delayMs: number | null = null,
): CareRounds {
  const ground: CareGround = {
    clock: { now: () => performance.now(), wall: () => 0, setTimer: () => ({ cancel() {} }) },
    random: { u32: () => 0 },
    peer,
    name: `g${peer}`,
    board: {
      post: (said) => Promise.resolve(new BoardView([parseBoard(board.post(encodeNote(said)))], 1)),
    },
    now: () => performance.now(),
    describe: () => Promise.resolve(null),
    volumes: () => [],
    recordOf: () => undefined,
    refresh: () => Promise.resolve(),
    places: () => [],
    isLinked: () => true,
    nameOf: (node) => node,
    isOpen: () => false,
    keep: () => null,
    tell: () => undefined,
    ...of,
  };
  return new CareRounds(ground, delayMs);
}

t.test("who asks for a volume waits while it is kept, and not for one that is used", async (t) => {
  const board = new Board(() => performance.now());
  let isReleased = false;
  let looks = 0;
  const record = (): ClusterRecord => ({ owner: { released: isReleased } }) as ClusterRecord;
  const asking = rounds(board, 2, {
    recordOf: record,
    refresh() {
      looks++;
      isReleased = looks === 2;
      return Promise.resolve();
    },
  });
  await asking.askFor(7);
  t.equal(looks, 0, "nobody keeps it: nothing to wait for");
  board.post(note(1, [7]));
  t.same(parseBoard(board.post(note(1, [7]))).wanted, [7], "who keeps it hears of it");
  await asking.askFor(7);
  t.equal(looks, 2, "it has waited until the record said so");
  await asking.say();
  t.equal(asking.keeperOf(7), "g1");
});

t.test("nothing is opened while nobody could ask for it", async (t) => {
  const members = [
    { node: "n1", state: "insync", since: 0 },
    { node: "n2", state: "stale", since: 3 },
  ];
  const policy = { replicas: 2, minReplicas: 1 };
  const owner = { peer: 9, released: true };
  const record = { id: 7, name: "v", epoch: 4, state: "live", policy, owner, members };
  const kept: number[] = [];
  let ms = 0;
  const ground = {
    clock: { now: () => ms, wall: () => 0, setTimer: () => ({ cancel() {} }) },
    volumes: () => [7],
    recordOf: () => record as unknown as ClusterRecord,
    keep(volume: number) {
      kept.push(volume);
      return null;
    },
  };
  const deaf = rounds(
    new Board(() => 0),
    1,
    { ...ground, board: { post: () => Promise.resolve(new BoardView([], 2)) } },
    1000,
  );
  const board = new Board(() => ms);
  const hearing = rounds(board, 1, ground, 1000);
  const off = rounds(board, 1, ground, null);
  for (; ms < 10_000; ms += 1000) {
    for (const one of [deaf, off]) {
      await one.say();
      one.look();
    }
  }
  t.same(kept, [], "no board answers, or the caretaker is off");
  for (; ms < 20_000; ms += 1000) {
    await hearing.say();
    hearing.look();
  }
  t.ok(kept.includes(7), "the same volume otherwise");
});
