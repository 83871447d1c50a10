/**
 * The argument in lib/gateway/piece-memory.ts, tried out: with the smallest pools, many connections and any
 * order of events every request is answered, and with the right bytes.
 */
import fc from "fast-check";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { Workload } from "./support/workload.js";
import { CLEAN, MODES, World } from "./support/world.js";

const VOLUME_BYTES = 8 * MIB;

interface Case {
  readonly seed: number;
  readonly poolMib: number;
  readonly clients: number;
  readonly depth: number;
  readonly lengthMax: number;
  readonly receiveMax: number;
  readonly sendMax: number;
}

/** How often the cases went through what they are about; a run in which none did shows nothing. */
const seen = { stalledForMemory: 0, streamedReplies: 0, requests: 0 };

function run(c: Case): void {
  const world = new World({ seed: c.seed, poolBytes: c.poolMib * MIB, volumeBytes: VOLUME_BYTES });
  // A long request in tiny steps costs much and shows nothing that a shorter one does not.
  const lengthMax = Math.min(c.lengthMax, 64 * Math.min(c.receiveMax, c.sendMax));
  const share = Math.floor(VOLUME_BYTES / c.clients / 4096) * 4096;
  const clients = Array.from({ length: c.clients }, (_, i) => {
    const { options } = MODES[(c.seed + i) % MODES.length]!;
    const stream = { receiveMax: c.receiveMax, sendMax: c.sendMax };
    const client = world.attach({ ...options, blockSizes: false }, stream);
    client.sendMax = 512 << (c.seed % 12);
    return client;
  });
  const loads = clients.map(
    (client, i) =>
      new Workload(client, world.random, {
        requests: 20,
        depth: c.depth,
        lengthMax,
        from: i * share,
        to: (i + 1) * share,
      }),
  );
  // Time passes only when nothing else happens: a wait for memory that ends by time alone is allowed here,
  // one that does not end is not.
  for (let i = 0; i < 100 && !loads.every(({ finished }) => finished); i++) world.loop.advance(2000);
  for (const [i, load] of loads.entries()) {
    const state = `client ${i}: ${load.done} done, ${load.inFlight} in flight, ${clients[i]!.complaint}`;
    if (load.fault !== "") throw new Error(`${load.fault} (${state})`);
    if (!load.finished) throw new Error(`stuck: ${state}`);
  }
  const { counters } = world.server;
  seen.stalledForMemory += counters.stalledForMemory;
  seen.streamedReplies += counters.streamedReplies;
  for (const { done } of loads) seen.requests += done;
  const end = world.close();
  if (JSON.stringify(end) !== JSON.stringify(CLEAN)) throw new Error(JSON.stringify(end));
}

const cases = fc.record({
  seed: fc.integer({ min: 1, max: 2 ** 31 }),
  poolMib: fc.constantFrom(1, 1, 2, 4, 16),
  clients: fc.constantFrom(1, 2, 5),
  depth: fc.constantFrom(1, 4, 16),
  lengthMax: fc.constantFrom(4096, 70_000, MIB),
  receiveMax: fc.constantFrom(1000, 65_536, 2 ** 30),
  sendMax: fc.constantFrom(1000, 65_536, 2 ** 30),
});

/** Long reads of a kernel client in the smallest pool: sure to go through all of it, whatever the others draw. */
const CERTAIN: Case = {
  seed: 3,
  poolMib: 1,
  clients: 5,
  depth: 16,
  lengthMax: MIB,
  receiveMax: 2 ** 30,
  sendMax: 2 ** 30,
};

/** An answer to BLOCK_STATUS held memory behind a reply under way, which waited for it to give that back. */
const ANSWER_BEHIND_STREAM: Case = {
  seed: 2_147_482_602,
  poolMib: 1,
  clients: 5,
  depth: 4,
  lengthMax: MIB,
  receiveMax: 65_536,
  sendMax: 2 ** 30,
};

void t.test("every request is answered with the right bytes, however small the pool", (t) => {
  fc.assert(
    fc.property(cases, (c) => run(c)),
    { numRuns: 30, examples: [[CERTAIN], [ANSWER_BEHIND_STREAM]] },
  );
  t.ok(seen.requests > 100, `${seen.requests} requests`);
  t.ok(seen.stalledForMemory > 0, `a write waited for memory ${seen.stalledForMemory} times`);
  t.ok(
    seen.streamedReplies > 0,
    `a reply was begun without memory for all of it ${seen.streamedReplies} times`,
  );
  t.end();
});

void t.test("reads longer than all memory there is are answered, in every form of reply", (t) => {
  for (const { name, options } of MODES) {
    const world = new World({ poolBytes: MIB, volumeBytes: 32 * MIB, seed: 5 });
    const { bytes, present } = world.volume;
    for (let i = 0; i < bytes.length; i += 997) bytes[i] = i & 0xff;
    present.fill(1);
    const client = world.attach(options);
    const read = client.read(0, 32 * MIB);
    world.loop.advance(10_000);
    t.equal(client.complaint, "", name);
    t.equal(read.errno, 0, name);
    t.ok(Buffer.from(read.data!).equals(bytes), name);
    t.equal(world.server.counters.streamedReplies, name === "simple" ? 1 : 0, name);
    t.same(world.close(), CLEAN, name);
  }
  t.end();
});
