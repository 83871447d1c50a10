import fc from "fast-check";
import t from "tap";
import { blockSeed, entryOfCrc } from "../../../lib/core/checksum.js";
import { BLOCK_BYTES, MIB } from "../../../lib/core/limits.js";
import { addon } from "../../../lib/uring/addon.js";
import { openEngine } from "../../../lib/uring/engine.js";
import { fillPattern } from "./support/engines.js";

const engine = openEngine({ kind: "auto", poolBytes: 2 * MIB });
const { checksums, pool } = engine;
const memory = pool.allocate(MIB);
t.teardown(() => engine.close());

// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
const VECTORS: readonly (readonly [string, Uint8Array, number])[] = [
  ["check value", Buffer.from("123456789"), 0xe3069283],
  ["32 zeros", new Uint8Array(32), 0x8a9136aa],
  ["32 ones", new Uint8Array(32).fill(0xff), 0x62a8ab43],
  ["incrementing", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
  ["decrementing", Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
  ["nothing", new Uint8Array(0), 0],
];

/** Bit by bit: nothing in common with the implementations under test but the polynomial. */
function bitwise(bytes: Uint8Array, seed: number): number {
  let crc = ~seed;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

t.test("known vectors", async (t) => {
  for (const [name, bytes, want] of VECTORS) {
    pool.bytes.set(bytes, memory);
    t.equal(checksums.crc32cBytes(bytes, 0), want, name);
    t.equal(checksums.crc32c(memory, bytes.length, 0), want, `${name}, in the pool`);
    t.equal(bitwise(bytes, 0), want, `${name}, bit by bit`);
  }
});

t.test("any length, alignment and seed: processor, portable and bit by bit agree", async () => {
  fillPattern(pool.bytes.subarray(memory, memory + MIB), 1);
  const poolMemory = 0;
  const native = addon();
  // The pool of this engine is the first memory of this process.
  fc.assert(
    fc.property(fc.nat(70_000), fc.nat(64), fc.nat(0xffffffff), (length, shift, seed) => {
      const at = memory + shift;
      const fast = checksums.crc32c(at, length, seed);
      if (native.checksumPortable(poolMemory, at, length, seed) !== fast) return false;
      return length > 5000 || bitwise(pool.bytes.subarray(at, at + length), seed) === fast;
    }),
    { numRuns: 500 },
  );
});

t.test("a checksum continued is the checksum of the whole", async () => {
  fc.assert(
    fc.property(fc.nat(20_000), fc.nat(20_000), (first, second) => {
      const whole = checksums.crc32c(memory, first + second, 0);
      return checksums.crc32c(memory + first, second, checksums.crc32c(memory, first, 0)) === whole;
    }),
  );
});

t.test("block entries are seeded by address and written where they belong", async (t) => {
  fillPattern(pool.bytes.subarray(memory, memory + MIB), 2);
  const count = 256;
  const out = new Uint32Array(count + 2).fill(7);
  const extentSeed = 0xfedcba98;
  const first = 768;
  checksums.blockEntries(memory, count, extentSeed, first, out, 1);
  t.equal(out[0], 7);
  t.equal(out[count + 1], 7);
  for (let i = 0; i < count; i++) {
    const seed = blockSeed(extentSeed, first + i);
    const want = entryOfCrc(checksums.crc32c(memory + i * BLOCK_BYTES, BLOCK_BYTES, seed));
    if (out[i + 1] !== want) t.fail(`entry ${i} is ${out[i + 1]}, not ${want}`);
  }
  t.not(out[1], out[2], "neighbours differ");
});

t.test("a range outside the pool is refused, not read", async (t) => {
  t.throws(() => checksums.crc32c(pool.capacityBytes, 2 * MIB, 0), { name: "InvariantError" });
  t.throws(() => checksums.blockEntries(-4096, 1, 0, 0, new Uint32Array(1), 0), { name: "InvariantError" });
});
