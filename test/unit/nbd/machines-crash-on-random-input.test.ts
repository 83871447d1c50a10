// A short run of the fuzzer, and every stream of the corpus.
import t from "tap";
import { CORPUS } from "./corpus.js";
import { fuzz, reach, replayToServer } from "./fuzzer.js";

t.test("streams that broke servers", async (t) => {
  for (const [name, hex] of Object.entries(CORPUS)) {
    const bytes = Buffer.from(hex.replaceAll(" ", ""), "hex");
    t.doesNotThrow(() => replayToServer(bytes), name);
  }
});

t.test("20,000 damaged conversations", async (t) => {
  const seed = Number(process.env["LAMINA_FUZZ_SEED"] ?? 20261122);
  t.comment(`seed ${seed}`);
  t.doesNotThrow(() => fuzz(seed, 20_000));
});

t.test("the fuzzer gets beyond the first message", async (t) => {
  const { transmission, executed } = reach(7, 2000);
  t.ok(transmission > 0.2, `${Math.round(100 * transmission)} % reach the transmission phase`);
  t.ok(executed > 0.2, `${Math.round(100 * executed)} % have a request executed`);
});
