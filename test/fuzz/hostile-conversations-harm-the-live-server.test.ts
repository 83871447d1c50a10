// The corpus, and a short run of the fuzzer, over TCP and a unix socket at a running server.
import t from "tap";
import { openSession } from "../conformance/raw-client.js";
import { BLOCK, serveLive, VOL, VOL_BYTES } from "../conformance/support/live.js";
import { MemoryWatch } from "../conformance/support/memory.js";
import { until } from "../interop/support/until.js";
import { fuzzBursts } from "./burst-fuzzer.js";
import { corpus } from "./corpus.js";
import { fuzzLive, say } from "./live-fuzzer.js";

const INPUTS = 2000;
const MESSAGES = 10_000;

const live = await serveLive(t);
const places = [live.tcp, live.unix];

t.test("the corpus, whole and byte by byte, is answered alike", async (t) => {
  const entries = corpus();
  t.ok(entries.length >= 10, `${entries.length} streams`);
  for (const { name, bytes } of entries) {
    const everywhere = Array.from({ length: Math.min(bytes.length, 200) }, (_, i) => i + 1);
    const whole = await say(live.tcp, bytes, []);
    const parts = await say(live.unix, bytes, everywhere);
    const common = Math.min(whole.length, parts.length);
    t.ok(whole.subarray(0, common).equals(parts.subarray(0, common)), name);
  }
});

t.test(`${INPUTS} damaged conversations`, async (t) => {
  const seed = Number(process.env["LAMINA_FUZZ_SEED"] ?? 20261122);
  t.comment(`seed ${seed}`);
  const memory = new MemoryWatch(live.server.pid);
  const { answered } = await fuzzLive(places, seed, 0, INPUTS);
  t.ok(answered > INPUTS * 20, `${answered} bytes are answered`);
  const session = await openSession(live.tcp, VOL);
  t.equal((await session.read(0, BLOCK)).length, BLOCK, "a real client is served");
  await session.leave();
  t.equal(memory.grown(), null, "memory has not grown");
  await until("every connection is let go of", async () => {
    return JSON.stringify(await live.server.json("status")).includes('"connections":0');
  });
});

t.test(`${MESSAGES} damaged messages, each of which is answered`, async (t) => {
  const seed = Number(process.env["LAMINA_FUZZ_SEED"] ?? 20261122);
  t.comment(`seed ${seed}`);
  const memory = new MemoryWatch(live.server.pid);
  const run = await fuzzBursts(places, VOL_BYTES, seed, 0, MESSAGES);
  t.ok(
    run.answered > MESSAGES / 2,
    `${run.answered} messages on ${run.conversations} connections are answered`,
  );
  t.ok(run.refused > run.answered / 10, `${run.refused} of them with an error`);
  t.ok(run.refused < (9 * run.answered) / 10, "and others are carried out");
  t.equal(memory.grown(), null, "memory has not grown");
  await until("every connection is let go of", async () => {
    return JSON.stringify(await live.server.json("status")).includes('"connections":0');
  });
});
