/** What the connections of one thread must agree upon with those of the others. */
import t from "tap";
import { MIB, POOL_BYTES_MAX, POOL_BYTES_MIN } from "../../../lib/core/limits.js";
import { COUNTER_NUMBERS, Counters, PLAIN_COUNTERS } from "../../../lib/gateway/counters.js";
import type { OtherConnections } from "../../../lib/gateway/server.js";
import {
  ARENA_BYTES_MIN,
  dealPool,
  poolBytesDefault,
  poolBytesMin,
  THREADS_MAX,
} from "../../../lib/gateway/threads/arenas.js";
import { CLEAN, MODES, pattern, World } from "./support/world.js";

const KERNEL = MODES[0]!.options;

/** The other threads, which answer when the test says so. */
class Others implements OtherConnections {
  readonly asked: number[] = [];
  readonly waiting: (() => void)[] = [];
  quiet: (() => void) | null = null;

  retire(volume: number, done: () => void): void {
    this.asked.push(volume);
    this.waiting.push(done);
  }

  whenOnlyHandshakes(then: () => void): void {
    this.quiet = then;
  }
}

void t.test("a connection waits for the older ones of other threads", (t) => {
  const others = new Others();
  const world = new World({ server: { elsewhere: others } });
  const client = world.connect(KERNEL);
  world.loop.settle();
  t.same(others.asked, [world.volume.id], "the others are asked about this volume");
  t.equal(client.transmission, null, "and nothing is served before they have answered");
  others.waiting.shift()!();
  world.loop.settle();
  t.not(client.transmission, null);
  const write = client.write(0, pattern(0, 4096));
  world.loop.settle();
  t.equal(write.errno, 0);

  const impatient = world.connect(KERNEL);
  world.loop.settle();
  impatient.stream.clientReset();
  world.loop.settle();
  others.waiting.shift()!();
  world.loop.settle();
  t.same(world.close(), CLEAN, "who gives up while it waits leaves nothing behind");
  t.end();
});

void t.test("a thread ends its connections whose peers have gone for a new one of another thread", (t) => {
  const world = new World();
  const gone = world.attach(KERNEL, { tellsPeerGone: true });
  const there = world.attach(KERNEL, { tellsPeerGone: true });
  world.volume.hold(true);
  gone.write(0, pattern(0, 4096));
  world.loop.settle();
  gone.stream.clientEnd();
  let retired = 0;
  world.server.retire(world.volume.id + 1, () => retired++);
  t.equal(retired, 1, "of another volume there is nothing to end");
  world.server.retire(world.volume.id, () => retired++);
  world.loop.settle();
  t.equal(retired, 1, "what it has in the volume comes first");
  world.volume.hold(false);
  world.loop.settle();
  t.equal(retired, 2);
  t.equal(world.server.counters.supersededConnections, 1);
  const write = there.write(0, pattern(0, 4096));
  world.loop.settle();
  t.equal(write.errno, 0, "a connection whose peer is there goes on");
  t.same(world.close(), CLEAN);
  t.end();
});

void t.test("handshakes are kept while another thread has more to do", (t) => {
  const others = new Others();
  const world = new World({ server: { elsewhere: others } });
  const stream = world.stream();
  world.loop.settle();
  let closed = false;
  world.server.close(() => {
    closed = true;
  });
  world.loop.settle();
  t.notOk(closed, "a handshake is left, and somebody else keeps the server up");
  t.not(others.quiet, null, "who was told that this thread has nothing else");
  others.quiet?.();
  world.loop.settle();
  t.ok(closed);
  t.ok(stream.closed);
  t.end();
});

void t.test("counters that other threads read are those that are counted", (t) => {
  const numbers = new Float64Array(new SharedArrayBuffer(COUNTER_NUMBERS * 8));
  const counters = new Counters(numbers);
  counters.answered(1, 0, 4096, 100);
  counters.answered(0, 5, 4096, 3);
  const seen = new Counters(numbers);
  t.equal(seen.requests[1], 1);
  t.equal(seen.errors[0], 1);
  t.equal(seen.bytes[1], 4096);
  t.equal(seen.latencySum[1], 100);
  const sum = new Counters();
  sum.add(numbers);
  sum.add(numbers);
  t.equal(sum.requests[1], 2);
  t.equal(
    sum.latency.reduce((all, count) => all + count, 0),
    4,
  );
  t.ok(PLAIN_COUNTERS.includes("supersededConnections"));
  t.ok(PLAIN_COUNTERS.every((name) => counters[name] === 0));
  t.end();
});

void t.test("the pool is dealt without overlaps and without rests", (t) => {
  for (let threads = 0; threads <= THREADS_MAX; threads++) {
    for (const bytes of [poolBytesMin(threads), poolBytesDefault(threads), POOL_BYTES_MIN, POOL_BYTES_MAX]) {
      if (bytes < Math.max(poolBytesMin(threads), POOL_BYTES_MIN)) continue;
      const { ownerBytes, parts } = dealPool(bytes, threads);
      t.equal(parts.length, threads);
      let at = ownerBytes;
      for (const { from, to } of parts) {
        t.equal(from, at);
        t.equal(from % MIB, 0);
        t.ok(to - from >= ARENA_BYTES_MIN);
        at = to;
      }
      t.equal(at, bytes);
      t.ok(ownerBytes >= bytes / 4, "the owner keeps its quarter");
    }
  }
  t.ok(poolBytesMin(2) <= POOL_BYTES_MIN, "the smallest pool does for two threads");
  t.end();
});
