/** A raw file into a volume. Zeros stay holes. */
import type { FileHandle } from "node:fs/promises";
import { BLOCK_BYTES } from "../../core/limits.js";
import type { Progress } from "../progress.js";
import { inLanes } from "./lanes.js";
import { COPY_PIECE_BYTES, type NbdCopyClient } from "./nbd-client.js";
import { stretches } from "./zeros.js";

/**
 * Copies `size` bytes and flushes; the volume has whole blocks for all of them. `blank`: the volume is known to read as zeros, so zeros are left out;
 * otherwise they are written, as holes.
 */
export async function importRaw(
  client: NbdCopyClient,
  file: FileHandle,
  size: number,
  blank: boolean,
  progress: Progress,
): Promise<void> {
  await inLanes(pieces(size), async ({ offset, length }) => {
    const bytes = await wholeBlocks(client, file, offset, length);
    for (const { start, end, zero } of stretches(bytes)) {
      if (!zero) await client.write(offset + start, bytes.subarray(start, end));
      else if (!blank) await client.zero(offset + start, end - start);
    }
    progress.add(length);
  });
  await client.flush();
}

/** A piece of the image; one that ends inside a block is completed with what the volume has behind it. */
async function wholeBlocks(
  client: NbdCopyClient,
  file: FileHandle,
  offset: number,
  length: number,
): Promise<Buffer> {
  const whole = Math.ceil(length / BLOCK_BYTES) * BLOCK_BYTES;
  const bytes = Buffer.allocUnsafe(whole);
  if (whole > length) await client.read(offset + whole - BLOCK_BYTES, bytes.subarray(whole - BLOCK_BYTES));
  await readAll(file, bytes.subarray(0, length), offset);
  return bytes;
}

function* pieces(size: number): Generator<{ offset: number; length: number }> {
  for (let offset = 0; offset < size; offset += COPY_PIECE_BYTES) {
    yield { offset, length: Math.min(COPY_PIECE_BYTES, size - offset) };
  }
}

async function readAll(file: FileHandle, into: Buffer, position: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) throw new Error("the image became shorter while it was read");
    done += bytesRead;
  }
}
