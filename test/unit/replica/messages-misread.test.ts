import fc from "fast-check";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { BODY_BYTES_MAX } from "../../../lib/replica/limits.js";
import { Link, type LinkOwner } from "../../../lib/replica/link.js";
import {
  ANSWER,
  decode,
  encode,
  FLAG_PACKED,
  HEADER_BYTES,
  Message,
  MessageKind,
  verify,
} from "../../../lib/replica/wire.js";
import { Engine } from "../store/support/engine.js";
import { PipeEnd } from "./support/streams.js";

const u64 = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const u16 = fc.integer({ min: 0, max: 0xffff });

interface Sample {
  readonly m: Message;
  readonly body: Uint8Array;
}

/** Messages of every kind, with a shape that the kind may have. */
const sample: fc.Arbitrary<Sample> = fc
  .record({
    kind: fc.constantFrom(...Object.values(MessageKind)),
    answer: fc.boolean(),
    target: u32,
    tag: u32,
    flags: u16,
    status: u16,
    layer: u32,
    volume: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
    epoch: u64,
    generation: u64,
    sequence: u64,
    extent: u32,
    block: u16,
    blocks: fc.integer({ min: 1, max: 3 }),
    detail: u32,
    body: fc.uint8Array({ maxLength: 200 }),
  })
  .map(({ body, answer, ...fields }) => {
    const m = Object.assign(new Message(), fields);
    if (answer) m.kind |= ANSWER;
    const isWrite = m.kind === MessageKind.Write;
    const hasPayload = isWrite || m.kind === (MessageKind.Read | ANSWER);
    // One block cannot be packed into fewer.
    if (isWrite && m.blocks === 1) m.flags &= ~FLAG_PACKED;
    const isPacked = isWrite && (m.flags & FLAG_PACKED) !== 0;
    const shaped = isWrite ? new Uint8Array(4 * m.blocks + (isPacked ? 4 : 0)).fill(7) : body;
    m.bodyBytes = shaped.length;
    m.payloadBytes = hasPayload ? (m.blocks - (isPacked ? 1 : 0)) * 4096 : 0;
    if (isPacked) m.detail = m.payloadBytes - (m.detail % 4096);
    return { m, body: shaped };
  });

function bench(): { engine: Engine; at: number } {
  const engine = new Engine(MIB);
  return { engine, at: engine.pool.allocate(64 * 1024) };
}

function put({ engine, at }: { engine: Engine; at: number }, { m, body }: Sample): Uint8Array {
  engine.pool.bytes.set(body, at + HEADER_BYTES);
  encode(engine.pool.view, engine.checksums, at, m);
  return engine.pool.bytes.slice(at, at + HEADER_BYTES + body.length);
}

t.test("what is encoded is decoded", async (t) => {
  const place = bench();
  const { engine, at } = place;
  const found = new Message();
  fc.assert(
    fc.property(sample, (one) => {
      put(place, one);
      const fault = decode(engine.pool.view, at, found);
      return (
        fault === null &&
        verify(engine.pool.view, engine.checksums, at, found.bodyBytes) &&
        JSON.stringify(found) === JSON.stringify(one.m)
      );
    }),
  );
  t.pass("for messages of every kind");
});

t.test("one wrong bit anywhere is noticed, and no length that is read exceeds its bound", async (t) => {
  const place = bench();
  const { engine, at } = place;
  const found = new Message();
  fc.assert(
    fc.property(sample, fc.nat(), (one, where) => {
      const bytes = put(place, one);
      const bit = where % (bytes.length * 8);
      engine.pool.bytes[at + (bit >> 3)]! ^= 1 << (bit & 7);
      if (decode(engine.pool.view, at, found) !== null) return true;
      if (found.bodyBytes > BODY_BYTES_MAX || found.payloadBytes > 2 ** 20) return false;
      return !verify(engine.pool.view, engine.checksums, at, found.bodyBytes);
    }),
  );
  t.pass("in header and body");
});

t.test("random bytes are no message", async (t) => {
  const { engine, at } = bench();
  const found = new Message();
  fc.assert(
    fc.property(fc.uint8Array({ minLength: HEADER_BYTES, maxLength: HEADER_BYTES }), (bytes) => {
      engine.pool.bytes.set(bytes, at);
      if (decode(engine.pool.view, at, found) !== null) return true;
      return !verify(engine.pool.view, engine.checksums, at, 0);
    }),
  );
  t.pass("none was taken");
});

/** Keeps what a link delivers. */
class Collector implements LinkOwner {
  readonly engine: Engine;
  readonly seen: string[] = [];
  lostBy: string | null = null;
  holdBack = 0;
  constructor(engine: Engine) {
    this.engine = engine;
  }
  payloadFor(m: Message): number {
    if (this.holdBack-- > 0) return -1;
    return this.engine.pool.allocate(m.payloadBytes);
  }
  received(m: Message, body: number, payload: number): null {
    const { bytes } = this.engine.pool;
    const text = Buffer.from(bytes.subarray(body, body + m.bodyBytes)).toString("hex");
    const data = m.payloadBytes === 0 ? "" : sum(bytes.subarray(payload, payload + m.payloadBytes));
    this.seen.push(`${m.kind}/${m.tag}/${text}/${data}`);
    if (m.payloadBytes > 0) this.engine.pool.free(payload);
    return null;
  }
  fill(): void {}
  sent(): void {}
  lost(reason: string): void {
    this.lostBy = reason;
  }
}

function sum(bytes: Uint8Array): number {
  return bytes.reduce((total, byte, i) => (total + byte * (i + 1)) % 1_000_003, 0);
}

/** Three messages, the middle one with a payload, as one stream. */
function conversation(): { bytes: Uint8Array; seen: string[] } {
  const place = bench();
  const write = Object.assign(new Message(), { kind: MessageKind.Write, tag: 2, blocks: 1 });
  write.bodyBytes = 4;
  write.payloadBytes = 4096;
  const payload = Uint8Array.from({ length: 4096 }, (_, i) => (i * 7) & 0xff);
  const hello = Object.assign(new Message(), { kind: MessageKind.Hello, tag: 1, bodyBytes: 3 });
  const flush = Object.assign(new Message(), { kind: MessageKind.Flush, tag: 3 });
  const parts = [
    put(place, { m: hello, body: Uint8Array.of(1, 2, 3) }),
    put(place, { m: write, body: Uint8Array.of(9, 8, 7, 6) }),
    payload,
    put(place, { m: flush, body: new Uint8Array(0) }),
  ];
  const seen = [`1/1/010203/`, `17/2/09080706/${sum(payload)}`, `21/3//`];
  return { bytes: Buffer.concat(parts), seen };
}

interface Listening {
  readonly engine: Engine;
  readonly stream: PipeEnd;
  readonly owner: Collector;
  readonly link: Link;
}

function listen(engine = new Engine(MIB), partOf?: () => number): Listening {
  const stream = new PipeEnd(engine, partOf);
  const owner = new Collector(engine);
  const { pool, checksums } = engine;
  const link = Link.open({ pool, checksums, clock: engine, ticker: engine }, stream, owner)!;
  return { engine, stream, owner, link };
}

t.test("messages mean the same wherever the stream is cut", async (t) => {
  const { bytes, seen } = conversation();
  const engine = new Engine(MIB);
  for (let cut = 1; cut < bytes.length; cut++) {
    const { stream, owner, link } = listen(engine);
    stream.feed(bytes.subarray(0, cut));
    engine.settle();
    stream.feed(bytes.subarray(cut));
    engine.settle();
    link.close("the test is over");
    engine.settle();
    if (owner.seen.join() !== seen.join()) return void t.same(owner.seen, seen, `cut at ${cut}`);
  }
  t.pass(`${bytes.length - 1} cuts`);
});

t.test("byte by byte too, and with the payload held back", async (t) => {
  const { bytes, seen } = conversation();
  const { engine, stream, owner, link } = listen(new Engine(MIB), () => 1);
  owner.holdBack = 2;
  stream.feed(bytes);
  engine.settle();
  t.same(owner.seen, seen.slice(0, 1), "nothing is read past what has nowhere to go");
  link.resume();
  engine.settle();
  t.same(owner.seen, seen.slice(0, 1));
  link.resume();
  engine.settle();
  t.same(owner.seen, seen);
});

t.test("after damage nothing more is handled, and the memory comes back", async (t) => {
  const { bytes, seen } = conversation();
  const damaged = bytes.slice();
  damaged[bytes.length - 1]! ^= 1;
  const { engine, stream, owner } = listen();
  stream.feed(damaged);
  stream.feed(bytes);
  engine.settle();
  t.same(owner.seen, seen.slice(0, 2));
  t.type(owner.lostBy, "string");
  t.equal(engine.pool.freeBytes, engine.pool.capacityBytes);
});
