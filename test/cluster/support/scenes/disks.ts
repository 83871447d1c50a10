/** Disks that are full, and bytes that rot on them. */
import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AdminClient } from "../../../../lib/cli/client.js";
import type { NodeStatusView } from "../../../../lib/cli/cluster/views.js";
import type { Station } from "../cluster.js";
import type { MemoryDisk } from "../disk.js";
import { attach } from "../load.js";
import { SECTOR_BYTES, sectorNamedBy } from "../sector-codec.js";
import { twinAreas } from "../store-file.js";
import { awaySpan, KILLED_MS, LOAD_MS, type Scene, type Stage } from "./scene.js";

const BLOCK_BYTES = 4096;
const SECTORS_PER_BLOCK = BLOCK_BYTES / SECTOR_BYTES;
const FILL_EVERY_MS = { least: 50, most: 100 };
const ROTTEN_BLOCKS_MAX = 4;
/** Places of a store that are looked at for a block of the load. */
const LOOKS_MAX = 20_000;
/** Reads of one rotten block at a time, so that every copy is asked. */
const READS = 12;
/** Bytes per second. */
const SCRUB_PACE = 1024 ** 3;
const LOOK_MS = 50;
/** Looks at what a volume's new owner repairs, before the node reads everything once more. */
const MENDED_LOOKS_MAX = 100;

// ---- Full ------------------------------------------------------------------------------------------------

/** What is trimmed is given back, and taken by others before it is written again. */
function filled(which: "one" | "all"): Scene["play"] {
  return async (stage) => {
    const { disks } = stage.cluster;
    const full: readonly MemoryDisk[] = which === "all" ? disks : [stage.random.pick(disks)];
    await stage.stopLoad();
    await trimSome(stage);
    await stage.startLoad();
    const until = Date.now() + stage.random.between(awaySpan(stage).least, awaySpan(stage).most);
    while (Date.now() < until) {
      for (const disk of full) await disk.fill();
      await stage.during(FILL_EVERY_MS);
    }
    for (const disk of full) disk.release();
    await stage.during(LOAD_MS);
    await stage.stopLoad();
  };
}

/** A random half of the volume, so that it has to be allocated anew. */
async function trimSome({ at, volume, history, random }: Stage): Promise<void> {
  const half = history.sectors / 2;
  const sector = random.between(0, 9) * (half / 8);
  const client = await attach(at, volume);
  const operation = history.begin("zero", sector, half);
  await client.trim(sector * SECTOR_BYTES, half * SECTOR_BYTES);
  await client.zero(sector * SECTOR_BYTES, half * SECTOR_BYTES);
  history.acknowledge(operation);
  await client.close();
}

// ---- Rot -------------------------------------------------------------------------------------------------

interface Rotten {
  /** In the store's file. */
  readonly offset: number;
  /** First sector of the block in the volume. */
  readonly sector: number;
  readonly bytes: Buffer;
}

/** Changes a byte in blocks of the load on the device of `node`. */
function rot(stage: Stage, node: Station): Rotten[] {
  const file = openSync(join(node.data, "store.0"), "r+");
  try {
    const wanted = stage.random.between(1, ROTTEN_BLOCKS_MAX + 1);
    const made: Rotten[] = [];
    for (let look = 0; look < LOOKS_MAX && made.length < wanted; look++) {
      const block = stage.random.between(0, Math.floor(fstatSync(file).size / BLOCK_BYTES));
      const offset = block * BLOCK_BYTES;
      const bytes = Buffer.alloc(BLOCK_BYTES);
      readSync(file, bytes, 0, BLOCK_BYTES, offset);
      const sector = sectorNamedBy(bytes);
      if (sector === null || sector % SECTORS_PER_BLOCK !== 0) continue;
      if (made.some((other) => other.offset === offset)) continue;
      const at = stage.random.between(0, BLOCK_BYTES);
      bytes[at] = bytes[at]! ^ (1 << stage.random.between(0, 8));
      writeSync(file, bytes, at, 1, offset + at);
      made.push({ offset, sector, bytes });
    }
    return made;
  } finally {
    closeSync(file);
  }
}

/** The block is not what it was made to be. */
function isMended(node: Station, { offset, bytes }: Rotten): boolean {
  const file = openSync(join(node.data, "store.0"), "r");
  try {
    const now = Buffer.alloc(BLOCK_BYTES);
    readSync(file, now, 0, BLOCK_BYTES, offset);
    return !now.equals(bytes);
  } finally {
    closeSync(file);
  }
}

/** Readers of every copy find what has rotted, and it is put right from another. */
async function readUntilMended(stage: Stage, node: Station, rotten: readonly Rotten[]): Promise<void> {
  const client = await attach(stage.at, stage.volume);
  try {
    for (const one of rotten) {
      const place = `byte ${one.offset} of ${node.data}`;
      await stage.await(`what has rotted at ${place} (sector ${one.sector}) is put right`, async () => {
        const offset = one.sector * SECTOR_BYTES;
        await Promise.all(Array.from({ length: READS }, () => client.read(offset, BLOCK_BYTES)));
        return isMended(node, one);
      });
    }
  } finally {
    await client.close();
  }
}

/** Nobody reads it: the node finds what has rotted by itself, and whoever has the volume then puts it right. */
async function scrubUntilMended(stage: Stage, node: Station, rotten: readonly Rotten[]): Promise<void> {
  const admin = new AdminClient({ data: node.data });
  const areMended = (): boolean => rotten.every((one) => isMended(node, one));
  await stage.await(`what has rotted on ${node.data} is put right though nobody reads it`, async () => {
    if (areMended()) return true;
    await admin.ask("POST", "/v1/store/scrub", { pace: SCRUB_PACE });
    while ((await admin.ask<NodeStatusView>("GET", "/v1/status")).scrub.running) await sleep(LOOK_MS);
    // Its owner asks the nodes when it has taken the volume.
    const client = await attach(stage.at, stage.volume);
    for (let looks = 0; looks < MENDED_LOOKS_MAX && !areMended(); looks++) await sleep(LOOK_MS);
    await client.close();
    return areMended();
  });
}

async function rottenWhileStopped(stage: Stage): Promise<void> {
  const node = stage.random.pick(stage.cluster.nodes);
  await node.kill();
  const rotten = rot(stage, node);
  await stage.during(KILLED_MS);
  node.launch();
  await node.ready();
  await stage.during(LOAD_MS);
  await stage.stopLoad();
  await readUntilMended(stage, node, rotten);
}

async function rottenWhileRunning(stage: Stage): Promise<void> {
  const node = stage.random.pick(stage.cluster.nodes);
  const rotten = rot(stage, node);
  await stage.during(LOAD_MS);
  await stage.stopLoad();
  await scrubUntilMended(stage, node, rotten);
}

/** One of the two copies that there are of every page of metadata, of a device that was closed in order. */
async function rottenMetadata(stage: Stage): Promise<void> {
  const node = stage.random.pick(stage.cluster.nodes);
  await node.end();
  const path = join(node.data, "store.0");
  const areas = twinAreas(path);
  const copy = stage.random.pick(["a", "b"] as const);
  const file = openSync(path, "r+");
  for (const area of areas) {
    const offset = area[copy] + stage.random.between(0, area.bytes);
    const byte = Buffer.alloc(1);
    readSync(file, byte, 0, 1, offset);
    byte[0] = byte[0]! ^ (1 << stage.random.between(0, 8));
    writeSync(file, byte, 0, 1, offset);
  }
  closeSync(file);
  node.launch();
  await node.ready();
  await stage.during(LOAD_MS);
  await stage.stopLoad();
}

export const DISK_SCENES: readonly Scene[] = [
  { name: "fill a node's disk", needs: "disks", play: filled("one") },
  { name: "fill all disks", needs: "disks", play: filled("all") },
  { name: "bytes rot on a stopped node", play: rottenWhileStopped },
  { name: "bytes rot under a node", play: rottenWhileRunning },
  { name: "metadata rots", play: rottenMetadata },
];
