import { join } from "node:path";
import t from "tap";
import { dataBytes, qemuMap } from "./support/map.js";
import { check } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { removeScratch, scratchDirectory } from "./support/scratch.js";
import { allocatedBytes } from "./support/server.js";
import { serveVolume, VOLUME } from "./support/volume.js";

const MIB = 1 << 20;
/** What the image holds: five pieces of 2 MiB and one block in 1 GiB. */
const DATA_BYTES = 10 * MIB + 4096;
/** What the store may take for it: every extent of 4 MiB that is touched, rounded up by the file system. */
const GROWTH_MAX = 9 * 4 * MIB;

t.test(
  "a qcow2 with holes goes in and out and stays thin",
  requires({ commands: ["qemu-img", "qemu-io"] }),
  async (t) => {
    const folder = scratchDirectory();
    t.teardown(() => removeScratch(folder));
    const { server, uri } = await serveVolume(t, "1G");
    const image = join(folder, "image.qcow2");
    const back = join(folder, "back.qcow2");
    await check("qemu-img", ["create", "-q", "-f", "qcow2", image, "1G"]);
    const pieces = [0, 100, 299, 700, 1022].map((at, index) => `write -P ${index + 1} ${at}M 2M`);
    await check("qemu-io", [
      "-f",
      "qcow2",
      ...[...pieces, "write -P 9 500M 4k"].flatMap((c) => ["-c", c]),
      image,
    ]);

    const before = allocatedBytes(server.backingFile(VOLUME));
    await check("qemu-img", ["convert", "-n", "-f", "qcow2", "-O", "raw", image, uri]);
    await check("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", image, uri]);
    const runs = await qemuMap(uri);
    t.ok(dataBytes(runs) >= DATA_BYTES, "the data is there");
    // qemu rounds to the qcow2's clusters of 64 KiB.
    t.ok(
      dataBytes(runs) <= DATA_BYTES + 6 * 64 * 1024,
      `the holes are holes: ${dataBytes(runs)} bytes of data`,
    );
    const grown = allocatedBytes(server.backingFile(VOLUME)) - before;
    t.ok(grown <= GROWTH_MAX, `the store grew by ${grown} bytes`);

    await check("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", uri, back]);
    await check("qemu-img", ["compare", "-f", "qcow2", "-F", "qcow2", image, back]);
  },
);
