/** What a block that was read says about the writes in it. */
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import { simMemory } from "../memory.js";
import { Violation } from "../violation.js";

const SECTOR_BYTES = 512;
const WORD_BYTES = 4;

/**
 * Numbers of the writes that the block at `memory` shows: one, or, where power was lost (`torn`), several with whole
 * sectors each: of what was on its way then, and was not flushed, any sectors may be there. Throws Violation.
 */
export function writesIn(memory: number, torn: boolean): ReadonlySet<number> {
  const { words } = simMemory();
  if (isOneWrite(memory)) return new Set([words[memory >>> 2]!]);
  const ids = new Set<number>();
  for (let at = memory; at < memory + BLOCK_BYTES; at += SECTOR_BYTES) {
    const id = words[at >>> 2]!;
    ids.add(id);
    for (let i = at >>> 2; i < (at + SECTOR_BYTES) >>> 2; i++) {
      if (words[i] !== id) throw new Violation("I8", `a sector of two writes, ${id} and ${words[i]}`);
    }
  }
  if (!torn && ids.size > 1)
    throw new Violation("I8", `a block of ${ids.size} writes, ${[...ids].join(", ")}, and nobody lost power`);
  return ids;
}

/** Whether all words of the block are equal, as of nearly every one: whoever equals what is a word behind it does. */
function isOneWrite(memory: number): boolean {
  const { buffer } = simMemory();
  const end = memory + BLOCK_BYTES;
  return buffer.compare(buffer, memory + WORD_BYTES, end, memory, end - WORD_BYTES) === 0;
}
