/** Config nodes that are lost and replaced, in the suite: determinism, and a few seeds; LAMINA_SIM_SEED changes the first. */
import t from "tap";
import { takeNativeChecksums } from "../native.js";
import { runCluster } from "./run.js";

const FIRST_SEED = Number(process.env["LAMINA_SIM_SEED"] ?? 1);
const SEEDS = 3;
/** With config nodes and nothing else. */
const BARE_SEEDS = 10;
const FAULT_MS = 6000;

await takeNativeChecksums();
t.comment(`seeds begin with ${FIRST_SEED}`);

void t.test(
  "whatever was decided under one set of config nodes is known under every later one",
  async (t) => {
    const options = { subject: "volume", configChanges: true, faultMs: FAULT_MS } as const;
    t.equal(
      runCluster({ seed: 1, ...options }).hash,
      runCluster({ seed: 1, ...options }).hash,
      "deterministic",
    );
    let changes = 0;
    let decisions = 0;
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
      const result = runCluster({ seed, ...options });
      changes += result.configChanges;
      decisions += result.decisions;
      t.equal(result.violation, null, `seed ${seed} (faults for ${FAULT_MS} ms)`);
    }
    t.ok(decisions > 0, `${changes} changes beside ${decisions} decisions`);
  },
);

void t.test("who joins the config nodes has what was chosen before, and a version has one set", async (t) => {
  const options = { subject: "nobody", faultMs: FAULT_MS } as const;
  t.equal(
    runCluster({ seed: 1, ...options }).hash,
    runCluster({ seed: 1, ...options }).hash,
    "deterministic",
  );
  let changes = 0;
  for (let seed = FIRST_SEED; seed < FIRST_SEED + BARE_SEEDS; seed++) {
    const result = runCluster({ seed, ...options });
    changes += result.configChanges;
    t.equal(result.violation, null, `seed ${seed} (faults for ${FAULT_MS} ms)`);
  }
  t.ok(changes > 0, `${changes} changes`);
});
