// Where Lamina answers otherwise than nbdkit, qemu-nbd or nbd-server, the reason is known and written down.
import t from "tap";
import { DEVIATIONS, PEERS, QUESTIONS } from "./deviations.js";
import { differencesWith, laminaAnswers, peers } from "./differential.js";
import { PROBES } from "./probes.js";

const ours = await laminaAnswers();
const present = peers();

t.test("every deviation is about a probe that exists", async (t) => {
  const names = new Set(PROBES.map(({ name }) => name));
  t.same(
    DEVIATIONS.filter(({ probe }) => !names.has(probe)),
    [],
  );
  t.same(
    new Set(Object.keys(QUESTIONS)),
    new Set(DEVIATIONS.map(({ probe }) => probe)),
    "and every question has somebody who deviates",
  );
});

t.test("Lamina answers every probe", async (t) => {
  t.equal(ours.size, PROBES.length);
  for (const [probe, answer] of ours) t.not(answer, "silence", probe);
  for (const [probe, { lamina }] of Object.entries(QUESTIONS)) t.equal(ours.get(probe), lamina, probe);
  t.equal(ours.get("data after writes, zeroes and trims"), "as written");
});

for (const peer of PEERS) {
  const make = present.get(peer);
  const skip =
    make === undefined ? { skip: `${peer} is not on this machine (./scripts/test fetches it)` } : {};
  t.test(`${peer} differs only where it is known to`, skip, async (t) => {
    const differences = await differencesWith(peer, make!, ours);
    t.same(
      differences.filter(({ known }) => known === undefined),
      [],
    );
  });
}
