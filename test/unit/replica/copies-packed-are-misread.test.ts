/** Background copies that are compressed on their way arrive as they were, or not at all. */
import fc from "fast-check";
import t from "tap";
import { LZ4 } from "../../../lib/cluster/lz4.js";
import { extentSeed, volumeSeed } from "../../../lib/core/checksum.js";
import type { Codec } from "../../../lib/core/codec.js";
import { ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES, MIB } from "../../../lib/core/limits.js";
import { Status } from "../../../lib/core/status.js";
import { Packing } from "../../../lib/replica/packing.js";
import { Machine } from "../store/support/machine.js";
import { NodeBench } from "./support/cluster.js";

const PEER = 5;
const BLOCKS = 8;

/** Text repeats itself; what a generator of random numbers makes does not. */
function fill(bytes: Uint8Array, isRandom: boolean): void {
  let state = 1;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[i] = isRandom ? state >>> 24 : (i >>> 6) & 0xff;
  }
}

interface Way {
  readonly node: Packing | null;
  readonly asker: Packing | null;
  readonly isRandom?: boolean;
}

/** Copies some blocks to a node: what it answers, what it has then, and the bytes that were sent. */
function copied({ node, asker, isRandom = false }: Way) {
  const bench = new NodeBench(new Machine(), node);
  bench.askersPacking = asker;
  const { session, near } = bench.connect(PEER);
  bench.promise(session, 1, PEER);
  const { pool, checksums } = bench.engine;
  const free = pool.freeBytes;
  const write = bench.op(ExtentOpKind.Write, 1, 0, BLOCKS);
  const plain = new Uint8Array(BLOCKS * BLOCK_BYTES);
  fill(plain, isRandom);
  pool.bytes.set(plain, write.memory);
  const seed = extentSeed(volumeSeed(write.volume), write.extent);
  checksums.blockEntries(write.memory, BLOCKS, seed, 0, write.entries, 0);
  const before = near.taken.reduce((sum, part) => sum + part.length, 0);
  const status = bench.do(session, write, true);
  const sent = near.taken.reduce((sum, part) => sum + part.length, 0) - before;
  pool.free(write.memory);
  const held = free - pool.freeBytes;
  if (status !== Status.Ok) return { status, sent, held, losses: bench.losses, isEqual: false };
  const read = bench.op(ExtentOpKind.Read, 1, 0, BLOCKS);
  bench.do(session, read);
  const found = pool.bytes.subarray(read.memory, read.memory + plain.length);
  return { status, sent, held, losses: bench.losses, isEqual: Buffer.compare(found, plain) === 0 };
}

t.test("what shrinks is sent shorter, and is the same blocks there", async (t) => {
  const asker = new Packing(LZ4);
  const { status, sent, held, isEqual } = copied({ node: new Packing(LZ4), asker });
  t.equal(status, Status.Ok);
  t.ok(isEqual);
  t.ok(sent < (BLOCKS * BLOCK_BYTES) / 2, `${sent} bytes`);
  t.ok(asker.savedBytes > (BLOCKS * BLOCK_BYTES) / 2);
  t.equal(held, 0, "and the memory is free again");
});

t.test("what does not is sent as it is; and what one end does not know, too", async (t) => {
  const both = { node: new Packing(LZ4), asker: new Packing(LZ4) };
  for (const way of [
    { ...both, isRandom: true },
    { ...both, node: null },
    { ...both, asker: null },
  ]) {
    const { status, sent, isEqual } = copied(way);
    t.equal(status, Status.Ok);
    t.ok(isEqual);
    t.ok(sent > BLOCKS * BLOCK_BYTES);
  }
});

/** Packs a sample well, and everything else into `bytes`. */
function lying(bytes: Uint8Array): Packing {
  const codec: Codec = { ...LZ4, pack: (plain) => (plain.length === BLOCK_BYTES ? LZ4.pack(plain) : bytes) };
  return new Packing(codec);
}

t.test("garbage, bombs, and what is cut short end the session; nothing is written or kept", async (t) => {
  const plain = new Uint8Array(BLOCKS * BLOCK_BYTES);
  fill(plain, false);
  const noise = new Uint8Array(9000);
  fill(noise, true);
  const packed = LZ4.pack(plain);
  const lies = {
    garbage: noise,
    "a bomb of 4 MiB": LZ4.pack(new Uint8Array(4 * MIB)),
    "a block less": LZ4.pack(plain.subarray(BLOCK_BYTES)),
    "cut short": packed.subarray(0, packed.length - 7),
    "other content": LZ4.pack(new Uint8Array(BLOCKS * BLOCK_BYTES).fill(7)),
  };
  for (const [what, bytes] of Object.entries(lies)) {
    t.ok(bytes.length < (BLOCKS * BLOCK_BYTES * 7) / 8, `${what}: ${bytes.length} bytes are sent`);
    const { status, held, losses } = copied({ node: new Packing(LZ4), asker: lying(bytes) });
    t.equal(status, Status.LinkLost, what);
    t.equal(losses.length, 1);
    // The buffers of the link, which ended.
    t.ok(held <= 0, `${held} bytes`);
  }
});

t.test("the codec takes any bytes, and gives what was packed or nothing", async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 3000 }), fc.integer({ min: 0, max: 8192 }), (bytes, length) => {
      const plain = LZ4.unpack(bytes, length);
      return plain === null || plain.length === length;
    }),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 5000 }),
      fc.nat({ max: 4999 }),
      fc.nat({ max: 7 }),
      (bytes, at, bit) => {
        const packed = LZ4.pack(bytes).slice();
        const isSame = Buffer.compare(LZ4.unpack(packed, bytes.length)!, bytes) === 0;
        packed[at % packed.length]! ^= 1 << bit;
        const plain = LZ4.unpack(packed, bytes.length);
        return isSame && (plain === null || plain.length === bytes.length);
      },
    ),
    { numRuns: 1000 },
  );
  t.pass("every time");
});
