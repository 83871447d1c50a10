/**
 * Whether the copies of a volume are equal: entries and bytes of every extent on all that hold it (DESIGN §10, I7); and
 * whether they hold what clients have been told.
 */
import { ExtentFlag, type ExtentListener, ExtentOp, ExtentOpKind } from "../../../lib/core/extent-io.js";
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { type Routine, startRoutine } from "../../../lib/core/routine.js";
import { Status } from "../../../lib/core/status.js";
import { Holders } from "../../../lib/replica/owner/holders.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import { simMemory } from "../memory.js";
import { EXTENT_BLOCKS, type NodeHost } from "./node-host.js";
import { NOTHING, VOLUME_EXTENTS, type VolumeRegisters } from "./registers.js";
import { writesIn } from "./sector-ids.js";

/** `done` with the first difference in words, or null. All nodes serve. */
export function copiesDiffer(
  nodes: readonly NodeHost[],
  record: ClusterRecord,
  registers: VolumeRegisters,
  done: (difference: string | null) => void,
): void {
  startRoutine(compare(nodes, record, registers), (error, difference) => {
    if (error !== null) throw error;
    done(difference ?? null);
  });
}

function* compare(
  nodes: readonly NodeHost[],
  record: ClusterRecord,
  registers: VolumeRegisters,
): Routine<string | null> {
  const holders = new Holders(record);
  const { bytes } = simMemory();
  for (let extent = 0; extent < VOLUME_EXTENTS; extent++) {
    let first: { readonly entries: Uint32Array; readonly content: Uint8Array } | null = null;
    for (const node of nodes) {
      const seat = record.members.findIndex((member) => member.node === node.id);
      // What a node still has that is no member counts for nothing.
      if (seat < 0) continue;
      if (!holders.holds(seat, extent)) {
        if (node.has(record.id, extent))
          return `node ${node.index} has extent ${extent}, which is not its own`;
        continue;
      }
      const op = new ExtentOp();
      // The store's own: it fills what is absent with zeros there.
      const memory = node.pool!.allocate(EXTENT_BLOCKS * BLOCK_BYTES);
      bytes.fill(0, memory, memory + EXTENT_BLOCKS * BLOCK_BYTES);
      yield* read(node, op, record.id, extent, memory);
      const where = `extent ${extent} of volume ${record.id} on node ${node.index}`;
      const content = bytes.slice(memory, memory + EXTENT_BLOCKS * BLOCK_BYTES);
      if (op.status === Status.Ok) check(registers, extent, op, memory);
      node.pool!.free(memory);
      if (op.status !== Status.Ok) return `${where} cannot be read: status ${op.status}`;
      const entries = op.entries.slice(0, EXTENT_BLOCKS);
      first ??= { entries, content };
      if (!entries.every((entry, i) => entry === first!.entries[i])) return `${where} has other entries`;
      if (Buffer.compare(content, first.content) !== 0) return `${where} has other bytes`;
    }
  }
  return null;
}

/** Throws Violation when a block shows what clients must not see any more. */
function check(registers: VolumeRegisters, extent: number, op: ExtentOp, memory: number): void {
  const shows = registers.beginRead(extent * EXTENT_BLOCKS, EXTENT_BLOCKS);
  for (let i = 0; i < EXTENT_BLOCKS; i++) {
    const at = memory + i * BLOCK_BYTES;
    shows(i, op.presentCount === 0 ? NOTHING : writesIn(at, !registers.hasPower));
  }
}

function* read(node: NodeHost, op: ExtentOp, volume: number, extent: number, memory: number): Routine<void> {
  op.kind = ExtentOpKind.Read;
  op.volume = volume;
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
