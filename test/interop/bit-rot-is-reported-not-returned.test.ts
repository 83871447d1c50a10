import { closeSync, openSync, readSync, statSync, writeSync } from "node:fs";
import {
  NBD_CMD_READ,
  NBD_EIO,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_ERROR_OFFSET,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
} from "nbd-protocol-ts";
import t, { type Test } from "tap";
import { decodeSectors, encodeSectors, SECTOR_BYTES } from "../cluster/support/sector-codec.js";
import { go, request } from "../conformance/encode.js";
import { Haggling } from "../conformance/raw-client.js";
import { metrics, metricValue } from "./support/metrics.js";
import { NbdClient, NbdError } from "./support/nbd-client.js";
import { run } from "./support/process.js";
import { requires } from "./support/requirements.js";
import { LaminaServer } from "./support/server.js";
import { VOLUME } from "./support/volume.js";

const MIB = 1 << 20;
const BLOCK_BYTES = 4096;
const SECTORS_PER_BLOCK = BLOCK_BYTES / SECTOR_BYTES;
const DATA_BYTES = 12 * MIB;
/** The longest READ that every server must take. */
const LONGEST_READ_BYTES = 32 * MIB;
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

/** A server on a volume with some data, in which one byte of each of some blocks is another one. */
async function serveRotten(
  t: Test,
  rotten: ReadonlyMap<number, number>,
  dataBytes = DATA_BYTES,
): Promise<LaminaServer> {
  const server = new LaminaServer({ capacity: "1G" });
  t.teardown(async () => server.dispose());
  await server.start();
  await server.createVolume(VOLUME, "64M");
  const writer = await NbdClient.connect(server.host, server.port, VOLUME);
  for (let at = 0; at < dataBytes; at += MIB) {
    await writer.write(at, encodeSectors(WRITE_ID, at / SECTOR_BYTES, MIB / SECTOR_BYTES));
  }
  await writer.flush();
  await writer.close();
  // A clean end leaves every slot cold.
  await server.stop();
  for (const [block, byte] of rotten) {
    const at = findBlock(server.backingFile(), block);
    t.ok(at >= 0, `block ${block} is in the file`);
    flipByte(server.backingFile(), at + byte);
  }
  await server.start();
  return server;
}

t.test("one flipped byte costs one block", requires({ lamina: true }), async (t) => {
  // The first byte of a block, the last one, and one in the last extent.
  const blocks = DATA_BYTES / BLOCK_BYTES;
  const rotten = new Map([
    [5, 0],
    [700, BLOCK_BYTES - 1],
    [blocks - 1, 1234],
  ]);
  const server = await serveRotten(t, rotten);

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

interface Chunk {
  readonly type: number;
  readonly offset: number;
  readonly body: Buffer;
}

/** The chunks of one structured READ, as they come over the wire. */
async function chunksOf(server: LaminaServer, offset: number, length: number): Promise<Chunk[]> {
  const client = await Haggling.begin({ kind: "tcp", host: server.host, port: server.port });
  const { socket } = client;
  await client.ask(NBD_OPT_STRUCTURED_REPLY);
  client.send(go(VOLUME));
  await client.answers();
  client.send(request(NBD_CMD_READ, { offset, length }));
  const chunks: Chunk[] = [];
  for (let done = false; !done; ) {
    const header = await socket.exactly(20);
    const type = header.readUInt16BE(6);
    const body = await socket.exactly(header.readUInt32BE(16));
    done = (header.readUInt16BE(4) & NBD_REPLY_FLAG_DONE) !== 0;
    if (type === NBD_REPLY_TYPE_NONE) continue;
    // An error with an offset has it at its end, data at its beginning.
    const at = type === NBD_REPLY_TYPE_OFFSET_DATA ? 0 : body.length - 8;
    chunks.push({ type, offset: Number(body.readBigUInt64BE(at)), body });
  }
  socket.destroy();
  return chunks;
}

t.test("C2: an error in a long read names the first bad block", requires({ lamina: true }), async (t) => {
  const bad = (LONGEST_READ_BYTES / BLOCK_BYTES) >>> 1;
  const badOffset = bad * BLOCK_BYTES;
  const lastBad = bad + 1200;
  const rotten = new Map([
    [bad, 99],
    [bad + 1, 5],
    [lastBad, 7],
  ]);
  const server = await serveRotten(t, rotten, LONGEST_READ_BYTES);
  const chunks = await chunksOf(server, 0, LONGEST_READ_BYTES);
  const errors = chunks.filter(({ type }) => type === NBD_REPLY_TYPE_ERROR_OFFSET);
  t.equal(errors.length, 1, "one error with an offset");
  const { offset, body } = errors[0]!;
  t.equal(body.readUInt32BE(0), NBD_EIO);
  t.equal(offset, badOffset, "which is that of the first bad block");
  const within = await chunksOf(server, badOffset + 4 + BLOCK_BYTES, BLOCK_BYTES);
  t.same(
    within.map(({ offset }) => offset),
    [badOffset + 4 + BLOCK_BYTES],
    "and lies inside the request where the block begins before it",
  );
  let bytes = 0;
  for (const { type, offset, body } of chunks) {
    if (type !== NBD_REPLY_TYPE_OFFSET_DATA) continue;
    const data = body.subarray(8);
    bytes += data.length;
    for (const block of rotten.keys()) {
      const at = block * BLOCK_BYTES;
      t.ok(at + BLOCK_BYTES <= offset || offset + data.length <= at, `no byte of bad block ${block}`);
    }
    const ids = decodeSectors(data, offset / SECTOR_BYTES);
    t.ok(
      ids.every((id) => id === WRITE_ID),
      `${data.length} bytes at ${offset} are what was written`,
    );
  }
  t.ok(bytes > 0 && bytes < LONGEST_READ_BYTES, `${bytes} bytes came nevertheless`);

  await t.test(
    "qemu-io: only a read that covers it fails",
    requires({ commands: ["qemu-io"] }),
    async (t) => {
      const read = async (at: number, length: number): Promise<string> => {
        const result = await run("qemu-io", ["-f", "raw", "-c", `read ${at} ${length}`, server.uri(VOLUME)]);
        return result.stdout + result.stderr;
      };
      t.match(await read(0, badOffset), /^read \d+\/\d+ bytes/m, "everything before it");
      t.match(await read(badOffset, BLOCK_BYTES), /Input\/output error/, "the block");
      const behind = (lastBad + 1) * BLOCK_BYTES;
      t.match(
        await read(behind, LONGEST_READ_BYTES - behind),
        /^read \d+\/\d+ bytes/m,
        "everything behind it",
      );
    },
  );

  await t.test("nbdcopy: fails and says why", requires({ commands: ["nbdcopy"] }), async (t) => {
    const copy = await run("nbdcopy", [server.uri(VOLUME), "null:"]);
    t.not(copy.code, 0);
    t.match(copy.stderr, /Input\/output error/);
  });
  await server.stop();
});
