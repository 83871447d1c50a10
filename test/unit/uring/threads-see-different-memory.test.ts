import { once } from "node:events";
import t from "tap";
import { MIB } from "../../../lib/core/limits.js";
import { openEngine } from "../../../lib/uring/engine.js";
import { KINDS, ringRefusal } from "./support/engines.js";
import { startWorker } from "./support/run.js";

const refusal = ringRefusal();

for (const kind of KINDS) {
  const options = kind === "ring" && refusal !== null ? { skip: refusal } : {};

  t.test(`a shared pool is the same bytes at the same offsets (${kind})`, options, async (t) => {
    const engine = openEngine({ kind, poolBytes: 8 * MIB, poolOwnBytes: 4 * MIB });
    const { pool } = engine;
    t.equal(pool.capacityBytes, 4 * MIB, "the owner keeps to its part");
    const at = pool.allocate(4096);
    pool.view.setUint32(at, 41);
    const worker = startWorker("shared", kind, [String(at)], engine.poolShare(4 * MIB, 8 * MIB));
    const [line] = (await once(worker, "message")) as [string];
    const seen = JSON.parse(line) as { seen: number; mine: number[]; crc: number };
    t.equal(seen.seen, 41, "the worker sees our word");
    t.equal(pool.view.getUint32(at), 42, "and we see its answer");
    t.equal(seen.crc, engine.checksums.crc32c(at, 4, 0));
    t.same(
      seen.mine.sort((a, b) => a - b),
      [4 * MIB, 5 * MIB, 6 * MIB, 7 * MIB],
      "it allocates from its own part only",
    );
    t.ok(pool.bytes.subarray(seen.mine[0]!, seen.mine[0]! + 4096).some((byte) => byte === 0xab));
    await once(worker, "exit");
    await engine.close();
  });
}
