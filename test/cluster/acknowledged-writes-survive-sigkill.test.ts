import t from "tap";
import { requires } from "../interop/support/requirements.js";
import { NbdkitServer } from "../interop/support/server.js";
import { serveVolume, VOLUME } from "../interop/support/volume.js";
import { killRounds } from "./support/kill-rounds.js";

const MIB = 1 << 20;
const ROUNDS = 50;
const SIZE_BYTES = 64 * MIB;

t.test(`${ROUNDS} rounds of SIGKILL under a verified load`, async (t) => {
  const { server } = await serveVolume(t, "64M", { capacity: "1G" });
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  const report = await killRounds({ server, volume: VOLUME, sizeBytes: SIZE_BYTES, rounds: ROUNDS, seed });
  t.same(report.problems, []);
  t.equal(report.rounds, ROUNDS);
  t.ok(report.acknowledgedWrites > ROUNDS, `${report.acknowledgedWrites} writes were acknowledged`);
  t.ok(report.unfinishedRequests > 0, "kills met requests in flight");
  t.comment(JSON.stringify(report));
});

// The proof of the proof: a server that forgets must be found out.
t.test("a server that loses writes is caught", requires({ commands: ["nbdkit"] }), async (t) => {
  const server = new NbdkitServer({}, ["cow"]);
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "64M");
  const report = await killRounds({ server, volume: VOLUME, sizeBytes: SIZE_BYTES, rounds: 5, seed: 1 });
  t.not(report.problems.length, 0);
  t.match(report.problems[0], /reads as/);
});
