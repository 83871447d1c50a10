import t from "tap";
import { codecFault, type Library, LZ4, lz4Through, packingWith } from "../../../lib/cluster/lz4.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";

function missing(): Library {
  throw new Error("librt.so.1: cannot open shared object file");
}

t.test("a library that cannot be loaded is told once, at the start, and nothing is packed", async (t) => {
  const told: string[] = [];
  t.equal(
    packingWith(lz4Through(missing), (why) => told.push(why)),
    null,
  );
  t.same(told, ["librt.so.1: cannot open shared object file"]);
});

t.test("one that gives back something else is not used either", async (t) => {
  const own = Buffer.alloc(4 + BLOCK_BYTES, 2);
  const liar: Library = { compressSync: () => own, uncompressSync: () => own.subarray(4) };
  t.match(codecFault(lz4Through(() => liar)), /another one/);
  const short: Library = { compressSync: () => own, uncompressSync: () => own.subarray(5) };
  t.match(codecFault(lz4Through(() => short)), /another one/);
});

t.test("it is loaded when it is first needed, once", async (t) => {
  let loads = 0;
  const codec = lz4Through(() => {
    loads++;
    return { compressSync: (plain) => Buffer.from(plain), uncompressSync: (block) => Buffer.from(block) };
  });
  t.equal(loads, 0);
  codec.pack(new Uint8Array(8));
  codec.pack(new Uint8Array(8));
  t.equal(loads, 1);
});

t.test("with the one of this machine copies are packed", async (t) => {
  const packing = packingWith(LZ4, (why) => t.fail(why));
  t.not(packing, null);
  t.equal(packing?.savedBytes, 0);
});
