/** A raw file into a volume. Zeros stay holes, and holes of the file are not read. */
import type { FileHandle } from "node:fs/promises";
import { BLOCK_BYTES } from "../../core/limits.js";
import { dataRanges } from "../../uring/data-ranges.js";
import type { Progress } from "../progress.js";
import { inLanes } from "./lanes.js";
import { COPY_PIECE_BYTES, type NbdCopyClient } from "./nbd-client.js";
import { stretches } from "./zeros.js";

/** Bytes of one request for zeros: its length is a u32 where extended headers are not spoken. */
const HOLE_PIECE_BYTES = 1024 * 1024 * 1024;

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
  await inLanes(pieces(file, size), async ({ offset, length, hole }) => {
    if (hole) {
      if (!blank) await client.zero(offset, length);
      progress.add(length);
      return;
    }
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

interface Piece {
  readonly offset: number;
  readonly length: number;
  /** The file has nothing there; such pieces are whole blocks, and may be long. */
  readonly hole: boolean;
}

/** Pieces begin at whole blocks: a block that is partly data is read. */
function* pieces(file: FileHandle, size: number): Generator<Piece> {
  let at = 0;
  for (const { start, end } of dataRanges(file.fd, size)) {
    const from = Math.max(at, Math.floor(start / BLOCK_BYTES) * BLOCK_BYTES);
    yield* holes(at, from);
    at = Math.max(at, Math.min(size, Math.ceil(end / BLOCK_BYTES) * BLOCK_BYTES));
    for (let offset = from; offset < at; offset += COPY_PIECE_BYTES)
      yield { offset, length: Math.min(COPY_PIECE_BYTES, at - offset), hole: false };
  }
  // The end of a file that ends inside a block is copied as data: the rest of the block is the volume's.
  const whole = Math.max(at, Math.floor(size / BLOCK_BYTES) * BLOCK_BYTES);
  yield* holes(at, whole);
  if (whole < size) yield { offset: whole, length: size - whole, hole: false };
}

function* holes(from: number, to: number): Generator<Piece> {
  for (let offset = from; offset < to; offset += HOLE_PIECE_BYTES)
    yield { offset, length: Math.min(HOLE_PIECE_BYTES, to - offset), hole: true };
}

async function readAll(file: FileHandle, into: Buffer, position: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) throw new Error("the image became shorter while it was read");
    done += bytesRead;
  }
}
