/** Whether the copies of the volume are equal: entries and bytes of every extent on all that hold it (DESIGN §10, I7). */
import { ExtentFlag, type ExtentListener, ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { type Routine, startRoutine } from "../../../lib/core/routine.js";
import { Status } from "../../../lib/core/status.js";
import { Holders } from "../../../lib/replica/owner/holders.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import { type SimPool, simMemory } from "../memory.js";
import { EXTENT_BLOCKS, type NodeHost } from "./node-host.js";
import { PROBE_VOLUME } from "./probe-owner.js";
import { VOLUME_EXTENTS } from "./volume-owner.js";

/** `done` with the first difference in words, or null. All nodes serve. */
export function copiesDiffer(
  nodes: readonly NodeHost[],
  record: ClusterRecord,
  pool: SimPool,
  done: (difference: string | null) => void,
): void {
  startRoutine(compare(nodes, record, pool), (error, difference) => {
    if (error !== null) throw error;
    done(difference ?? null);
  });
}

function* compare(nodes: readonly NodeHost[], record: ClusterRecord, pool: SimPool): Routine<string | null> {
  const holders = new Holders(record);
  const memory = pool.allocate(EXTENT_BLOCKS * BLOCK_BYTES);
  const { bytes } = simMemory();
  for (let extent = 0; extent < VOLUME_EXTENTS; extent++) {
    let first: { readonly entries: Uint32Array; readonly content: Uint8Array } | null = null;
    for (const node of nodes) {
      const seat = record.members.findIndex((member) => member.node === node.id);
      // What a node still has that is no member counts for nothing.
      if (seat < 0) continue;
      if (!holders.holds(seat, extent)) {
        if (has(node, extent)) return `node ${node.index} has extent ${extent}, which is not its own`;
        continue;
      }
      const op = new ExtentOp();
      bytes.fill(0, memory, memory + EXTENT_BLOCKS * BLOCK_BYTES);
      yield* read(node, op, extent, memory);
      const where = `extent ${extent} of node ${node.index}`;
      if (op.status !== Status.Ok) return `${where} cannot be read: status ${op.status}`;
      const entries = op.entries.slice(0, EXTENT_BLOCKS);
      const content = bytes.slice(memory, memory + EXTENT_BLOCKS * BLOCK_BYTES);
      first ??= { entries, content };
      if (!entries.every((entry, i) => entry === first!.entries[i])) return `${where} has other entries`;
      if (Buffer.compare(content, first.content) !== 0) return `${where} has other bytes`;
    }
  }
  pool.free(memory);
  return null;
}

function has(node: NodeHost, extent: number): boolean {
  let found = false;
  node.store!.inventory(PROBE_VOLUME, (_layer, one) => {
    if (one === extent) found = true;
  });
  return found;
}

function* read(node: NodeHost, op: ExtentOp, extent: number, memory: number): Routine<void> {
  op.kind = ExtentOpKind.Read;
  op.volume = PROBE_VOLUME;
  op.extent = extent;
  op.blocks = EXTENT_BLOCKS;
  op.memory = memory;
  op.flags = ExtentFlag.Entries;
  yield (resume) => {
    const listener: ExtentListener = { extentDone: () => resume(0) };
    op.listener = listener;
    node.store!.submit(op);
  };
}
