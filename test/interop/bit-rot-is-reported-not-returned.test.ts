import { closeSync, openSync, readSync, statSync, writeSync } from "node:fs";
import t from "tap";
import { decodeSectors, encodeSectors, SECTOR_BYTES } from "../cluster/support/sector-codec.js";
import { metrics, metricValue } from "./support/metrics.js";
import { NbdClient, NbdError } from "./support/nbd-client.js";
import { requires } from "./support/requirements.js";
import { LaminaServer } from "./support/server.js";
import { VOLUME } from "./support/volume.js";

const MIB = 1 << 20;
const BLOCK_BYTES = 4096;
const SECTORS_PER_BLOCK = BLOCK_BYTES / SECTOR_BYTES;
const DATA_BYTES = 12 * MIB;
const EIO = 5;
const WRITE_ID = 1;

interface BadBlock {
  readonly offset: number;
}

/** Where in the file the bytes of a block lie; −1 when they are nowhere. */
function findBlock(path: string, block: number): number {
  const wanted = encodeSectors(WRITE_ID, block * SECTORS_PER_BLOCK, SECTORS_PER_BLOCK);
  const piece = Buffer.alloc(4 * MIB);
  const file = openSync(path, "r");
  try {
    for (let at = 0; at < statSync(path).size; at += piece.length) {
      const length = readSync(file, piece, 0, piece.length, at);
      const found = piece.subarray(0, length).indexOf(wanted);
      if (found >= 0) return at + found;
    }
    return -1;
  } finally {
    closeSync(file);
  }
}

function flipByte(path: string, offset: number): void {
  const file = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, offset);
  byte[0]! ^= 0x20;
  writeSync(file, byte, 0, 1, offset);
  closeSync(file);
}

async function errorOf(promise: Promise<unknown>): Promise<number | null> {
  try {
    await promise;
    return null;
  } catch (error) {
    if (error instanceof NbdError) return error.errno;
    throw error;
  }
}

t.test("one flipped byte costs one block", requires({ lamina: true }), async (t) => {
  const server = new LaminaServer({ capacity: "1G" });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "64M");
  const writer = await NbdClient.connect(server.host, server.port, VOLUME);
  for (let at = 0; at < DATA_BYTES; at += MIB) {
    await writer.write(at, encodeSectors(WRITE_ID, at / SECTOR_BYTES, MIB / SECTOR_BYTES));
  }
  await writer.flush();
  await writer.close();
  // A clean end leaves every slot cold.
  await server.stop();

  // The first byte of a block, the last one, and one in the last extent.
  const blocks = DATA_BYTES / BLOCK_BYTES;
  const rotten = new Map([
    [5, 0],
    [700, BLOCK_BYTES - 1],
    [blocks - 1, 1234],
  ]);
  for (const [block, byte] of rotten) {
    const at = findBlock(server.backingFile(), block);
    t.ok(at >= 0, `block ${block} is in the file`);
    flipByte(server.backingFile(), at + byte);
  }
  await server.start();

  const client = await NbdClient.connect(server.host, server.port, VOLUME);
  t.teardown(() => client.destroy());
  for (let block = 0; block < blocks; block++) {
    const reading = client.read(block * BLOCK_BYTES, BLOCK_BYTES);
    if (rotten.has(block)) {
      t.equal(await errorOf(reading), EIO, `block ${block}`);
    } else {
      const ids = decodeSectors(await reading, block * SECTORS_PER_BLOCK);
      if (ids.some((id) => id !== WRITE_ID)) t.fail(`block ${block} is not what was written`);
    }
  }
  t.equal(await errorOf(client.read(4 * BLOCK_BYTES, 4 * BLOCK_BYTES)), EIO, "a read over a bad block fails");

  const shown = (await server.json("volume", "show", VOLUME)) as { readonly badBlocks: readonly BadBlock[] };
  const places = shown.badBlocks.map(({ offset }) => offset / BLOCK_BYTES);
  t.same(
    [...new Set(places)].sort((x, y) => x - y),
    [...rotten.keys()],
    "volume show lists them",
  );
  t.match(await server.lamina("events", "--json"), /rot/i, "an event tells of it");
  const counted = metricValue(await metrics(server.data), "lamina_store_bit_rot_blocks_total");
  t.ok(counted >= rotten.size, "a metric counts them");

  await client.write(5 * BLOCK_BYTES, encodeSectors(2, 5 * SECTORS_PER_BLOCK, SECTORS_PER_BLOCK));
  const mended = await client.read(5 * BLOCK_BYTES, BLOCK_BYTES);
  t.same([...new Set(decodeSectors(mended, 5 * SECTORS_PER_BLOCK))], [2], "a new write mends it");
  await client.close();
  await server.stop();
  const fsck = await server.fsck();
  t.equal(fsck.code, 1, "fsck finds the blocks that are still bad");
});
