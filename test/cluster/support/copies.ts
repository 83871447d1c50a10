/** Whether stopped nodes hold the same: every extent's entries and bytes, read through the store itself. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { EXTENT_OP_BLOCKS_MAX, ExtentFlag, ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES, MIB } from "../../../lib/core/limits.js";
import { startRoutine } from "../../../lib/core/routine.js";
import { Status } from "../../../lib/core/status.js";
import { type MemberStore, openStore } from "../../../lib/store/index.js";
import { openEngine } from "../../../lib/uring/engine.js";

const POOL_BYTES = 16 * MIB;

/** Entry and digest of each block of an extent; absent ones are empty. */
type Blocks = readonly string[];
/** By "volume/layer/extent"; extents of zeros are left out. */
export type Content = ReadonlyMap<string, Blocks>;

/** What the store of a data directory holds. */
export async function contentOf(data: string): Promise<Content> {
  const path = join(data, "store.0");
  const engine = openEngine({ kind: "threads", poolBytes: POOL_BYTES });
  const opened = await engine.openDisk({ path });
  const { pool, clock, random, checksums } = engine;
  const nothing = (): undefined => undefined;
  const events = {
    bitRot: nothing,
    full: nothing,
    failed: nothing,
    lossy: nothing,
    adopted: nothing,
    extentChanged: nothing,
  };
  // Whatever was not synced is still in the page cache: for this look nobody has lost power.
  const bootId = `look ${Date.now()}`;
  const environment = { disk: opened.disk, pool, clock, random, ticker: engine, checksums, bootId, events };
  const store = await new Promise<MemberStore>((resolve, reject) => {
    const options = { path, stability: { isStable: () => false } };
    startRoutine(openStore(environment, options), (error, made) => {
      if (error === null) resolve(made!);
      else reject(error instanceof Error ? error : new Error(String(error)));
    });
  });
  const memory = pool.allocate(MIB);
  const found = new Map<string, Blocks>();
  for (const volume of store.volumesWithSlots()) {
    const extents: [layer: number, extent: number][] = [];
    store.inventory(volume, (layer, extent) => extents.push([layer, extent]));
    for (const [layer, extent] of extents) {
      const blocks = await blocksOf(store, pool.bytes, memory, { volume, layer, extent });
      if (blocks.some((block) => block !== "")) found.set(`${volume}/${layer}/${extent}`, blocks);
    }
  }
  await new Promise<void>((resolve) => store.close(() => resolve()));
  opened.disk.close();
  await engine.close();
  return found;
}

async function blocksOf(
  store: MemberStore,
  bytes: Uint8Array,
  memory: number,
  where: { readonly volume: number; readonly layer: number; readonly extent: number },
): Promise<Blocks> {
  const blocks: string[] = [];
  for (let block = 0; block < store.extentBlocks; block += EXTENT_OP_BLOCKS_MAX) {
    const op = Object.assign(new ExtentOp(), where);
    op.kind = ExtentOpKind.Read;
    op.block = block;
    op.blocks = Math.min(EXTENT_OP_BLOCKS_MAX, store.extentBlocks - block);
    op.flags = ExtentFlag.Entries;
    op.memory = memory;
    await new Promise<void>((resolve) => {
      op.listener = { extentDone: () => resolve() };
      store.submit(op);
    });
    for (let i = 0; i < op.blocks; i++) {
      const at = memory + i * BLOCK_BYTES;
      if (op.status !== Status.Ok) blocks.push(`status ${op.status}`);
      else if (((op.present[i >>> 5]! >>> (i & 31)) & 1) === 0) blocks.push("");
      else blocks.push(`${op.entries[i]!.toString(16)} ${digestOf(bytes.subarray(at, at + BLOCK_BYTES))}`);
    }
  }
  return blocks;
}

function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, 16);
}

/** What differs, one sentence each. */
export function differences(copies: readonly Content[]): string[] {
  const keys = new Set(copies.flatMap((copy) => [...copy.keys()]));
  const problems: string[] = [];
  for (const key of keys) {
    const extents = copies.map((copy) => copy.get(key) ?? []);
    const blocks = Math.max(...extents.map(({ length }) => length));
    const different = Array.from({ length: blocks }, (_, i) => extents.map((extent) => extent[i] ?? ""))
      .map((found, block) => ({ found, block }))
      .filter(({ found }) => new Set(found).size > 1);
    const first = different[0];
    if (first === undefined) continue;
    const found = first.found.map((one) => (one === "" ? "absent" : one)).join(" | ");
    problems.push(`extent ${key} differs in ${different.length} block(s), first in ${first.block}: ${found}`);
  }
  return problems;
}
