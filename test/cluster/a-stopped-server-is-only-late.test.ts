/** SIGSTOP is a long pause: requests wait, none fails, and nothing is lost or repeated afterwards. */
import t from "tap";
import { pause } from "../interop/support/server.js";
import { serveVolume, VOLUME } from "../interop/support/volume.js";
import { History } from "./support/history.js";
import { Load, verify } from "./support/load.js";
import { SeededRandom } from "./support/random.js";
import { SECTOR_BYTES } from "./support/sector-codec.js";

const SIZE_BYTES = 64 << 20;
const PAUSES = 5;

t.test("a server that is stopped and continued under load", async (t) => {
  const { server } = await serveVolume(t, "64M", { capacity: "1G" });
  const history = new History(SIZE_BYTES / SECTOR_BYTES);
  const load = new Load(history, new SeededRandom(11));
  await load.start(server, VOLUME);
  for (let i = 0; i < PAUSES; i++) {
    await pause(200);
    process.kill(server.pid, "SIGSTOP");
    await pause(400);
    process.kill(server.pid, "SIGCONT");
  }
  await pause(200);
  await load.stop();
  await verify(server, VOLUME, history, "all");
  t.same(load.errors, []);
  t.same(history.violations, []);
  t.equal(load.counts.unfinished, 0, "no connection was dropped");
  t.ok(load.counts.writes > PAUSES, "it served between the pauses");
});
