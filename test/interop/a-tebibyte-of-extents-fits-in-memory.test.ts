import { statfsSync } from "node:fs";
import t from "tap";
import { NbdClient } from "./support/nbd-client.js";
import { requires } from "./support/requirements.js";
import { removeScratch, scratchDirectory } from "./support/scratch.js";
import { LaminaServer, processMemory } from "./support/server.js";
import { VOLUME } from "./support/volume.js";

const MIB = 1 << 20;
const GIB = 2 ** 30;
const EXTENT_BYTES = 4 * MIB;
const BLOCK_BYTES = 4096;
const EXTENTS = 262_144;
/** In memory, because sparse files on disk cost a seek an extent. */
const FOLDER = "/dev/shm";
/** Tables and directory of a tebibyte, and a block of each extent. */
const ROOM_BYTES = 8 * GIB;
const IN_FLIGHT = 64;
/** What a mapped tebibyte may cost beyond the cache of entry tables, which is bounded by itself. */
const GROWTH_BYTES_MAX = 64 * MIB;
const TABLE_CACHE_BYTES = 64 * MIB;

function room(): { skip?: string } {
  try {
    const { bavail, bsize } = statfsSync(FOLDER);
    const free = Math.floor((bavail * bsize) / GIB);
    return bavail * bsize >= ROOM_BYTES
      ? requires({ lamina: true })
      : { skip: `${FOLDER} has ${free} GiB free, 8 are needed` };
  } catch {
    return { skip: `there is no ${FOLDER}` };
  }
}

/** One block in every extent, many at a time. */
async function touchAll(client: NbdClient): Promise<void> {
  const block = Buffer.alloc(BLOCK_BYTES, 0x77);
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < EXTENTS) await client.write(next++ * EXTENT_BYTES, block);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
}

t.test(`${EXTENTS} mapped extents`, room(), async (t) => {
  const data = scratchDirectory(FOLDER);
  const server = new LaminaServer({ data, capacity: "1100G" });
  t.teardown(async () => {
    await server.dispose();
    await removeScratch(data);
  });
  await server.start();
  await server.createVolume(VOLUME, "1T");
  const empty = processMemory(server.pid, "VmRSS");
  const writer = await NbdClient.connect(server.host, server.port, VOLUME);
  await touchAll(writer);
  await writer.flush();
  await writer.close();
  await server.stop();

  const started = performance.now();
  await server.start();
  t.comment(`started again in ${Math.round(performance.now() - started)} ms`);
  const reader = await NbdClient.connect(server.host, server.port, VOLUME);
  t.same(await reader.read((EXTENTS - 1) * EXTENT_BYTES, BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES, 0x77));
  const grown = processMemory(server.pid, "VmRSS") - empty;
  t.ok(
    grown <= GROWTH_BYTES_MAX + TABLE_CACHE_BYTES,
    `it takes ${Math.round(grown / MIB)} MiB more than when empty`,
  );
  await reader.close();
  await server.stop();
});
