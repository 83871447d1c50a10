/** A client that says what it is told to and stops there: bytes out, bytes in, and how it ended. */
import { connect, type Socket } from "node:net";
import {
  IHAVEOPT,
  NBDMAGIC,
  OPTION_REPLY_MAGIC,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
} from "../../interop/support/nbd-client.js";
import { until } from "../../interop/support/until.js";

const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

const GREETING_BYTES = 18;
const OPTION_REPLY_BYTES = 20;
const REP_ACK = 1;
const REP_ERROR = 2 ** 31;
const CHUNK_DONE = 1;
const CHUNK_ERROR = 1 << 15;

/** The client's flags: fixed newstyle, no zeroes. */
export const CLIENT_FLAGS: Buffer = Buffer.from([0, 0, 0, 3]);

export function option(code: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(16);
  header.writeBigUInt64BE(IHAVEOPT, 0);
  header.writeUInt32BE(code, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

export function request(command: number, cookie: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(REQUEST_MAGIC, 0);
  bytes.writeUInt16BE(command, 6);
  bytes.writeBigUInt64BE(BigInt(cookie), 8);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

/** What came after the last reply that was waited for. */
export interface Rest {
  /** Types of replies to options. */
  readonly options: readonly number[];
  /** Cookies of requests that were answered with success. */
  readonly answered: readonly number[];
  /** Answers that are errors, or no answers at all. */
  readonly wrong: readonly string[];
  /** Bytes of a reply that was cut in two. */
  readonly tornBytes: number;
}

export class Speaker {
  readonly socket: Socket;
  #received: Buffer[] = [];
  #over = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (bytes: Buffer) => this.#received.push(bytes));
    socket.on("error", () => {});
    socket.once("close", () => {
      this.#over = true;
    });
  }

  static async open(host: string, port: number): Promise<Speaker> {
    const socket = connect({ host, port, noDelay: true });
    const speaker = new Speaker(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return speaker;
  }

  get over(): boolean {
    return this.#over;
  }

  say(bytes: Buffer): void {
    this.socket.write(bytes);
  }

  async greeting(): Promise<void> {
    const bytes = await this.#take(GREETING_BYTES);
    if (bytes.readBigUInt64BE(0) !== NBDMAGIC) throw new Error("no NBD server");
  }

  /** Says an option and waits for the end of the answer, which must be an acknowledgement. */
  async negotiate(code: number, data?: Buffer): Promise<void> {
    this.say(option(code, data));
    for (;;) {
      const header = await this.#take(OPTION_REPLY_BYTES);
      await this.#take(header.readUInt32BE(16));
      const type = header.readUInt32BE(12);
      if (type === REP_ACK) return;
      if (type >= REP_ERROR) throw new Error(`option ${code} is answered with ${type}`);
    }
  }

  /** Once it is over: all that came and was not taken. `transmission`: requests may have been sent. */
  rest(transmission: boolean): Rest {
    const bytes = this.#buffer();
    const options: number[] = [];
    const answered: number[] = [];
    const wrong: string[] = [];
    let at = 0;
    while (at < bytes.length) {
      const left = bytes.subarray(at);
      const size = transmission ? reply(left, answered, wrong) : optionReply(left, options, wrong);
      if (size === 0) break;
      at += size;
    }
    return { options, answered, wrong, tornBytes: bytes.length - at };
  }

  async #take(count: number): Promise<Buffer> {
    if (count === 0) return Buffer.alloc(0);
    await until(`${count} bytes come`, () => this.#over || this.#buffer().length >= count);
    const bytes = this.#buffer();
    if (bytes.length < count) throw new Error("the connection ended");
    this.#received = [bytes.subarray(count)];
    return bytes.subarray(0, count);
  }

  #buffer(): Buffer {
    const bytes = this.#received.length === 1 ? this.#received[0]! : Buffer.concat(this.#received);
    this.#received = [bytes];
    return bytes;
  }
}

function optionReply(bytes: Buffer, options: number[], wrong: string[]): number {
  if (bytes.length < OPTION_REPLY_BYTES) return 0;
  const size = OPTION_REPLY_BYTES + bytes.readUInt32BE(16);
  if (bytes.length < size) return 0;
  if (bytes.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) wrong.push("not a reply to an option");
  options.push(bytes.readUInt32BE(12));
  return size;
}

function reply(bytes: Buffer, answered: number[], wrong: string[]): number {
  if (bytes.length < 16) return 0;
  const magic = bytes.readUInt32BE(0);
  const cookie = Number(bytes.readBigUInt64BE(8));
  if (magic === SIMPLE_REPLY_MAGIC) {
    const error = bytes.readUInt32BE(4);
    if (error === 0) answered.push(cookie);
    else wrong.push(`request ${cookie}: error ${error}`);
    return 16;
  }
  if (magic !== STRUCTURED_REPLY_MAGIC) {
    wrong.push(`not a reply: ${magic.toString(16)}`);
    return bytes.length;
  }
  if (bytes.length < 20 || bytes.length < 20 + bytes.readUInt32BE(16)) return 0;
  if ((bytes.readUInt16BE(6) & CHUNK_ERROR) !== 0) {
    wrong.push(`request ${cookie}: error ${bytes.readUInt32BE(20)}`);
  } else if ((bytes.readUInt16BE(4) & CHUNK_DONE) !== 0) {
    answered.push(cookie);
  }
  return 20 + bytes.readUInt32BE(16);
}
