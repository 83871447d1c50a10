/**
 * Servers that say whatever a test wants, and the program under AddressSanitizer against them: whatever comes over
 * the wire, it ends with 0 or 1 and a sentence, in bounded time.
 */
import { createServer, type Socket } from "node:net";
import { hasCommand, type RunResult, run } from "../../interop/support/process.js";
import { attachProgram } from "../../vm/support/attach.js";

export const MISSING: { skip?: string } =
  hasCommand("cc") && hasCommand("make") ? {} : { skip: "needs a C compiler and make" };

export const Option = { ExportName: 1, Abort: 2, Info: 6, Go: 7 } as const;
export const Reply = {
  Ack: 1,
  Info: 3,
  ErrUnsup: 0x80000001,
  ErrPolicy: 0x80000002,
  ErrTlsReqd: 0x80000005,
} as const;
export const ErrUnknown = 0x80000006;
export const Flag = {
  HasFlags: 1,
  ReadOnly: 2,
  Flush: 4,
  Fua: 8,
  Trim: 32,
  Zeroes: 64,
  MultiConn: 256,
} as const;
export const FLAGS: number = Flag.HasFlags | Flag.Flush | Flag.Fua | Flag.Trim | Flag.Zeroes | Flag.MultiConn;

const NBDMAGIC = "4e42444d41474943";
const IHAVEOPT = "49484156454f5054";

export function greeting(flags = 3): Buffer {
  return Buffer.concat([Buffer.from(NBDMAGIC + IHAVEOPT, "hex"), u16(flags)]);
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

/** A reply to an option; `length` may lie. */
export function reply(
  option: number,
  type: number,
  data: Buffer = Buffer.alloc(0),
  length = data.length,
): Buffer {
  return Buffer.concat([Buffer.from("0003e889045565a9", "hex"), u32(option), u32(type), u32(length), data]);
}

export function exportInfo(size: bigint, flags = FLAGS): Buffer {
  return Buffer.concat([u16(0), u64(size), u16(flags)]);
}

export function blockSizes(min: number, preferred: number, max: number): Buffer {
  return Buffer.concat([u16(3), u32(min), u32(preferred), u32(max)]);
}

/** What a good server says to GO. */
export function goodGo(size = 1n << 30n, flags = FLAGS): Buffer {
  return Buffer.concat([
    reply(Option.Go, Reply.Info, exportInfo(size, flags)),
    reply(Option.Go, Reply.Info, blockSizes(512, 4096, 1 << 25)),
    reply(Option.Go, Reply.Ack),
  ]);
}

export interface Script {
  readonly greeting?: Buffer;
  /** Answer to each option, by its number; null closes the connection. */
  readonly answer?: (option: number, data: Buffer, connection: number) => Buffer | null;
  /** Closes when everything was said. */
  readonly close?: boolean;
  /** Bytes of each piece in which it speaks. */
  readonly pieces?: number;
}

export interface Probed extends RunResult {
  readonly options: readonly number[];
  readonly connections: number;
}

/** Runs `probe` against the script. */
export async function probe(script: Script, ...args: string[]): Promise<Probed> {
  const options: number[] = [];
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    serve(socket, script, connections++, options);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  try {
    const result = await run(attachProgram("sanitize"), [
      "probe",
      `nbd://127.0.0.1:${port}/v`,
      "--json",
      ...args,
    ]);
    return { ...result, options, connections };
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}

const OPTION_HEADER = 16;

function serve(socket: Socket, script: Script, connection: number, options: number[]): void {
  let received = Buffer.alloc(0);
  let greeted = false;
  socket.setNoDelay(true);
  socket.on("error", () => {});
  const say = (bytes: Buffer): void => {
    const piece = script.pieces ?? bytes.length;
    for (let at = 0; at < bytes.length; at += piece) socket.write(bytes.subarray(at, at + piece));
    if (script.close === true) socket.end();
  };
  say(script.greeting ?? greeting());
  socket.on("data", (bytes: Buffer) => {
    received = Buffer.concat([received, bytes]);
    if (!greeted && received.length >= 4) {
      greeted = true;
      received = received.subarray(4);
    }
    while (received.length >= OPTION_HEADER && received.subarray(0, 8).toString("hex") === IHAVEOPT) {
      const option = received.readUInt32BE(8);
      const length = received.readUInt32BE(12);
      if (received.length < OPTION_HEADER + length) return;
      const data = received.subarray(OPTION_HEADER, OPTION_HEADER + length);
      received = received.subarray(OPTION_HEADER + length);
      options.push(option);
      const answer = (script.answer ?? (() => goodGo()))(option, data, connection);
      if (answer === null) socket.destroy();
      else say(answer);
    }
  });
}
