// Client machine against server machine, in memory: whatever the client asks for, both end with the same
// agreement; then random requests, legal and not, against a plain model of a disk.
import fc from "fast-check";
import {
  type BlockStatusPayload,
  ClientHandshake,
  type ClientHandshakeOptions,
  type ClientRequest,
  ClientTransmission,
  encodeBlockStatus,
  encodeError,
  encodeNone,
  encodeOffsetData,
  encodeOffsetHole,
  encodeSimpleReply,
  encodeSuccess,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_DF,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLAG_REQ_ONE,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_EINVAL,
  NBD_ENOSPC,
  type Negotiated,
  REPLY_BYTES_MAX,
  type ReplyListener,
  ReplyMode,
  type RequestHeader,
  type RequestListener,
  rulesFor,
  ServerHandshake,
  ServerTransmission,
  type Verdict,
} from "nbd-protocol-ts";
import t from "tap";
import { directoryOf, OTHER, VOL } from "./helpers.js";

const SIZE = 64 * 1024;
const EXPORT = { ...VOL, size: SIZE, contexts: ["base:allocation", "lamina:a"] };

function agree(options: ClientHandshakeOptions): { server: Negotiated; client: Negotiated } {
  const server = new ServerHandshake({ directory: directoryOf(EXPORT, OTHER), tlsMode: "selective" });
  const client = new ClientHandshake(options);
  for (let turn = 0; turn < 20 && client.state !== "transmission"; turn++) {
    client.feed(server.takeOutput());
    server.feed(client.takeOutput());
    if (server.state === "starttls") {
      client.feed(server.takeOutput());
      server.tlsEstablished();
      client.tlsEstablished();
    }
    if (server.state === "opening") server.opened(server.opening!.info);
  }
  if (client.negotiated === null || server.negotiated === null)
    throw new Error(client.reason || server.reason);
  return { server: server.negotiated, client: client.negotiated };
}

const wishes = fc.record(
  {
    exportName: fc.constantFrom("", "vol", "other"),
    tls: fc.constantFrom("off", "allow", "require"),
    extendedHeaders: fc.boolean(),
    structuredReplies: fc.boolean(),
    contexts: fc.subarray(["base:allocation", "lamina:a", "base:", "x-none:y"]),
    blockSizes: fc.boolean(),
    oldExportName: fc.boolean(),
    noZeroes: fc.boolean(),
  },
  { requiredKeys: [] },
);

t.test("property: both sides end with the same agreement", async (t) => {
  fc.assert(
    fc.property(wishes, (options) => {
      const { server, client } = agree(options as ClientHandshakeOptions);
      // Sizes that were not asked for are the defaults on the client's side.
      const known = client.blockSizeNegotiated ? client : { ...client, blockSizes: server.blockSizes };
      const same = JSON.stringify({ ...known }) === JSON.stringify({ ...server });
      const wanted = options.tls === "require" || options.tls === "allow";
      return same && client.tls === wanted;
    }),
    { numRuns: 300 },
  );
  t.pass("300 handshakes");
});

/** A server over a plain array, in the shape that the README shows. */
class ModelServer implements RequestListener {
  readonly disk: Uint8Array;
  readonly #negotiated: Negotiated;
  readonly #stream: ServerTransmission;
  readonly #out = new DataView(new ArrayBuffer(4 * SIZE + 64 * REPLY_BYTES_MAX));
  #end = 0;
  #written: number[] = [];

  constructor(negotiated: Negotiated, disk: Uint8Array) {
    this.disk = disk;
    this.#negotiated = negotiated;
    this.#stream = new ServerTransmission(negotiated, rulesFor(negotiated), this);
  }

  answer(bytes: Uint8Array): Uint8Array {
    this.#end = 0;
    const taken = this.#stream.feed(bytes);
    if (taken !== bytes.length) throw new Error(this.#stream.reason);
    return new Uint8Array(this.#out.buffer.slice(0, this.#end));
  }

  writeBegins(): void {
    this.#written = [];
  }

  payload(bytes: Uint8Array, start: number, end: number): void {
    this.#written.push(...bytes.subarray(start, end));
  }

  requestRefused(header: RequestHeader, verdict: Verdict): void {
    const { mode } = this.#negotiated;
    this.#end += encodeError(this.#out, this.#end, mode, header, verdict.errno, verdict.textBytes);
  }

  requestDone(header: RequestHeader, filter: BlockStatusPayload | null): void {
    const { mode } = this.#negotiated;
    const { type, offset, length } = header;
    if (type === NBD_CMD_READ) this.#read(header);
    else if (type === NBD_CMD_BLOCK_STATUS) this.#status(header, filter);
    else {
      if (type === NBD_CMD_WRITE) this.disk.set(this.#written, offset);
      if (type === NBD_CMD_TRIM || type === NBD_CMD_WRITE_ZEROES) this.disk.fill(0, offset, offset + length);
      this.#end += encodeSuccess(this.#out, this.#end, mode, header);
    }
  }

  #data(from: number, to: number): void {
    new Uint8Array(this.#out.buffer).set(this.disk.subarray(from, to), this.#end);
    this.#end += to - from;
  }

  #read(header: RequestHeader): void {
    const { mode } = this.#negotiated;
    const { offset, length } = header;
    if (mode === ReplyMode.Simple) {
      this.#end += encodeSimpleReply(this.#out, this.#end, header, 0);
      this.#data(offset, offset + length);
      return;
    }
    const df = (header.flags & NBD_CMD_FLAG_DF) !== 0;
    for (const [from, to, zero] of df
      ? [[offset, offset + length, false] as const]
      : this.#runs(offset, length)) {
      if (zero) this.#end += encodeOffsetHole(this.#out, this.#end, mode, header, 0, from, to - from);
      else {
        this.#end += encodeOffsetData(this.#out, this.#end, mode, header, 0, from, to - from);
        this.#data(from, to);
      }
    }
    this.#end += encodeNone(this.#out, this.#end, mode, header);
  }

  /** Stretches of [offset, offset + length) that are all zero, or not. */
  #runs(offset: number, length: number): (readonly [number, number, boolean])[] {
    const runs: (readonly [number, number, boolean])[] = [];
    let from = offset;
    for (let at = offset; at < offset + length; at += 512) {
      const to = Math.min(at + 512, offset + length);
      const zero = this.disk.subarray(at, to).every((byte) => byte === 0);
      const last = runs.at(-1);
      if (last !== undefined && last[2] === zero) runs[runs.length - 1] = [last[0], to, zero];
      else runs.push([from, to, zero]);
      from = to;
    }
    return runs;
  }

  #status(header: RequestHeader, filter: BlockStatusPayload | null): void {
    const { mode, contexts } = this.#negotiated;
    const length = filter?.length ?? header.length;
    const ids =
      filter === null ? contexts.map(({ id }) => id) : Array.from(filter.ids.subarray(0, filter.count));
    const runs = Float64Array.from(
      this.#runs(header.offset, length).flatMap(([a, b, z]) => [b - a, z ? 3 : 0]),
    );
    const reqOne = (header.flags & NBD_CMD_FLAG_REQ_ONE) !== 0;
    for (const id of ids) {
      const done = id === ids.at(-1) ? 1 : 0;
      const at = this.#end;
      this.#end += encodeBlockStatus(
        this.#out,
        at,
        8192,
        mode,
        header,
        done,
        id,
        runs,
        runs.length / 2,
        length,
        reqOne,
      );
    }
  }
}

/** Assembles what replies say. */
class Assembler implements ReplyListener {
  read = new Map<number, number>();
  statuses = 0;
  finished: ClientRequest | null = null;

  readData(_request: ClientRequest, offset: number, bytes: Uint8Array, start: number, end: number): void {
    for (let i = start; i < end; i++) this.read.set(offset + i - start, bytes[i]!);
  }

  readHole(_request: ClientRequest, offset: number, length: number): void {
    for (let i = 0; i < length; i++) this.read.set(offset + i, 0);
  }

  blockStatus(): void {
    this.statuses++;
  }

  requestDone(request: ClientRequest): void {
    this.finished = request;
  }
}

interface Command {
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  readonly fill: number;
  readonly filtered: boolean;
}

const commands: fc.Arbitrary<Command> = fc.record({
  type: fc.integer({ min: 0, max: 8 }).filter((type) => type !== 2),
  flags: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 31 })),
  offset: fc.oneof(
    fc.integer({ min: 0, max: 130 }).map((sector) => sector * 512),
    fc.integer({ min: 0, max: SIZE + 100 }),
  ),
  length: fc.oneof(
    fc.integer({ min: 0, max: 40 }).map((sector) => sector * 512),
    fc.integer({ min: 0, max: 3000 }),
  ),
  fill: fc.constantFrom(0, 1, 255),
  filtered: fc.boolean(),
});

t.test("property: random requests, legal and not, against a model", async (t) => {
  let executed = 0;
  let refused = 0;
  const run = (options: ClientHandshakeOptions, sequence: readonly Command[]): boolean => {
    const agreement = agree({ ...options, exportName: "vol" });
    const disk = new Uint8Array(SIZE);
    const server = new ModelServer(agreement.server, new Uint8Array(SIZE));
    const assembler = new Assembler();
    const client = new ClientTransmission(agreement.client, assembler, 1);
    const extended = agreement.client.mode === ReplyMode.Extended;
    for (const command of sequence) {
      const { type, offset, length, fill } = command;
      const filtered = extended && type === NBD_CMD_BLOCK_STATUS && command.filtered;
      const carry = extended && (type === NBD_CMD_WRITE || filtered) ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
      const ids = filtered ? agreement.client.contexts.slice(0, 1).map(({ id }) => id) : [];
      const payload = type === NBD_CMD_WRITE ? length : filtered ? 8 + 4 * ids.length : 0;
      const bytes = new Uint8Array(client.requestBytes + payload).fill(fill);
      const view = new DataView(bytes.buffer);
      const named = payload > 0 ? payload : length;
      client.begin(view, 0, type, command.flags | carry, offset, length, named, ids.length);
      if (filtered) {
        view.setUint32(client.requestBytes, 0);
        view.setUint32(client.requestBytes + 4, length);
        for (const id of ids) view.setUint32(client.requestBytes + 8, id);
      }
      assembler.read.clear();
      assembler.statuses = 0;
      assembler.finished = null;
      client.feed(server.answer(bytes));
      const done = assembler.finished as ClientRequest | null;
      if (client.dead || done === null) throw new Error(`no end: ${client.reason}`);
      if (done.errno !== 0) {
        if (done.errno !== NBD_EINVAL && done.errno !== NBD_ENOSPC) throw new Error(`errno ${done.errno}`);
        refused++;
        continue;
      }
      executed++;
      if (type === NBD_CMD_WRITE) disk.fill(fill, offset, offset + length);
      if (type === NBD_CMD_TRIM || type === NBD_CMD_WRITE_ZEROES) disk.fill(0, offset, offset + length);
      if (type !== NBD_CMD_READ) continue;
      for (let i = 0; i < length; i++) if (assembler.read.get(offset + i) !== disk[offset + i]) return false;
    }
    return Buffer.compare(disk, server.disk) === 0;
  };
  fc.assert(
    fc.property(wishes, fc.array(commands, { minLength: 1, maxLength: 20 }), (options, sequence) =>
      run(options as ClientHandshakeOptions, sequence),
    ),
    { numRuns: 200 },
  );
  t.ok(executed > 200, `${executed} requests were executed`);
  t.ok(refused > 200, `${refused} requests were refused`);
});
