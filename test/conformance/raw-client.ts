/**
 * A client that can say what no well-behaved client says, and that believes nothing.
 *
 * `Haggling` is a connection before transmission: any option, with any length, and the replies to it.
 * `Session` is a connection in transmission. Its replies go through lib/nbd's ClientTransmission, which checks
 * every rule that a server has to keep, so each session is its own oracle: a reply that breaks a rule rejects
 * everything that waits with the rule's name. What the machine does not know (bytes that are no request) goes
 * out by `send`.
 */
import {
  type BlockSizes,
  type ClientRequest,
  ClientTransmission,
  GREETING_BYTES,
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_EXPORT,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_GO,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ACK,
  NBD_REP_FLAG_ERROR,
  NBD_REP_MAGIC_HIGH,
  NBD_REP_MAGIC_LOW,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  type Negotiated,
  OPTION_REPLY_HEADER_BYTES,
  optionReplyName,
  parseContextReply,
  parseInfoReply,
  ReplyMode,
  type SelectedContext,
} from "nbd-protocol-ts";
import { contextData, infoData, option, u32 } from "./encode.js";
import { PeerClosed, type Place, RawSocket } from "./raw-socket.js";

/** FIXED_NEWSTYLE and NO_ZEROES. */
export const CLIENT_FLAGS = 3;
/** Requests that a session can have in flight. */
const DEPTH = 1024;

export interface Answer {
  readonly option: number;
  /** Number and name of the reply type. */
  readonly code: number;
  readonly type: string;
  readonly data: Buffer;
}

export interface SessionOptions {
  readonly mode?: ReplyMode;
  readonly contexts?: readonly string[];
  readonly infos?: readonly number[];
}

export class Haggling {
  readonly socket: RawSocket;
  /** Handshake flags of the greeting. */
  readonly flags: number;
  readonly greeting: Buffer;

  private constructor(socket: RawSocket, greeting: Buffer) {
    this.socket = socket;
    this.greeting = greeting;
    this.flags = greeting.readUInt16BE(16);
  }

  /** Reads the greeting and answers with `clientFlags`, or with nothing when they are null. */
  static async begin(place: Place, clientFlags: number | null = CLIENT_FLAGS): Promise<Haggling> {
    const socket = await RawSocket.connect(place);
    const greeting = await socket.exactly(GREETING_BYTES);
    const magics = [NBDMAGIC_HIGH, NBDMAGIC_LOW, IHAVEOPT_HIGH, IHAVEOPT_LOW];
    for (const [i, magic] of magics.entries()) {
      if (greeting.readUInt32BE(4 * i) !== magic) throw new Error("the greeting has a wrong magic");
    }
    if (clientFlags !== null) socket.send(u32(clientFlags));
    return new Haggling(socket, greeting);
  }

  send(...parts: readonly Uint8Array[]): void {
    this.socket.send(...parts);
  }

  /** The next reply to an option. */
  async answer(): Promise<Answer> {
    const header = await this.socket.exactly(OPTION_REPLY_HEADER_BYTES);
    if (header.readUInt32BE(0) !== NBD_REP_MAGIC_HIGH || header.readUInt32BE(4) !== NBD_REP_MAGIC_LOW) {
      throw new Error("an option reply has a wrong magic");
    }
    const code = header.readUInt32BE(12);
    const data = await this.socket.exactly(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), code, type: optionReplyName(code), data };
  }

  /** All replies up to the final one. */
  async answers(): Promise<Answer[]> {
    const all: Answer[] = [];
    for (;;) {
      const answer = await this.answer();
      all.push(answer);
      if (answer.code === NBD_REP_ACK || answer.code >= NBD_REP_FLAG_ERROR) return all;
    }
  }

  /** Sends one option and returns all of its replies. */
  async ask(number: number, data?: Uint8Array, claimed?: number): Promise<Answer[]> {
    this.send(option(number, data, claimed));
    return this.answers();
  }

  /** The same, when only the final reply's name matters. */
  async outcome(number: number, data?: Uint8Array): Promise<string> {
    return (await this.ask(number, data)).at(-1)!.type;
  }

  /** Negotiates the rest with GO. */
  async go(name: string, options: SessionOptions = {}): Promise<Session> {
    const { mode = ReplyMode.Simple, contexts = [], infos = [] } = options;
    if (mode === ReplyMode.Structured) await this.#must(NBD_OPT_STRUCTURED_REPLY);
    if (mode === ReplyMode.Extended) await this.#must(NBD_OPT_EXTENDED_HEADERS);
    const selected: SelectedContext[] = [];
    if (contexts.length > 0) {
      for (const { data, code } of await this.#must(NBD_OPT_SET_META_CONTEXT, contextData(name, contexts))) {
        if (code !== NBD_REP_ACK) selected.push(parseContextReply(data)!);
      }
    }
    const answers = await this.#must(NBD_OPT_GO, infoData(name, infos));
    return new Session(this.socket, negotiatedBy(name, mode, selected, answers));
  }

  async #must(number: number, data?: Uint8Array): Promise<Answer[]> {
    const answers = await this.ask(number, data);
    const last = answers.at(-1)!;
    if (last.code !== NBD_REP_ACK) throw new Error(`option ${number}: ${last.type}: ${last.data.toString()}`);
    return answers;
  }
}

function negotiatedBy(
  exportName: string,
  mode: ReplyMode,
  contexts: readonly SelectedContext[],
  answers: readonly Answer[],
): Negotiated {
  let size = -1;
  let flags = 0;
  let blockSizes: BlockSizes = { minimum: 1, preferred: 4096, maximumPayload: 32 << 20 };
  let blockSizeNegotiated = false;
  for (const { data, code } of answers) {
    const info = code === NBD_REP_ACK ? null : parseInfoReply(data);
    if (info?.info === NBD_INFO_EXPORT) ({ size, flags } = info);
    if (info?.info === NBD_INFO_BLOCK_SIZE) {
      blockSizes = info.blockSizes;
      blockSizeNegotiated = true;
    }
  }
  if (size < 0) throw new Error("GO succeeded without NBD_INFO_EXPORT");
  return {
    exportName,
    size,
    flags,
    mode,
    contexts,
    blockSizeNegotiated,
    blockSizes,
    noZeroes: true,
    tls: false,
  };
}

/** Straight to transmission. */
export async function openSession(
  place: Place,
  name: string,
  options: SessionOptions = {},
): Promise<Session> {
  return (await Haggling.begin(place)).go(name, options);
}

export interface Status {
  readonly contextId: number;
  /** Pairs of length and flags. */
  readonly runs: readonly number[];
}

/** How a request ended. */
export interface Reply {
  readonly errno: number;
  readonly text: string;
  /** Content of a READ; holes are zeros. */
  readonly data: Buffer;
  /** Pieces of content that came as data and as holes, as [offset, length]. */
  readonly holes: readonly (readonly [number, number])[];
  readonly status: readonly Status[];
}

export interface Asked {
  readonly flags?: number;
  readonly offset?: number;
  /** Effect length. */
  readonly length?: number;
  readonly payload?: Uint8Array;
  /** Contexts that a BLOCK_STATUS with a payload asks about. */
  readonly contexts?: number;
  /** Changes the header's bytes before they are sent. */
  readonly patch?: (header: Buffer) => void;
}

interface Pending {
  readonly data: Buffer;
  readonly holes: [number, number][];
  readonly status: Status[];
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

/** READs longer than this are believed to fail: no memory is set aside for their content. */
const CONTENT_BYTES_MAX = 64 << 20;

export class Session {
  readonly socket: RawSocket;
  readonly negotiated: Negotiated;
  readonly #machine: ClientTransmission;
  readonly #pending = new Map<ClientRequest, Pending>();
  /** Why no reply is believed or expected any more; null while all is well. */
  #over: Error | null = null;

  constructor(socket: RawSocket, negotiated: Negotiated) {
    this.socket = socket;
    this.negotiated = negotiated;
    const listener = {
      readData: (request: ClientRequest, offset: number, bytes: Uint8Array, start: number, end: number) => {
        this.#pending.get(request)!.data.set(bytes.subarray(start, end), offset - request.offset);
      },
      readHole: (request: ClientRequest, offset: number, length: number) => {
        this.#pending.get(request)!.holes.push([offset, length]);
      },
      blockStatus: (request: ClientRequest, contextId: number, runs: Float64Array) => {
        this.#pending.get(request)!.status.push({ contextId, runs: [...runs] });
      },
      requestDone: (request: ClientRequest) => {
        const { data, holes, status, resolve } = this.#pending.get(request)!;
        this.#pending.delete(request);
        resolve({ errno: request.errno, text: request.errorText, data, holes, status });
      },
    };
    this.#machine = new ClientTransmission(negotiated, listener, DEPTH);
    const early = socket.take(socket.available);
    socket.onBytes = (bytes) => this.#received(bytes);
    socket.onClosed = () => this.#end(new PeerClosed("the peer closed the connection"));
    if (early.length > 0) this.#received(early);
    if (socket.closed) this.#end(new PeerClosed("the peer closed the connection"));
  }

  get extended(): boolean {
    return this.negotiated.mode === ReplyMode.Extended;
  }

  /** The rule that the server broke, or empty. */
  get violation(): string {
    return this.#machine.reason;
  }

  get inFlight(): number {
    return this.#machine.inFlight;
  }

  send(...parts: readonly Uint8Array[]): void {
    this.socket.send(...parts);
  }

  /** One request, whether legal or not. Rejected when the connection ends before it is answered. */
  request(type: number, asked: Asked = {}): Promise<Reply> {
    if (this.#over !== null) return Promise.reject(this.#over);
    const { header, reply } = this.prepare(type, asked);
    this.send(header, asked.payload ?? Buffer.alloc(0));
    return reply;
  }

  /** The bytes of a request that expects a reply, for a test that sends them itself. */
  prepare(type: number, asked: Asked = {}): { header: Buffer; reply: Promise<Reply> } {
    const { flags = 0, offset = 0, payload, contexts = 0 } = asked;
    const length = asked.length ?? payload?.length ?? 0;
    const header = Buffer.alloc(this.#machine.requestBytes);
    const view = new DataView(header.buffer, header.byteOffset, header.length);
    const said = contexts > 0 ? payload!.length : length;
    const request = this.#machine.begin(view, 0, type, flags, offset, length, said, contexts);
    if (request === null) throw new Error(`more than ${DEPTH} requests in flight`);
    asked.patch?.(header);
    const content = type === NBD_CMD_READ && length <= CONTENT_BYTES_MAX ? length : 0;
    const reply = new Promise<Reply>((resolve, reject) => {
      const data = Buffer.alloc(content);
      this.#pending.set(request, { data, holes: [], status: [], resolve, reject });
    });
    // A test may drop a connection without asking what became of its requests.
    reply.catch(() => {});
    return { header, reply };
  }

  async read(offset: number, length: number, flags = 0): Promise<Buffer> {
    return succeeded(await this.request(NBD_CMD_READ, { offset, length, flags })).data;
  }

  async write(offset: number, payload: Uint8Array, flags = 0): Promise<void> {
    succeeded(await this.tryWrite(offset, payload, flags));
  }

  tryWrite(offset: number, payload: Uint8Array, flags = 0): Promise<Reply> {
    const all = this.extended ? flags | NBD_CMD_FLAG_PAYLOAD_LEN : flags;
    return this.request(NBD_CMD_WRITE, { offset, payload, flags: all });
  }

  async flush(flags = 0): Promise<void> {
    succeeded(await this.request(NBD_CMD_FLUSH, { flags }));
  }

  async trim(offset: number, length: number, flags = 0): Promise<void> {
    succeeded(await this.request(NBD_CMD_TRIM, { offset, length, flags }));
  }

  async zero(offset: number, length: number, flags = 0): Promise<void> {
    succeeded(await this.request(NBD_CMD_WRITE_ZEROES, { offset, length, flags }));
  }

  /** NBD_CMD_DISC: the bytes of it. */
  disconnectBytes(): Buffer {
    const header = Buffer.alloc(this.#machine.requestBytes);
    this.#machine.disconnect(new DataView(header.buffer, header.byteOffset, header.length), 0);
    return header;
  }

  /** Leaves in order and waits for the end. */
  async leave(): Promise<void> {
    this.send(this.disconnectBytes());
    await this.ended();
  }

  /** Waits for the end of the connection. */
  async ended(): Promise<void> {
    await this.socket.rest();
  }

  destroy(): void {
    this.socket.destroy();
  }

  #received(bytes: Buffer): void {
    this.#machine.feed(bytes);
    if (!this.#machine.dead) return;
    this.#end(new Error(`the server broke a rule: ${this.#machine.reason}`));
    this.socket.destroy();
  }

  #end(error: Error): void {
    this.#over ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#over);
    this.#pending.clear();
  }
}

function succeeded(reply: Reply): Reply {
  if (reply.errno !== 0) throw new Error(`error ${reply.errno}: ${reply.text}`);
  return reply;
}
