import { writeFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { check } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { removeScratch, scratchDirectory } from "./support/scratch.js";
import { serveVolume } from "./support/volume.js";

interface FioJob {
  readonly error: number;
  readonly read: { readonly total_ios: number };
  readonly write: { readonly total_ios: number };
}

const CONNECTIONS = 4;

t.test("fio finds every block as it wrote it", requires({ commands: ["fio"] }), async (t) => {
  const folder = scratchDirectory();
  t.teardown(() => removeScratch(folder));
  const { uri } = await serveVolume(t, "256M");
  // Each job has a connection and a quarter of the volume; sizes that are not whole blocks among them.
  const job = `[global]
ioengine=nbd
uri=${uri}
rw=randwrite
bssplit=4k/50:512/10:16k/20:7k/10:128k/10
blockalign=512
iodepth=16
size=64m
offset_increment=64m
io_size=48m
fsync=64
verify=crc32c
verify_state_save=0
verify_fatal=1
serialize_overlap=1
randrepeat=0
[writer]
numjobs=${CONNECTIONS}
`;
  writeFileSync(join(folder, "job.fio"), job);
  const text = await check("fio", ["--output-format=json", "job.fio"], { cwd: folder });
  const { jobs } = JSON.parse(text.slice(text.indexOf("{"))) as { readonly jobs: readonly FioJob[] };
  t.equal(jobs.length, CONNECTIONS);
  for (const job of jobs) {
    t.equal(job.error, 0);
    t.ok(job.write.total_ios > 0, "wrote");
    t.ok(job.read.total_ios > 0, "read back");
  }
});
