/** A volume into a raw file. Holes stay holes. */
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import type { Progress } from "../progress.js";
import { inLanes } from "./lanes.js";
import { COPY_PIECE_BYTES, type NbdCopyClient } from "./nbd-client.js";
import { stretches } from "./zeros.js";

/** Bytes of one question about holes. */
const MAP_BYTES = 1024 * 1024 * 1024;
const PARTIAL_SUFFIX = ".partial";

interface Piece {
  readonly offset: number;
  readonly length: number;
}

/** Writes `path` beside itself first: a file of that name is whole. */
export async function exportRaw(client: NbdCopyClient, path: string, progress: Progress): Promise<void> {
  const partial = path + PARTIAL_SUFFIX;
  const file = await open(partial, "w", 0o600);
  try {
    await file.truncate(client.size);
    await inLanes(dataPieces(client, progress), (piece) => copyPiece(client, file, piece, progress));
    await file.sync();
  } catch (error) {
    await file.close();
    await rm(partial, { force: true });
    throw error;
  }
  await file.close();
  await rename(partial, path);
}

/** Pieces that have data, in order; one question at a time, however many lanes ask. */
function dataPieces(client: NbdCopyClient, progress: Progress): AsyncIterable<Piece> {
  const generator = eachDataPiece(client, progress);
  let last: Promise<unknown> = Promise.resolve();
  const next = (): Promise<IteratorResult<Piece>> => {
    const mine = last.then(() => generator.next());
    last = mine.catch(() => undefined);
    return mine;
  };
  return { [Symbol.asyncIterator]: () => ({ next }) };
}

async function* eachDataPiece(client: NbdCopyClient, progress: Progress): AsyncGenerator<Piece> {
  let at = 0;
  while (at < client.size) {
    for (const run of await client.map(at, Math.min(MAP_BYTES, client.size - at))) {
      const end = Math.min(run.offset + run.length, client.size);
      if (run.zero) progress.add(end - run.offset);
      else yield* cut(run.offset, end);
      at = end;
    }
  }
}

function* cut(start: number, end: number): Generator<Piece> {
  for (let offset = start; offset < end; offset += COPY_PIECE_BYTES) {
    yield { offset, length: Math.min(COPY_PIECE_BYTES, end - offset) };
  }
}

async function copyPiece(
  client: NbdCopyClient,
  file: FileHandle,
  piece: Piece,
  progress: Progress,
): Promise<void> {
  const bytes = Buffer.allocUnsafe(piece.length);
  await client.read(piece.offset, bytes);
  for (const { start, end, zero } of stretches(bytes)) {
    if (!zero) await writeAll(file, bytes.subarray(start, end), piece.offset + start);
  }
  progress.add(piece.length);
}

async function writeAll(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
