import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { check } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { removeScratch, scratchDirectory } from "./support/scratch.js";
import { serveVolume } from "./support/volume.js";

async function digest(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

t.test("nbdcopy of 1 GiB of random bytes, in and out", requires({ commands: ["nbdcopy"] }), async (t) => {
  const folder = scratchDirectory();
  t.teardown(() => removeScratch(folder));
  const { uri } = await serveVolume(t, "1G");
  const image = join(folder, "image");
  const copy = join(folder, "copy");
  await check("dd", ["if=/dev/urandom", `of=${image}`, "bs=4M", "count=256", "status=none"]);
  await check("nbdcopy", ["--flush", image, uri]);
  await check("nbdcopy", [uri, copy]);
  t.equal(await digest(copy), await digest(image));
});
