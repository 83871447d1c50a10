/**
 * A killed server's write may still be on its way in the kernel. A new server on the same device must not serve
 * before it has landed: what was read once would change, and what was written anew would be overwritten.
 */
import t from "tap";
import { NbdClient } from "../interop/support/nbd-client.js";
import { requires } from "../interop/support/requirements.js";
import { LaminaServer, pause } from "../interop/support/server.js";
import { VOLUME } from "../interop/support/volume.js";
import { DELAY_SECONDS, MARKER, SLUGGISH_NEEDS, SluggishDisk } from "./support/sluggish-disk.js";

const MIB = 1 << 20;
const BLOCK_BYTES = 4096;

function block(text: string): Buffer {
  return Buffer.alloc(BLOCK_BYTES, text);
}

t.test(
  "the write of a killed server lands before its successor serves",
  requires({ ...SLUGGISH_NEEDS, lamina: true }),
  async (t) => {
    const disk = await SluggishDisk.make(256 * MIB);
    t.teardown(async () => disk.dispose());
    const server = new LaminaServer({ device: disk.device });
    t.teardown(async () => server.dispose());
    await server.start();
    await server.createVolume(VOLUME, "16M");
    const first = await NbdClient.connect(server.host, server.port, VOLUME);
    await first.write(0, block("before"));
    await first.write(BLOCK_BYTES, block("before"));
    await first.flush();

    // Two writes that the disk takes seconds for; neither is acknowledged when the server dies.
    const late = [first.write(0, block(`${MARKER} `)), first.write(BLOCK_BYTES, block(`${MARKER} `))];
    const lost = Promise.allSettled(late);
    await pause(500);
    await server.kill();
    t.same(
      (await lost).map(({ status }) => status),
      ["rejected", "rejected"],
      "they were not acknowledged",
    );

    await server.start();
    const second = await NbdClient.connect(server.host, server.port, VOLUME);
    t.teardown(() => second.destroy());
    const seen = await second.read(0, BLOCK_BYTES);
    await second.write(BLOCK_BYTES, block("after"));
    await pause(2 * DELAY_SECONDS * 1000);
    t.same(await second.read(0, BLOCK_BYTES), seen, "what was read stays");
    t.same(await second.read(BLOCK_BYTES, BLOCK_BYTES), block("after"), "what was acknowledged stays");
    await second.close();
    await server.stop();
  },
);
