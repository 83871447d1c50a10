/** Old and new processes work together: nobody is sent what it has not said in Hello that it knows. */
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import { HELLO_BYTES, putHello, putWelcome } from "../../../lib/replica/greeting.js";
import { NodeSession } from "../../../lib/replica/session.js";
import { ANSWER, decode, encode, HEADER_BYTES, Message, MessageKind } from "../../../lib/replica/wire.js";
import { Engine } from "../store/support/engine.js";
import { CLUSTER, NodeBench } from "./support/cluster.js";
import { PipeEnd } from "./support/streams.js";

const NODE = "ab".repeat(16);

function bytesOf(engine: Engine, m: Message, fill: (at: number) => number): Uint8Array {
  const at = engine.pool.allocate(4096);
  m.bodyBytes = fill(at + HEADER_BYTES);
  encode(engine.pool.view, engine.checksums, at, m);
  const bytes = engine.pool.bytes.slice(at, at + HEADER_BYTES + m.bodyBytes);
  engine.pool.free(at);
  return bytes;
}

t.test("a node from before is not asked what it has found, and the session goes on", async (t) => {
  const engine = new Engine(MIB);
  const stream = new PipeEnd(engine);
  const link = { pool: engine.pool, clock: engine, ticker: engine, checksums: engine.checksums };
  const lost: string[] = [];
  const session = new NodeSession(link, { cluster: CLUSTER, node: NODE, peer: 5, number: 1 }, stream, {
    sessionOpened: () => undefined,
    sessionLost: (_session, reason) => lost.push(reason),
  });
  engine.settle();
  const greeting = {
    node: NODE,
    incarnation: 3,
    bootId: "boot",
    lossy: false,
    extentBlocks: 16,
    windowRequests: 8,
    windowBytes: MIB,
  };
  const welcome = Object.assign(new Message(), { kind: MessageKind.Hello | ANSWER, status: Status.Ok });
  stream.feed(bytesOf(engine, welcome, (at) => putWelcome(engine.pool.view, at, greeting)));
  engine.settle();
  t.not(session.greeting, null);
  const sent = stream.taken.length;
  const pages: unknown[] = [];
  session.rotten(7, 2, 0, (page) => pages.push(page));
  engine.settle();
  t.same(pages, [null]);
  t.equal(stream.taken.length, sent, "nothing was sent");
  t.same(lost, []);
});

/** What a node answers in its greeting to who says that he knows `known`. */
function greeted(known: number): number {
  const bench = new NodeBench();
  const { engine } = bench;
  const end = new PipeEnd(engine);
  const far = new PipeEnd(engine);
  far.other = end;
  end.setListener({
    streamReceived: () => undefined,
    streamSent: () => undefined,
    streamClosed: () => undefined,
  });
  bench.core.serve(far);
  const hello = Object.assign(new Message(), { kind: MessageKind.Hello, sequence: 1, detail: known });
  const said = { cluster: CLUSTER, node: bench.core.id, peer: 9 };
  const bytes = bytesOf(engine, hello, (at) => {
    putHello(engine.pool.view, at, said);
    return HELLO_BYTES;
  });
  far.feed(bytes);
  engine.settle();
  const at = engine.pool.allocate(4096);
  engine.pool.bytes.set(Buffer.concat(far.taken).subarray(0, HEADER_BYTES), at);
  const answer = new Message();
  decode(engine.pool.view, at, answer);
  if (answer.kind !== (MessageKind.Hello | ANSWER) || answer.status !== Status.Ok)
    throw new Error("no greeting");
  return answer.detail;
}

t.test("a node names what both know, whatever it is told", async (t) => {
  t.equal(greeted(0), 0, "an owner from before");
  t.equal(greeted(1), 1);
  t.equal(greeted(0xffff_ffff), 1, "a later one; this node was not given what to unpack with");
});
