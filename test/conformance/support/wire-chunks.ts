/**
 * Structured and extended replies as they are on the wire, read without lib/nbd: what its encoder and its decoder would
 * both get wrong is seen here.
 */
import type { RawSocket } from "../raw-socket.js";

const STRUCTURED_MAGIC = 0x668e33ef;
const EXTENDED_MAGIC = 0x6e8a278c;
const FLAG_DONE = 1;

export interface Chunk {
  readonly type: number;
  readonly body: Buffer;
}

/** All chunks of one reply; throws when a header is none of a reply to `cookie`. */
export async function replyOf(socket: RawSocket, extended: boolean, cookie = 1): Promise<Chunk[]> {
  const chunks: Chunk[] = [];
  for (;;) {
    const header = await socket.exactly(extended ? 32 : 20);
    if (header.readUInt32BE(0) !== (extended ? EXTENDED_MAGIC : STRUCTURED_MAGIC))
      throw new Error(`not a chunk: ${header.toString("hex")}`);
    const flags = header.readUInt16BE(4);
    if (flags > FLAG_DONE) throw new Error(`a chunk has flags ${flags}`);
    if (header.readBigUInt64BE(8) !== BigInt(cookie)) throw new Error("a reply to something else");
    const length = extended ? Number(header.readBigUInt64BE(24)) : header.readUInt32BE(16);
    chunks.push({ type: header.readUInt16BE(6), body: await socket.exactly(length) });
    if (flags === FLAG_DONE) return chunks;
  }
}
