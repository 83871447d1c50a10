/**
 * A seeded, structure-aware fuzzer for the four machines of lib/nbd.
 *
 * An input is a conversation that makes sense, damaged: built from legal messages by grammar, then bits
 * flipped, lengths replaced by the ones that have broken other servers, pieces cut out, doubled, swapped.
 * Every input is fed twice, whole and cut at random places, and both runs must agree. Input number i of a
 * seed is always the same, so a failure names the two numbers that bring it back.
 *
 *     node dist/test/unit/nbd/fuzzer.js INPUTS [SEED]
 *
 * Checked of each input: no exception; no byte taken twice or beyond the end; what is sent is a sequence of
 * whole replies; output, and so memory, stays bounded; a request ends once; the machines' own assertions.
 */
import { pathToFileURL } from "node:url";
import {
  type BlockStatusPayload,
  ClientHandshake,
  type ClientHandshakeOptions,
  ClientTransmission,
  encodeBlockStatus,
  encodeErrorChunk,
  encodeNone,
  encodeOffsetData,
  encodeOffsetHole,
  encodeRequest,
  encodeSimpleReply,
  NBD_OPT_EXTENDED_HEADERS,
  NBD_OPT_STRUCTURED_REPLY,
  NBD_REP_ERR_UNKNOWN,
  type Negotiated,
  OUTPUT_BYTES_HIGH,
  ReplyMode,
  type RequestHeader,
  type RequestListener,
  requestBytes,
  rulesFor,
  type ServerHandshake,
  ServerTransmission,
  type TlsMode,
  type Verdict,
} from "nbd-protocol-ts";
import {
  answersIn,
  clientFlags,
  concat,
  contextQuery,
  go,
  haggling,
  negotiate,
  option,
  serverOf,
  text,
  u16,
  u32,
  VOL,
} from "./helpers.js";

/** Numbers from a seed: splitmix32. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 … 2^32 − 1 */
  next(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  }

  /** 0 … bound − 1 */
  below(bound: number): number {
    return this.next() % bound;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

/** Values that have broken length checks. */
const HOSTILE = [0, 1, 2, 4, 5, 6, 7, 8, 11, 12, 255, 256, 512, 4095, 4096, 4097, 0x7fffffff, 0x80000000];
const HOSTILE_U32 = [...HOSTILE, 0xfffffff0, 0xfffffffa, 0xffffffff];
const NAMES = ["vol", "", "other", "secret", "nosuch", "x".repeat(256), "é"];
const QUERIES = ["base:allocation", "base:", "lamina:", "lamina:snapshot/a", ":", "nocolon", "qemu:x"];

// ---- Building conversations -----------------------------------------------------------------------------

function someOption(dice: Dice): Uint8Array {
  const infos = Array.from({ length: dice.below(4) }, () => dice.below(5));
  switch (dice.below(12)) {
    case 0:
      return option(1, text(dice.pick(NAMES)));
    case 1:
      return option(2, new Uint8Array(dice.below(3)));
    case 2:
      return option(3, new Uint8Array(dice.below(2)));
    case 3:
      return option(5);
    case 4:
      return option(6, concat(u32(3), text("vol"), u16(infos.length), ...infos.map(u16)));
    case 5:
      return go(dice.pick(NAMES), infos);
    case 6:
      return option(NBD_OPT_STRUCTURED_REPLY);
    case 7:
    case 8: {
      const queries = Array.from({ length: dice.below(4) }, () => dice.pick(QUERIES));
      return option(9 + dice.below(2), contextQuery(dice.pick(NAMES), queries));
    }
    case 9:
      return option(NBD_OPT_EXTENDED_HEADERS);
    case 10:
      return option(dice.next(), new Uint8Array(dice.below(64)));
    default:
      return option(dice.below(13), new Uint8Array(dice.below(8)), dice.pick(HOSTILE_U32));
  }
}

const OFFSETS = [0, 1, 511, 512, VOL.size - 512, VOL.size, 2 ** 40, 2 ** 53 - 1];

function someRequest(dice: Dice, extended: boolean): Uint8Array {
  const type = dice.below(16) > 0 ? dice.pick([0, 1, 3, 4, 5, 6, 7]) : dice.below(10);
  const write = type === 1;
  const flags = dice.below(3) > 0 ? (extended && write ? 32 : 0) : dice.below(64);
  const carries = extended ? (flags & 32) !== 0 : write;
  const usual = dice.below(3) > 0;
  const flush = type === 3;
  const length = carries ? 1 + dice.below(40) : usual ? (flush ? 0 : 4096) : dice.pick(HOSTILE_U32);
  const offset = usual ? (flush ? 0 : 512 * dice.below(4)) : dice.pick(OFFSETS);
  const bytes = new Uint8Array(requestBytes(extended) + (carries ? length : 0));
  encodeRequest(
    new DataView(bytes.buffer),
    0,
    extended,
    flags,
    type,
    dice.next(),
    dice.next(),
    offset,
    length,
  );
  return bytes;
}

function mutate(dice: Dice, bytes: Uint8Array): Uint8Array {
  const out = bytes.slice();
  const view = new DataView(out.buffer);
  const at = dice.below(out.length + 1);
  const end = Math.min(out.length, at + 1 + dice.below(24));
  switch (dice.below(6)) {
    case 0:
      if (at < out.length) out[at]! ^= 1 << dice.below(8);
      return out;
    case 1:
      if (at + 4 <= out.length) view.setUint32(at, dice.pick(HOSTILE_U32));
      return out;
    case 2:
      return concat(out.subarray(0, at), out.subarray(end));
    case 3:
      return concat(out.subarray(0, end), out.subarray(at));
    case 4:
      return out.slice(0, at);
    default:
      return concat(out.subarray(0, at), Uint8Array.of(dice.below(256)), out.subarray(at));
  }
}

function damaged(dice: Dice, bytes: Uint8Array): Uint8Array {
  let out = bytes;
  for (let i = dice.below(4); i > 0; i--) out = mutate(dice, out);
  return out;
}

function cutsOf(dice: Dice, length: number): number[] {
  const cuts = Array.from({ length: dice.below(8) }, () => dice.below(length + 1));
  return cuts.sort((a, b) => a - b);
}

function insist(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

// ---- The server's machines ------------------------------------------------------------------------------

class RequestLog implements RequestListener {
  lines = "";
  #open = 0;

  writeBegins(header: RequestHeader): void {
    insist(this.#open === 0, "a write began inside another");
    this.#open = header.payloadLength;
  }

  payload(_bytes: Uint8Array, start: number, end: number): void {
    insist(end > start, "an empty piece of payload");
    this.#open -= end - start;
    insist(this.#open >= 0, "more payload than was announced");
  }

  requestDone(header: RequestHeader, filter: BlockStatusPayload | null): void {
    insist(this.#open === 0, "a write is done before its payload");
    this.lines += `+${header.type}.${header.cookieLow}.${header.length}${filter === null ? "" : `f${filter.count}`}`;
  }

  requestRefused(header: RequestHeader, verdict: Verdict): void {
    insist(this.#open === 0, "a refusal inside a write");
    this.lines += `-${header.type}.${header.cookieLow}.${verdict.errno}`;
  }
}

const OUTPUT_BOUND = 2 * OUTPUT_BYTES_HIGH;

/** One connection: handshake, then requests. Returns all that happened as text. */
function serve(tlsMode: TlsMode, refusals: number, bytes: Uint8Array, cuts: readonly number[]): string {
  const server = serverOf({ tlsMode });
  server.takeOutput();
  const said: Uint8Array[] = [];
  const log = new RequestLog();
  let stream: ServerTransmission | null = null;
  let old = false;
  let left = refusals;
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    for (let moved = true; moved; ) {
      const end = Math.max(at, cut);
      const taken = stream === null ? server.feed(bytes, at, end) : stream.feed(bytes, at, end);
      insist(taken >= 0 && at + taken <= end, "took what was not there");
      at += taken;
      moved = taken > 0;
      if (server.state === "opening") {
        if (left > 0) server.refused(NBD_REP_ERR_UNKNOWN, "not now");
        else old = open(server, said);
        left--;
        moved = true;
      }
      insist(server.outputLength <= OUTPUT_BOUND, `${server.outputLength} bytes of output wait`);
      const output = server.takeOutput();
      if (output.length > 0) moved = true;
      if (!old) said.push(output);
      if (stream === null && server.negotiated !== null) {
        stream = new ServerTransmission(server.negotiated, rulesFor(server.negotiated), log);
      }
    }
  }
  const answers = answersIn(concat(...said));
  const summary = answers.map(({ option, type, data }) => `${option}:${type}:${data.length}`).join(" ");
  return `${summary} | ${server.state} ${server.reason} | ${log.lines} ${stream?.state} ${stream?.reason}`;
}

/** Opens what the client asked for; whether the answer is EXPORT_NAME's, which is no option reply. */
function open(server: ServerHandshake, said: Uint8Array[]): boolean {
  const before = server.takeOutput();
  said.push(before);
  server.opened(server.opening!.info);
  return server.outputLength === 10 || server.outputLength === 134;
}

/** What a client says from its flags to its last request, damaged; also said to the live server (test/fuzz). */
export function fuzzServer(dice: Dice): Uint8Array {
  return damaged(dice, dice.below(3) > 0 ? politeClient(dice) : wildClient(dice));
}

/** A client that negotiates what clients negotiate, then sends requests. */
function politeClient(dice: Dice): Uint8Array {
  const mode = dice.pick([0, NBD_OPT_STRUCTURED_REPLY, NBD_OPT_EXTENDED_HEADERS]);
  const extended = mode === NBD_OPT_EXTENDED_HEADERS;
  const parts = [clientFlags(3)];
  if (dice.below(4) === 0) parts.push(option(3));
  if (mode !== 0) parts.push(option(mode));
  if (mode !== 0 && dice.below(4) > 0) parts.push(option(10, contextQuery("vol", [dice.pick(QUERIES)])));
  parts.push(go("vol", dice.pick([[], [3], [1, 2, 3]])));
  for (let i = 1 + dice.below(8); i > 0; i--) parts.push(someRequest(dice, extended));
  return concat(...parts);
}

function wildClient(dice: Dice): Uint8Array {
  const parts = [clientFlags(dice.below(8) > 0 ? 1 + 2 * dice.below(2) : dice.next())];
  for (let i = dice.below(8); i > 0; i--) parts.push(someOption(dice));
  for (let i = dice.below(4); i > 0; i--) parts.push(someRequest(dice, dice.below(2) > 0));
  return concat(...parts);
}

function checkServer(dice: Dice, bytes: Uint8Array): void {
  const tlsMode = dice.pick<TlsMode>(["notls", "notls", "forced", "selective"]);
  const refusals = dice.below(2);
  const whole = serve(tlsMode, refusals, bytes, []);
  const parts = serve(tlsMode, refusals, bytes, cutsOf(dice, bytes.length));
  insist(whole === parts, `whole and in parts differ:\n${whole}\n${parts}`);
}

// ---- The client's machines ------------------------------------------------------------------------------

const WISHES: readonly ClientHandshakeOptions[] = [
  { exportName: "vol", contexts: ["base:allocation", "lamina:"] },
  { goal: "list" },
  { goal: "info", contexts: ["base:"], exportName: "vol" },
  { oldExportName: true, noZeroes: false },
  { extendedHeaders: false, contexts: ["base:allocation"] },
  { extendedHeaders: false, structuredReplies: false, tls: "allow" },
];

/** What a good server says to a client with these wishes. */
function goodAnswers(options: ClientHandshakeOptions): Uint8Array {
  const server = serverOf();
  const client = new ClientHandshake(options);
  const said: Uint8Array[] = [];
  for (let turn = 0; turn < 12; turn++) {
    const down = server.takeOutput();
    said.push(down);
    client.feed(down);
    server.feed(client.takeOutput());
    if (server.state === "opening") server.opened(VOL);
  }
  return concat(...said);
}

const ANSWERS = WISHES.map(goodAnswers);

function connect(options: ClientHandshakeOptions, bytes: Uint8Array, cuts: readonly number[]): string {
  const client = new ClientHandshake(options);
  let at = 0;
  for (const cut of [...cuts, bytes.length]) at += client.feed(bytes, at, Math.max(at, cut));
  const { state, reason, negotiated, exports } = client;
  insist(negotiated === null || negotiated.size <= Number.MAX_SAFE_INTEGER, "a size that is not exact");
  insist((state === "transmission") === (state !== "closed" && negotiated !== null), "state and agreement");
  const sent = Buffer.from(client.takeOutput()).toString("hex");
  return `${state} ${reason} ${JSON.stringify(negotiated)} ${exports.length} ${sent}`;
}

function checkClientHandshake(dice: Dice): Uint8Array {
  const which = dice.below(WISHES.length);
  const bytes = damaged(dice, ANSWERS[which]!);
  const whole = connect(WISHES[which]!, bytes, []);
  const parts = connect(WISHES[which]!, bytes, cutsOf(dice, bytes.length));
  insist(whole === parts, `whole and in parts differ:\n${whole}\n${parts}`);
  return bytes;
}

const CONTEXTS = ["base:allocation"];
const AGREEMENTS: readonly Negotiated[] = [
  negotiate(),
  negotiate([NBD_OPT_STRUCTURED_REPLY], CONTEXTS),
  negotiate([NBD_OPT_EXTENDED_HEADERS], CONTEXTS),
];

/** Replies to three requests (read, flush, block status), more or less as they should be. */
function someReplies(dice: Dice, mode: ReplyMode): Uint8Array {
  const view = new DataView(new ArrayBuffer(1 << 14));
  let end = 0;
  const to = (
    index: number,
  ): { cookieHigh: number; cookieLow: number; offsetHigh: number; offsetLow: number } => ({
    cookieHigh: 1,
    cookieLow: index,
    offsetHigh: 0,
    offsetLow: index === 1 ? 0 : 4096,
  });
  if (mode === ReplyMode.Simple) {
    end += encodeSimpleReply(view, end, to(1), 0);
    end += encodeSimpleReply(view, end, to(0), dice.pick([0, 0, 5]));
    return new Uint8Array(view.buffer.slice(0, end + dice.pick([2048, 2048, 2000])));
  }
  const half = 1024;
  end += encodeOffsetHole(view, end, mode, to(0), 0, 4096 + half, dice.pick([half, half, half + 1]));
  end += encodeNone(view, end, mode, to(1));
  end += encodeOffsetData(view, end, mode, to(0), 0, 4096, half) + half;
  const runs = Float64Array.of(4096, 0, 8192, 3);
  end += encodeBlockStatus(view, end, 1024, mode, to(2), dice.below(2), 1, runs, 2, 8192, false);
  end += encodeErrorChunk(view, end, mode, to(2), 1, dice.below(2) * 5, text("because"));
  if (dice.below(2) > 0) end += encodeErrorChunk(view, end, mode, to(0), 0, 5, text("torn"));
  end += encodeNone(view, end, mode, to(0));
  return new Uint8Array(view.buffer.slice(0, end));
}

function receive(negotiated: Negotiated, bytes: Uint8Array, cuts: readonly number[]): string {
  let lines = "";
  let open = 3;
  let sum = 0;
  const client = new ClientTransmission(
    negotiated,
    {
      readData: (request, offset, _bytes, start, end) => {
        insist(
          offset >= request.offset && offset + end - start <= request.offset + request.length,
          "outside",
        );
        sum += end - start;
      },
      readHole: (_request, offset, length) => {
        lines += `h${offset}+${length} `;
      },
      blockStatus: (_request, id, runs) => {
        lines += `s${id}:${runs.length} `;
      },
      requestDone: (request) => {
        open--;
        insist(open >= 0, "more ends than requests");
        lines += `e${request.index}=${request.errno} `;
      },
    },
    4,
  );
  const scratch = new DataView(new ArrayBuffer(64));
  client.begin(scratch, 0, 0, 0, 4096, 2048);
  client.begin(scratch, 0, 3, 0, 0, 0);
  client.begin(scratch, 0, 7, 0, 4096, 8192);
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    const taken = client.feed(bytes, at, Math.max(at, cut));
    at += taken;
  }
  insist(client.dead || at === bytes.length, "a living machine takes everything");
  return `${lines} ${sum} ${client.reason}`;
}

function checkClientTransmission(dice: Dice): Uint8Array {
  const negotiated = dice.pick(AGREEMENTS);
  const bytes = damaged(dice, someReplies(dice, negotiated.mode));
  const whole = receive(negotiated, bytes, []);
  const parts = receive(negotiated, bytes, cutsOf(dice, bytes.length));
  insist(whole === parts, `whole and in parts differ:\n${whole}\n${parts}`);
  return bytes;
}

// ---- Running --------------------------------------------------------------------------------------------

/** Replays `bytes` as said by a client, in every TLS mode, whole and byte by byte. */
export function replayToServer(bytes: Uint8Array): void {
  const each = Array.from({ length: bytes.length }, (_, i) => i);
  for (const tlsMode of ["notls", "forced", "selective"] as const) {
    for (const refusals of [0, 1]) {
      const whole = serve(tlsMode, refusals, bytes, []);
      const parts = serve(tlsMode, refusals, bytes, each);
      insist(whole === parts, `whole and byte by byte differ:\n${whole}\n${parts}`);
    }
  }
}

/** Input number `index` of `seed`. Throws with both numbers and the bytes when a machine misbehaves. */
export function fuzzOne(seed: number, index: number): void {
  const dice = new Dice(Math.imul(seed, 0x85ebca6b) ^ index);
  let bytes: Uint8Array = new Uint8Array(0);
  try {
    switch (dice.below(4)) {
      case 0:
        bytes = checkClientHandshake(dice);
        break;
      case 1:
        bytes = checkClientTransmission(dice);
        break;
      default:
        bytes = fuzzServer(dice);
        checkServer(dice, bytes);
    }
  } catch (error) {
    const cause = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const hex = Buffer.from(bytes).toString("hex");
    throw new Error(`seed ${seed}, input ${index}: ${cause}\nbytes ${hex}`, { cause: error });
  }
}

export function fuzz(seed: number, inputs: number): void {
  for (let index = 0; index < inputs; index++) fuzzOne(seed, index);
}

/** How far inputs get: shares of conversations that reach the transmission phase, for the test of the fuzzer. */
export function reach(seed: number, inputs: number): { transmission: number; executed: number } {
  let transmission = 0;
  let executed = 0;
  for (let index = 0; index < inputs; index++) {
    const dice = new Dice(Math.imul(seed, 0x85ebca6b) ^ index);
    const happened = serve("notls", 0, fuzzServer(dice), []);
    if (happened.includes("| transmission")) transmission++;
    if (happened.includes("+")) executed++;
  }
  return { transmission: transmission / inputs, executed: executed / inputs };
}

function main(): void {
  const inputs = Number(process.argv[2] ?? 100_000);
  const seed = Number(process.argv[3] ?? 1);
  haggling();
  const STEP = 100_000;
  for (let done = 0; done < inputs; done += STEP) {
    for (let i = done; i < Math.min(inputs, done + STEP); i++) fuzzOne(seed, i);
    const rss = Math.round(process.memoryUsage.rss() / 2 ** 20);
    console.log(`seed ${seed}: ${Math.min(inputs, done + STEP)} inputs, ${rss} MiB`);
  }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) main();
