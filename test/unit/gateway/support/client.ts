/**
 * A client on a MemoryStream: the package's own client machines, which judge every reply.
 */
import {
  ClientHandshake,
  type ClientHandshakeOptions,
  type ClientRequest,
  ClientTransmission,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  type Negotiated,
  ReplyMode,
} from "nbd-protocol-ts";
import type { MemoryStream } from "./stream.js";

export interface Outcome {
  readonly type: number;
  readonly offset: number;
  readonly length: number;
  /** −1 while there is no reply. */
  errno: number;
  text: string;
  data: Uint8Array | null;
  /** Bytes that came as holes. */
  holeBytes: number;
  runs: number[];
}

const DEPTH = 512;

export class TestClient {
  readonly stream: MemoryStream;
  readonly handshake: ClientHandshake;
  negotiated: Negotiated | null = null;
  transmission: ClientTransmission | null = null;
  readonly #outcomes = new Map<ClientRequest, Outcome>();
  onDone: ((outcome: Outcome) => void) | null = null;
  /** Bytes are sent in parts of at most this many. */
  sendMax = Number.MAX_SAFE_INTEGER;

  constructor(stream: MemoryStream, options: ClientHandshakeOptions = {}) {
    this.stream = stream;
    this.handshake = new ClientHandshake(options);
    stream.clientListen((bytes) => this.#received(bytes));
  }

  get inFlight(): number {
    return this.transmission?.inFlight ?? 0;
  }

  /** Why the client has given up on the server; empty while it has not. */
  get complaint(): string {
    if (this.transmission !== null) return this.transmission.reason;
    return this.handshake.state === "dead" ? this.handshake.reason : "";
  }

  #received(bytes: Uint8Array): void {
    let at = 0;
    if (this.transmission === null) {
      at = this.handshake.feed(bytes);
      this.send(this.handshake.takeOutput());
      if (this.handshake.state !== "transmission") return;
      this.negotiated = this.handshake.negotiated!;
      this.transmission = new ClientTransmission(this.negotiated, this, DEPTH);
    }
    this.transmission.feed(bytes, at);
  }

  send(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += this.sendMax) {
      this.stream.clientSend(bytes.subarray(at, Math.min(bytes.length, at + this.sendMax)));
    }
  }

  /** The bytes of a request, and its outcome to be. Does not send. */
  encode(
    type: number,
    flags: number,
    offset: number,
    length: number,
    payload?: Uint8Array,
  ): [Outcome, Uint8Array] {
    const machine = this.transmission!;
    const extended = this.negotiated!.mode === ReplyMode.Extended;
    const bytes = new Uint8Array(machine.requestBytes + (payload?.length ?? 0));
    const view = new DataView(bytes.buffer);
    const all = extended && type === NBD_CMD_WRITE ? flags | NBD_CMD_FLAG_PAYLOAD_LEN : flags;
    const request = machine.begin(view, 0, type, all, offset, length);
    if (request === null) throw new Error("too many requests in flight for this client");
    if (payload !== undefined) bytes.set(payload, machine.requestBytes);
    const outcome: Outcome = {
      type,
      offset,
      length,
      errno: -1,
      text: "",
      data: null,
      holeBytes: 0,
      runs: [],
    };
    this.#outcomes.set(request, outcome);
    return [outcome, bytes];
  }

  request(type: number, flags: number, offset: number, length: number, payload?: Uint8Array): Outcome {
    const [outcome, bytes] = this.encode(type, flags, offset, length, payload);
    this.send(bytes);
    return outcome;
  }

  read(offset: number, length: number, flags = 0): Outcome {
    return this.request(NBD_CMD_READ, flags, offset, length);
  }

  write(offset: number, payload: Uint8Array, flags = 0): Outcome {
    return this.request(NBD_CMD_WRITE, flags, offset, payload.length, payload);
  }

  disconnect(): void {
    const bytes = new Uint8Array(this.transmission!.requestBytes);
    this.transmission!.disconnect(new DataView(bytes.buffer), 0);
    this.send(bytes);
  }

  readData(request: ClientRequest, offset: number, bytes: Uint8Array, start: number, end: number): void {
    this.#dataOf(request).set(bytes.subarray(start, end), offset - request.offset);
  }

  readHole(request: ClientRequest, offset: number, length: number): void {
    const outcome = this.#outcomes.get(request)!;
    outcome.holeBytes += length;
    this.#dataOf(request).fill(0, offset - request.offset, offset - request.offset + length);
  }

  /** Filled with what no reply said, so that a gap shows. */
  #dataOf(request: ClientRequest): Uint8Array {
    const outcome = this.#outcomes.get(request)!;
    outcome.data ??= new Uint8Array(request.length).fill(0xee);
    return outcome.data;
  }

  blockStatus(request: ClientRequest, _contextId: number, runs: Float64Array): void {
    this.#outcomes.get(request)!.runs = [...runs];
  }

  requestDone(request: ClientRequest): void {
    const outcome = this.#outcomes.get(request)!;
    this.#outcomes.delete(request);
    outcome.errno = request.errno;
    outcome.text = request.errorText;
    this.onDone?.(outcome);
  }
}
