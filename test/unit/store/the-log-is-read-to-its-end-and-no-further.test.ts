import fc from "fast-check";
import t from "tap";
import { deviceSeed, frameBytesMax, RecordKind } from "../../../lib/store/format.js";
import {
  ABSENT_WORDS,
  ALLOC_WORDS,
  deltaWords,
  FREE_WORDS,
  putAbsent,
  putAlloc,
  putDelta,
  putFree,
  putStamp,
  putSynced,
  type RecordVisitor,
  readFrame,
  STAMP_WORDS,
  SYNCED_WORDS,
  sealFrame,
  visitRecords,
} from "../../../lib/store/log-records.js";
import { Engine } from "./support/engine.js";
import { DEVICE_ID, Machine } from "./support/machine.js";

const sequence = fc.maxSafeNat();
const u32 = fc.nat(2 ** 32 - 1);

type AnyRecord =
  | { kind: "delta"; slot: number; alloc: number; block: number; entries: number[] }
  | { kind: "absent"; slot: number; alloc: number; block: number; count: number }
  | {
      kind: "alloc";
      slot: number;
      volume: number;
      layer: number;
      extent: number;
      generation: number;
      created: number;
    }
  | { kind: "free" | "freed"; slot: number; alloc: number }
  | { kind: "stamp"; slot: number; alloc: number; generation: number }
  | { kind: "synced" };

const record: fc.Arbitrary<AnyRecord> = fc.oneof(
  fc.record({
    kind: fc.constant("delta" as const),
    slot: u32,
    alloc: sequence,
    block: fc.nat(1023),
    entries: fc.array(u32, { minLength: 1, maxLength: 20 }),
  }),
  fc.record({
    kind: fc.constant("absent" as const),
    slot: u32,
    alloc: sequence,
    block: fc.nat(1023),
    count: fc.integer({ min: 1, max: 1024 }),
  }),
  fc.record({
    kind: fc.constant("alloc" as const),
    slot: u32,
    volume: fc.nat(2 ** 48 - 1),
    layer: u32,
    extent: u32,
    generation: sequence,
    created: sequence,
  }),
  fc.record({ kind: fc.constantFrom("free" as const, "freed" as const), slot: u32, alloc: sequence }),
  fc.record({ kind: fc.constant("stamp" as const), slot: u32, alloc: sequence, generation: sequence }),
  fc.record({ kind: fc.constant("synced" as const) }),
);

function put(words: Uint32Array, at: number, r: AnyRecord): number {
  switch (r.kind) {
    case "delta":
      putDelta(words, at, r.slot, r.alloc, r.block, r.entries.length, Uint32Array.from(r.entries));
      return deltaWords(r.entries.length);
    case "absent":
      putAbsent(words, at, r.slot, r.alloc, r.block, r.count);
      return ABSENT_WORDS;
    case "alloc":
      putAlloc(words, at, r.slot, r);
      return ALLOC_WORDS;
    case "free":
    case "freed":
      putFree(words, at, r.kind === "free" ? RecordKind.Free : RecordKind.Freed, r.slot, r.alloc);
      return FREE_WORDS;
    case "stamp":
      putStamp(words, at, r.slot, r.alloc, r.generation);
      return STAMP_WORDS;
    case "synced":
      putSynced(words, at);
      return SYNCED_WORDS;
  }
}

t.test("every record is read as it was written, and any flipped bit ends the frame", async (t) => {
  const engine = new Engine(1024 * 1024);
  const words = new Uint32Array(engine.pool.bytes.buffer);
  const seed = deviceSeed(DEVICE_ID);
  fc.assert(
    fc.property(
      fc.array(record, { minLength: 1, maxLength: 20 }),
      fc.integer({ min: 1, max: 2 ** 40 }),
      fc.nat(),
      (records, first, flip) => {
        words.fill(0xdead_beef, 0, 65536);
        let at = 8;
        for (const r of records) at += put(words, at, r);
        const header = { length: at * 4, incarnation: 3, records: records.length, first, synced: first - 1 };
        sealFrame(words, 0, header, engine.checksums, seed);
        const found = readFrame(engine.pool.bytes, words, 0, 65536, engine.checksums, seed);
        t.same(found, header);
        const seen: (AnyRecord & { sequence: number })[] = [];
        const visitor: RecordVisitor = {
          delta: (sequence, slot, alloc, block, count, from) =>
            from < 0
              ? seen.push({ sequence, kind: "absent", slot, alloc, block, count })
              : seen.push({
                  sequence,
                  kind: "delta",
                  slot,
                  alloc,
                  block,
                  entries: [...words.subarray(from, from + count)],
                }),
          alloc: (sequence, slot, identity) => seen.push({ sequence, kind: "alloc", slot, ...identity }),
          free: (sequence, slot, alloc) => seen.push({ sequence, kind: "free", slot, alloc }),
          freed: (sequence, slot) => seen.push({ sequence, kind: "freed", slot, alloc: 0 }),
          stamp: (sequence, slot, alloc, generation) =>
            seen.push({ sequence, kind: "stamp", slot, alloc, generation }),
        };
        t.ok(visitRecords(words, 0, header, visitor));
        const wanted = records.flatMap((r, i) =>
          r.kind === "synced"
            ? []
            : [{ ...r, ...(r.kind === "freed" ? { alloc: 0 } : {}), sequence: first + i }],
        );
        t.same(seen, wanted);
        const bit = flip % (header.length * 8);
        engine.pool.bytes[bit >>> 3]! ^= 1 << (bit & 7);
        t.equal(readFrame(engine.pool.bytes, words, 0, 65536, engine.checksums, seed), null);
        t.equal(readFrame(engine.pool.bytes, words, 0, 65536, engine.checksums, seed + 1), null);
      },
    ),
    { numRuns: 50 },
  );
});

t.test("the ring wraps many times, and every life reads it back", async (t) => {
  const machine = new Machine({ format: { logBytes: 16384 } }).start();
  for (let round = 0; round < 40; round++) {
    for (let i = 0; i < 40; i++) machine.write(i % 5, i % 16, [1 + ((round + i) % 200)]);
    if (round % 10 === 9) machine.kill().start();
  }
  t.ok(machine.store.stats().logUsedBytes <= 16384);
  for (let i = 0; i < 40; i++) {
    const last = [...Array(40).keys()].filter((j) => j % 5 === i % 5 && j % 16 === i % 16).at(-1)!;
    t.same(machine.read(i % 5, i % 16, 1), [1 + ((39 + last) % 200)]);
  }
  t.equal(machine.stop(), null);
  t.same(machine.fsck(), []);
});

t.test(
  "every prefix of the log recovers after a kill of a machine whose last frames were torn",
  async (t) => {
    // The data is on the disk; the log is cut at every byte where a frame begins or in the middle of one.
    const machine = new Machine({ open: { syncIntervalMs: 1e6 } }).start();
    const from = machine.disk.events.length;
    for (let i = 0; i < 6; i++) machine.write(0, i, [10 + i]);
    const frames = machine.disk.events.slice(from).flatMap((e) => (e.kind === "append" ? [e] : []));
    t.equal(frames.length, 6);
    const image = machine.disk.bytes.slice();
    for (let cut = 0; cut < frames.length; cut++) {
      for (const into of [0, 20]) {
        machine.disk.bytes.set(image);
        const { offset, length } = frames[cut]!;
        machine.disk.bytes.fill(0, offset + into, frames.at(-1)!.offset + length);
        machine.bootId = `boot ${cut}.${into}`;
        machine.kill().start();
        if (cut === 0) {
          t.same(
            machine.read(0, 0, 6),
            [0, 0, 0, 0, 0, 0],
            "its ALLOC is lost: the slot is zeroed, not adopted",
          );
        } else {
          t.same(machine.read(0, 0, 6), [10, 11, 12, 13, 14, 15], "the bytes are adopted");
        }
        t.same(machine.seen.rot, []);
        machine.stop();
        t.same(machine.fsck(), []);
      }
    }
  },
);

t.test(
  "a hole below what was synced is corruption: refused, and nothing is zeroed if it is accepted",
  async (t) => {
    const machine = new Machine({ open: { syncIntervalMs: 1e6 } }).start();
    const from = machine.disk.events.length;
    machine.write(0, 0, [1]);
    machine.flush();
    machine.write(1, 0, [2]);
    machine.kill();
    const frames = machine.disk.events;
    t.same(frames.length, 0);
    const { log, slotsStart } = machine.layout;
    t.ok(from > 0);
    machine.disk.bytes[log + 40]! ^= 1;
    t.match(machine.fsck(), [/the log is corrupt: record 1 /]);
    const slots = machine.disk.bytes.slice(slotsStart);
    t.throws(() => machine.start(), { code: "DEVICE_DAMAGED" });
    machine.open = { ...machine.open, acceptLogLoss: true };
    machine.start();
    machine.engine.advance(5000);
    t.ok(Buffer.compare(machine.disk.bytes.slice(slotsStart), slots) === 0, "no slot was zeroed");
    machine.stop();
  },
);

t.test("a frame is never longer than an eighth of the ring", async (t) => {
  t.equal(frameBytesMax(16384), 2048);
  t.equal(frameBytesMax(32 * 1024 * 1024), 128 * 1024);
});
