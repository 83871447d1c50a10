/**
 * A small NBD client over node:net, written against the protocol's text and sharing nothing with lib/nbd, so
 * that one mistake is not on both sides. Fixed newstyle, NBD_OPT_GO, simple replies, many requests in flight.
 */
import { connect, type Socket } from "node:net";

export const NBDMAGIC = 0x4e42444d41474943n;
export const IHAVEOPT = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;

const OPT_GO = 7;
const REP_ACK = 1;
const REP_INFO = 3;
const INFO_EXPORT = 0;
/** Fixed newstyle and NO_ZEROES, of both sides. */
const HANDSHAKE_FLAGS = 3;

export const Command = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, WRITE_ZEROES: 6 } as const;
type Command = (typeof Command)[keyof typeof Command];

export const CommandFlag = { FUA: 1, NO_HOLE: 2 } as const;

const REQUEST_BYTES = 28;
const REPLY_BYTES = 16;
const EMPTY = Buffer.alloc(0);

/** The server answered with an error number. */
export class NbdError extends Error {
  override readonly name = "NbdError";
  readonly errno: number;

  constructor(errno: number) {
    super(`the server answered with error ${errno}`);
    this.errno = errno;
  }
}

/** The connection ended; what was in flight may or may not have happened. */
export class Disconnected extends Error {
  override readonly name = "Disconnected";
}

interface Pending {
  /** Bytes that follow a successful reply. */
  readonly length: number;
  resolve(data: Buffer): void;
  reject(error: Error): void;
}

export class NbdClient {
  readonly sizeBytes: number;
  readonly transmissionFlags: number;
  readonly #socket: Socket;
  readonly #input: Input;
  readonly #pending = new Map<bigint, Pending>();
  #cookie = 0n;
  #dead: Error | null = null;

  private constructor(socket: Socket, input: Input, sizeBytes: number, flags: number) {
    this.#socket = socket;
    this.#input = input;
    this.sizeBytes = sizeBytes;
    this.transmissionFlags = flags;
    input.onData = () => this.#replies();
    input.onEnd = (error) => this.#die(error);
    this.#replies();
  }

  static async connect(host: string, port: number, volume: string): Promise<NbdClient> {
    return NbdClient.#over(connect({ host, port, noDelay: true }), volume);
  }

  /** Over a unix socket. */
  static async connectTo(path: string, volume: string): Promise<NbdClient> {
    return NbdClient.#over(connect(path), volume);
  }

  static async #over(socket: Socket, volume: string): Promise<NbdClient> {
    const input = new Input(socket);
    try {
      const { sizeBytes, flags } = await handshake(socket, input, volume);
      return new NbdClient(socket, input, sizeBytes, flags);
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    return this.request(Command.READ, offset, length, 0, EMPTY);
  }

  async write(offset: number, data: Buffer, flags = 0): Promise<void> {
    await this.request(Command.WRITE, offset, data.length, flags, data);
  }

  async flush(): Promise<void> {
    await this.request(Command.FLUSH, 0, 0, 0, EMPTY);
  }

  async trim(offset: number, length: number, flags = 0): Promise<void> {
    await this.request(Command.TRIM, offset, length, flags, EMPTY);
  }

  async zero(offset: number, length: number, flags = 0): Promise<void> {
    await this.request(Command.WRITE_ZEROES, offset, length, flags, EMPTY);
  }

  /** Any request, legal or not. `payload` is sent as it is. */
  async request(
    command: Command,
    offset: number,
    length: number,
    flags: number,
    payload: Buffer,
  ): Promise<Buffer> {
    if (this.#dead !== null) throw this.#dead;
    const cookie = ++this.#cookie;
    const header = Buffer.allocUnsafe(REQUEST_BYTES);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(command, 6);
    header.writeBigUInt64BE(cookie, 8);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    const answer = new Promise<Buffer>((resolve, reject) => {
      this.#pending.set(cookie, { length: command === Command.READ ? length : 0, resolve, reject });
    });
    this.#socket.cork();
    this.#socket.write(header);
    if (payload.length > 0) this.#socket.write(payload);
    this.#socket.uncork();
    return answer;
  }

  /** Stops and resumes reading replies: a slow reader. */
  pauseReading(): void {
    this.#socket.pause();
  }

  resumeReading(): void {
    this.#socket.resume();
  }

  /** Says goodbye and waits for the end. */
  async close(): Promise<void> {
    if (this.#dead !== null) return;
    const ended = new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
    const header = Buffer.alloc(REQUEST_BYTES);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(Command.DISC, 6);
    this.#socket.end(header);
    await ended;
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #replies(): void {
    for (;;) {
      const header = this.#input.peek(REPLY_BYTES);
      if (header === null) return;
      if (header.readUInt32BE(0) !== SIMPLE_REPLY_MAGIC) {
        this.#fail("not a simple reply");
        return;
      }
      const pending = this.#pending.get(header.readBigUInt64BE(8));
      if (pending === undefined) {
        this.#fail("a reply to nothing that was asked");
        return;
      }
      const errno = header.readUInt32BE(4);
      const length = errno === 0 ? pending.length : 0;
      if (this.#input.length < REPLY_BYTES + length) return;
      const cookie = header.readBigUInt64BE(8);
      this.#input.take(REPLY_BYTES);
      const data = this.#input.take(length);
      this.#pending.delete(cookie);
      if (errno === 0) pending.resolve(data);
      else pending.reject(new NbdError(errno));
    }
  }

  #fail(reason: string): void {
    this.#die(new Error(`protocol violation: ${reason}`));
    this.#socket.destroy();
  }

  #die(error: Error): void {
    if (this.#dead !== null) return;
    this.#dead = error;
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
  }
}

async function handshake(
  socket: Socket,
  input: Input,
  volume: string,
): Promise<{ sizeBytes: number; flags: number }> {
  const greeting = await input.exactly(18);
  if (greeting.readBigUInt64BE(0) !== NBDMAGIC || greeting.readBigUInt64BE(8) !== IHAVEOPT) {
    throw new Error("not a newstyle server");
  }
  const name = Buffer.from(volume);
  const option = Buffer.alloc(4 + 16 + 4 + name.length + 2);
  option.writeUInt32BE(HANDSHAKE_FLAGS, 0);
  option.writeBigUInt64BE(IHAVEOPT, 4);
  option.writeUInt32BE(OPT_GO, 12);
  option.writeUInt32BE(4 + name.length + 2, 16);
  option.writeUInt32BE(name.length, 20);
  name.copy(option, 24);
  socket.write(option);
  let described: { sizeBytes: number; flags: number } | null = null;
  for (;;) {
    const reply = await input.exactly(20);
    if (reply.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) throw new Error("not an option reply");
    const type = reply.readUInt32BE(12);
    const data = await input.exactly(reply.readUInt32BE(16));
    if (type === REP_INFO && data.readUInt16BE(0) === INFO_EXPORT) {
      described = { sizeBytes: Number(data.readBigUInt64BE(2)), flags: data.readUInt16BE(10) };
    }
    if (type >= 2 ** 31)
      throw new Error(`'${volume}' was refused (${type - 2 ** 31}): ${data.toString("utf8")}`);
    if (type === REP_ACK) {
      if (described === null) throw new Error("NBD_INFO_EXPORT is missing");
      return described;
    }
  }
}

/** Received bytes that nobody took yet. */
class Input {
  length = 0;
  onData: () => void = () => {};
  onEnd: (error: Error) => void = () => {};
  readonly #chunks: Buffer[] = [];
  #ended: Error | null = null;

  constructor(socket: Socket) {
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.length += chunk.length;
      this.onData();
    });
    const end = (error: Error): void => {
      this.#ended ??= error;
      this.onEnd(this.#ended);
    };
    socket.on("error", (error) => end(new Disconnected(error.message)));
    socket.on("close", () => end(new Disconnected("the connection is closed")));
  }

  peek(length: number): Buffer | null {
    if (this.length < length) return null;
    const [first] = this.#chunks;
    if (first === undefined || first.length < length) this.#join();
    return this.#chunks[0]?.subarray(0, length) ?? null;
  }

  /** Exactly `length` bytes that are there. */
  take(length: number): Buffer {
    if (length === 0) return EMPTY;
    const [first] = this.#chunks;
    if (first === undefined || first.length < length) this.#join();
    const all = this.#chunks[0];
    if (all === undefined || all.length < length) throw new Error("took more than there is");
    this.length -= length;
    if (all.length === length) this.#chunks.shift();
    else this.#chunks[0] = all.subarray(length);
    return all.subarray(0, length);
  }

  async exactly(length: number): Promise<Buffer> {
    while (this.length < length) {
      if (this.#ended !== null) throw this.#ended;
      await new Promise<void>((resolve, reject) => {
        this.onData = resolve;
        this.onEnd = reject;
      });
    }
    this.onData = () => {};
    this.onEnd = () => {};
    return this.take(length);
  }

  #join(): void {
    const all = Buffer.concat(this.#chunks);
    this.#chunks.length = 0;
    if (all.length > 0) this.#chunks.push(all);
  }
}
