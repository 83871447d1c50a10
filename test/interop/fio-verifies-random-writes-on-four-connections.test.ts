import t from "tap";
import { verifiedLoad } from "./support/fio.js";
import { requires } from "./support/requirements.js";
import { removeScratch, scratchDirectory } from "./support/scratch.js";
import { serveVolume } from "./support/volume.js";

const CONNECTIONS = 4;

t.test("fio finds every block as it wrote it", requires({ commands: ["fio"] }), async (t) => {
  const folder = scratchDirectory();
  t.teardown(() => removeScratch(folder));
  const { uri } = await serveVolume(t, "256M");
  const jobs = await verifiedLoad(uri, folder, { jobs: CONNECTIONS, partMib: 64, writtenMib: 48 });
  t.equal(jobs.length, CONNECTIONS);
  for (const job of jobs) {
    t.equal(job.error, 0);
    t.ok(job.write.total_ios > 0, "wrote");
    t.ok(job.read.total_ios > 0, "read back");
  }
});
