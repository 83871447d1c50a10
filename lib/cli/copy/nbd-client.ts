/**
 * An NBD client for copying: requests as promises over node:net. The protocol is nbd-protocol-ts's, which
 * also checks every rule that the server has to keep; every reply is waited for and its error reported.
 */
import { connect, type Socket } from "node:net";
import {
  ClientHandshake,
  type ClientRequest,
  ClientTransmission,
  errorName,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_META_BASE_ALLOCATION,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
  type NbdEndpoint,
  type Negotiated,
  type ReplyListener,
  ReplyMode,
} from "nbd-protocol-ts";
import { type ClientTls, secure } from "./tls.js";

/** Requests in flight. */
export const COPY_DEPTH = 16;
/** Bytes of one request. */
export const COPY_PIECE_BYTES = 1024 * 1024;
/** A connection without any answer for this long has failed. */
const SILENCE_MS = 120_000;

export interface Run {
  readonly offset: number;
  readonly length: number;
  /** Reads as zeros. */
  readonly zero: boolean;
}

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  /** READ: where its bytes go. */
  readonly into: Buffer | null;
  /** BLOCK_STATUS: what it found. */
  readonly runs: Run[];
}

export class NbdCopyClient implements ReplyListener {
  readonly size: number;
  readonly #socket: Socket;
  readonly #replies: ClientTransmission;
  readonly #payloadFlag: number;
  readonly #waiting = new Map<ClientRequest, Waiting>();
  #failed: Error | null = null;

  private constructor(socket: Socket, negotiated: Negotiated, rest: Buffer) {
    this.#socket = socket;
    this.size = negotiated.size;
    this.#payloadFlag = negotiated.mode === ReplyMode.Extended ? NBD_CMD_FLAG_PAYLOAD_LEN : 0;
    this.#replies = new ClientTransmission(negotiated, this, COPY_DEPTH);
    socket.on("data", (bytes: Buffer) => this.#feed(bytes));
    socket.resume();
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("the server closed the connection")));
    socket.on("timeout", () => this.#fail(new Error(`no answer within ${SILENCE_MS / 1000} s`)));
    if (rest.length > 0) this.#feed(rest);
  }

  /** `tls`: the connection is encrypted, or not made. */
  static async connect(
    endpoint: NbdEndpoint,
    exportName: string,
    tls: ClientTls | null = null,
  ): Promise<NbdCopyClient> {
    const where =
      endpoint.kind === "unix" ? { path: endpoint.path } : { host: endpoint.host, port: endpoint.port };
    const socket = connect(where);
    if (endpoint.kind === "tcp") socket.setNoDelay(true);
    socket.setTimeout(SILENCE_MS);
    const contexts = [NBD_META_BASE_ALLOCATION];
    const machine = new ClientHandshake({ exportName, contexts, tls: tls === null ? "off" : "require" });
    let session = await shakeHands(socket, machine);
    if (machine.state === "starttls" && tls !== null) {
      const secured = await secure(socket, endpoint.kind === "tcp" ? endpoint.host : "localhost", tls);
      secured.setTimeout(SILENCE_MS);
      machine.tlsEstablished();
      session = await shakeHands(secured, machine);
    }
    const { negotiated } = machine;
    if (negotiated === null) throw new Error("the handshake ended without an export");
    return new NbdCopyClient(session.socket, negotiated, session.rest);
  }

  /** Reads `into.length` bytes; holes as zeros. */
  async read(offset: number, into: Buffer): Promise<void> {
    await this.#request(NBD_CMD_READ, offset, into.length, into, null);
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    await this.#request(NBD_CMD_WRITE, offset, bytes.length, null, bytes);
  }

  async zero(offset: number, length: number): Promise<void> {
    await this.#request(NBD_CMD_WRITE_ZEROES, offset, length, null, null);
  }

  async flush(): Promise<void> {
    await this.#request(NBD_CMD_FLUSH, 0, 0, null, null);
  }

  /** What is there from `offset` on; may cover less than `length`, but something. */
  async map(offset: number, length: number): Promise<readonly Run[]> {
    const { runs } = await this.#request(NBD_CMD_BLOCK_STATUS, offset, length, null, null);
    if (runs.length === 0) throw new Error("the server answered block status with nothing");
    return runs;
  }

  /** Says goodbye; what is in flight is not waited for. */
  close(): void {
    if (this.#failed !== null) return;
    this.#failed = new Error("the connection was closed");
    const header = Buffer.alloc(this.#replies.requestBytes);
    this.#replies.disconnect(viewOf(header), 0);
    this.#socket.end(header);
    this.#socket.resume();
  }

  async #request(
    type: number,
    offset: number,
    length: number,
    into: Buffer | null,
    payload: Buffer | null,
  ): Promise<Waiting> {
    if (this.#failed !== null) throw this.#failed;
    const header = Buffer.alloc(this.#replies.requestBytes);
    const flags = payload === null ? 0 : this.#payloadFlag;
    const request = this.#replies.begin(viewOf(header), 0, type, flags, offset, length);
    if (request === null) throw new Error(`more than ${COPY_DEPTH} requests at once`);
    return new Promise<Waiting>((resolve, reject) => {
      const waiting: Waiting = { resolve: () => resolve(waiting), reject, into, runs: [] };
      this.#waiting.set(request, waiting);
      this.#socket.write(header);
      if (payload !== null) this.#socket.write(payload);
    });
  }

  #feed(bytes: Buffer): void {
    this.#replies.feed(bytes);
    if (this.#replies.dead) this.#fail(new Error(`the server broke the protocol: ${this.#replies.reason}`));
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    this.#socket.destroy();
    for (const { reject } of this.#waiting.values()) reject(this.#failed);
    this.#waiting.clear();
  }

  // ---- Told by the protocol machine -------------------------------------------------------------------------

  readData(request: ClientRequest, offset: number, bytes: Uint8Array, start: number, end: number): void {
    this.#waiting.get(request)?.into?.set(bytes.subarray(start, end), offset - request.offset);
  }

  readHole(request: ClientRequest, offset: number, length: number): void {
    const at = offset - request.offset;
    this.#waiting.get(request)?.into?.fill(0, at, at + length);
  }

  blockStatus(request: ClientRequest, _contextId: number, runs: Float64Array): void {
    const found = this.#waiting.get(request)?.runs ?? [];
    let at = request.offset;
    for (let i = 0; i < runs.length; i += 2) {
      const length = runs[i]!;
      found.push({ offset: at, length, zero: (runs[i + 1]! & ZERO_FLAGS) !== 0 });
      at += length;
    }
  }

  requestDone(request: ClientRequest): void {
    const waiting = this.#waiting.get(request);
    this.#waiting.delete(request);
    if (request.errno === 0) waiting?.resolve();
    else
      waiting?.reject(
        new Error(`${errorName(request.errno)}${request.errorText === "" ? "" : `: ${request.errorText}`}`),
      );
  }
}

/** A hole of a volume has nothing below it: it reads as zeros as well. */
const ZERO_FLAGS = NBD_STATE_ZERO | NBD_STATE_HOLE;

interface Shaken {
  readonly socket: Socket;
  /** What came behind the handshake. */
  readonly rest: Buffer;
}

/** Speaks the handshake until there is an export, or TLS is to begin. */
function shakeHands(socket: Socket, machine: ClientHandshake): Promise<Shaken> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    const onClose = (): void => fail(new Error("the server closed the connection during the handshake"));
    const onTimeout = (): void => fail(new Error("no answer to the handshake"));
    const send = (): void => {
      const output = machine.takeOutput();
      if (output.length > 0) socket.write(output);
    };
    const onData = (bytes: Buffer): void => {
      const taken = machine.feed(bytes);
      send();
      if (machine.state === "closed" || machine.state === "dead") fail(new Error(machine.reason));
      if (machine.negotiated === null && machine.state !== "starttls") return;
      socket.off("data", onData).off("error", fail).off("close", onClose).off("timeout", onTimeout);
      // Not one byte is to be read by anyone but TLS, or the client of the transmission phase.
      socket.pause();
      resolve({ socket, rest: bytes.subarray(taken) });
    };
    socket.on("data", onData).on("error", fail).on("close", onClose).on("timeout", onTimeout);
    send();
  });
}

function viewOf(buffer: Buffer): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
}
