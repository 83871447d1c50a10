/**
 * Thousands of damaged messages a second, many to a connection of a running server.
 *
 * A conversation damaged anywhere (live-fuzzer.ts) mostly ends its connection, and connections are what costs time.
 * Here each message keeps its frame (magic, and a length that is that of its data) while everything inside it may
 * be wrong: so the server has to answer it and go on. That makes a strict oracle: each option has replies for its
 * own number and one final one, each request exactly one legal answer (lib/nbd's client machine sees to that). In the
 * end the connection is left, dropped, or spoiled by bytes that are no message.
 *
 * An input is one option, one request, or one spoiled end. A seed and the number of a conversation bring it back.
 */
import {
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_PAYLOAD_LEN,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE_ZEROES,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  ReplyMode,
} from "nbd-protocol-ts";
import { contextData, infoData, option, u32 } from "../conformance/encode.js";
import { Haggling, type Reply, type Session } from "../conformance/raw-client.js";
import { PeerClosed, type Place } from "../conformance/raw-socket.js";
import { Dice, fuzzServer } from "../unit/nbd/fuzzer.js";

/** Connections at once. */
const PARALLEL = 16;
/** Messages that are sent together. */
const OPTIONS_BATCH = 16;
const REQUESTS_BATCH = 64;
const BATCHES_MAX = 12;
/** A conversation that is not over by then hangs. */
const PATIENCE_MS = 120_000;
const MIB = 1 << 20;

const NAMES = ["vol", "", "other", "secret", "x".repeat(256), "é", "\0", "vol/", "../vol"];
const QUERIES = ["base:allocation", "base:", "lamina:", "lamina:snapshot/a", ":", "nocolon", "qemu:x", ""];
const HOSTILE = [0, 1, 2, 4, 5, 6, 7, 8, 11, 12, 255, 256, 511, 512, 4095, 4096, 4097, 65_536];
const HOSTILE_U32 = [...HOSTILE, 0x7fffffff, 0x80000000, 0xfffffe00, 0xfffffff0, 0xfffffffa, 0xffffffff];
const NUMBERS = [
  NBD_OPT_LIST,
  NBD_OPT_STARTTLS,
  NBD_OPT_INFO,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
] as const;
const TYPES = [
  NBD_CMD_READ,
  NBD_CMD_READ,
  NBD_CMD_WRITE,
  NBD_CMD_WRITE,
  NBD_CMD_TRIM,
  NBD_CMD_CACHE,
  NBD_CMD_WRITE_ZEROES,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_BLOCK_STATUS,
];
/** Numbers that are no command; 2 would be the end of the connection. */
const NO_TYPES = [8, 9, 255, 256, 0x7fff, 0xffff];

export interface BurstRun {
  readonly conversations: number;
  readonly inputs: number;
  /** Messages that were answered with an error, and in all. */
  readonly refused: number;
  readonly answered: number;
}

interface Tally {
  inputs: number;
  refused: number;
  answered: number;
}

/**
 * Holds conversations `first`, `first + 1`, … of a seed until `inputs` inputs were said; throws with the first that
 * goes wrong.
 */
export async function fuzzBursts(
  places: readonly Place[],
  volumeBytes: number,
  seed: number,
  first: number,
  inputs: number,
): Promise<BurstRun> {
  const tally: Tally = { inputs: 0, refused: 0, answered: 0 };
  let next = first;
  const worker = async (): Promise<void> => {
    while (tally.inputs < inputs) {
      const index = next++;
      const dice = new Dice(Math.imul(seed, 0x85ebca6b) ^ index);
      try {
        await bounded(converse(places[index % places.length]!, volumeBytes, dice, tally));
      } catch (error) {
        throw new Error(`seed ${seed}, conversation ${index}: ${String(error)}`, { cause: error });
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  return { conversations: next - first, ...tally };
}

async function bounded(work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it hangs for ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  await Promise.race([work, late]).finally(() => clearTimeout(timer));
}

async function converse(place: Place, volumeBytes: number, dice: Dice, tally: Tally): Promise<void> {
  const client = await Haggling.begin(place);
  for (let i = dice.below(3); i > 0; i--) await haggle(client, dice, tally);
  const mode = dice.pick([ReplyMode.Simple, ReplyMode.Structured, ReplyMode.Extended]);
  const contexts = mode === ReplyMode.Simple || dice.below(4) === 0 ? [] : ["base:allocation"];
  const session = await client.go("vol", { mode, contexts, infos: dice.pick([[], [3], [1, 2, 3]]) });
  for (let i = 1 + dice.below(BATCHES_MAX); i > 0; i--) await ask(session, volumeBytes, dice, tally);
  await end(session, volumeBytes, dice, tally);
}

// ---- Options ------------------------------------------------------------------------------------------------

async function haggle(client: Haggling, dice: Dice, tally: Tally): Promise<void> {
  const numbers: number[] = [];
  const bytes: Uint8Array[] = [];
  for (let i = 0; i < OPTIONS_BATCH; i++) {
    const number = dice.below(8) > 0 ? dice.pick(NUMBERS) : 100 + dice.below(0x7fffffff);
    numbers.push(number);
    bytes.push(option(number, optionData(dice)));
  }
  client.send(...bytes);
  for (const number of numbers) {
    const answers = await client.answers();
    for (const answer of answers) {
      if (answer.option !== number) throw new Error(`option ${number} is answered as ${answer.option}`);
    }
    tally.inputs++;
    tally.answered++;
    if (answers.at(-1)!.type !== "NBD_REP_ACK") tally.refused++;
  }
}

function optionData(dice: Dice): Uint8Array {
  switch (dice.below(6)) {
    case 0:
      return new Uint8Array(0);
    case 1:
      return Uint8Array.from({ length: dice.below(64) }, () => dice.below(256));
    case 2:
    case 3: {
      const infos = Array.from({ length: dice.below(5) }, () => dice.below(6));
      return damaged(dice, infoData(dice.pick(NAMES), infos));
    }
    default: {
      const queries = Array.from({ length: dice.below(4) }, () => dice.pick(QUERIES));
      return damaged(dice, contextData(dice.pick(NAMES), queries));
    }
  }
}

/** Damage inside the data: its length stays what the header will say. */
function damaged(dice: Dice, data: Uint8Array): Uint8Array {
  const out = Buffer.from(data.subarray(0, dice.below(4) === 0 ? dice.below(data.length + 1) : data.length));
  for (let i = dice.below(3); i > 0 && out.length > 0; i--) {
    const at = dice.below(out.length);
    if (dice.below(2) === 0 || at + 4 > out.length) out[at]! ^= 1 << dice.below(8);
    else out.writeUInt32BE(dice.pick(HOSTILE_U32), at);
  }
  return out;
}

// ---- Requests -----------------------------------------------------------------------------------------------

async function ask(session: Session, volumeBytes: number, dice: Dice, tally: Tally): Promise<void> {
  for (const { errno } of await Promise.all(sendBatch(session, volumeBytes, dice))) {
    tally.inputs++;
    tally.answered++;
    if (errno !== 0) tally.refused++;
  }
}

function sendBatch(session: Session, volumeBytes: number, dice: Dice): Promise<Reply>[] {
  const bytes: Uint8Array[] = [];
  const replies: Promise<Reply>[] = [];
  for (let i = 0; i < REQUESTS_BATCH; i++) {
    const flush = dice.below(256) === 0;
    const type = flush ? NBD_CMD_FLUSH : dice.below(32) > 0 ? dice.pick(TYPES) : dice.pick(NO_TYPES);
    const flags = someFlags(session, type, dice);
    const carries = session.extended ? (flags & NBD_CMD_FLAG_PAYLOAD_LEN) !== 0 : type === NBD_CMD_WRITE;
    const payload = carries ? somePayload(dice) : null;
    const length = payload?.length ?? someLength(dice, type, volumeBytes);
    const { header, reply } = session.prepare(type, {
      flags,
      offset: flush && dice.below(2) > 0 ? 0 : someOffset(dice, volumeBytes),
      length,
    });
    bytes.push(header);
    if (payload !== null) bytes.push(payload);
    replies.push(reply);
  }
  session.send(...bytes);
  return replies;
}

/** Extended headers say by a flag whether there is a payload; a WRITE without one would end the connection. */
function someFlags(session: Session, type: number, dice: Dice): number {
  const flags = dice.below(8) > 0 ? 0 : dice.below(4) > 0 ? 1 << dice.below(16) : dice.below(0x10000);
  if (!session.extended) return flags;
  if (type === NBD_CMD_WRITE) return flags | NBD_CMD_FLAG_PAYLOAD_LEN;
  // What a BLOCK_STATUS with a payload may be answered depends on the payload, which is damaged here.
  return type === NBD_CMD_BLOCK_STATUS ? flags & ~NBD_CMD_FLAG_PAYLOAD_LEN : flags;
}

function somePayload(dice: Dice): Uint8Array {
  const length = dice.below(64) === 0 ? dice.below(2 * MIB) + 1 : dice.pick(HOSTILE) || 1;
  return Buffer.alloc(length, dice.below(4) === 0 ? 0 : dice.below(256));
}

function someLength(dice: Dice, type: number, volumeBytes: number): number {
  // What moves no data may be as long as it likes.
  if (type !== NBD_CMD_READ && dice.below(64) === 0) return dice.below(volumeBytes + 2);
  if (type === NBD_CMD_READ && dice.below(256) === 0) return dice.below(2 * MIB);
  return dice.below(2) === 0 ? 512 * (1 + dice.below(16)) : dice.pick(HOSTILE_U32);
}

function someOffset(dice: Dice, volumeBytes: number): number {
  switch (dice.below(8)) {
    case 0:
      return volumeBytes - dice.pick(HOSTILE);
    case 1:
      return dice.pick([volumeBytes, volumeBytes + 1, 2 ** 32, 2 ** 40, 2 ** 53 - 1]);
    case 2:
      return dice.below(volumeBytes);
    default:
      return 512 * dice.below(volumeBytes / 512);
  }
}

// ---- The end ------------------------------------------------------------------------------------------------

async function end(session: Session, volumeBytes: number, dice: Dice, tally: Tally): Promise<void> {
  switch (dice.below(4)) {
    case 0: {
      // In the middle of its own requests: nobody reads the answers.
      for (const reply of sendBatch(session, volumeBytes, dice)) reply.catch(() => {});
      session.destroy();
      tally.inputs += REQUESTS_BATCH;
      return;
    }
    case 1: {
      // Bytes that are no request: the end of the connection, in order or not.
      const tail = Buffer.concat([u32(dice.next() | 1), fuzzServer(dice)]);
      session.send(tail);
      session.socket.end();
      await session.ended();
      tally.inputs++;
      return;
    }
    default:
      await session.leave();
  }
  if (session.violation !== "") throw new PeerClosed(session.violation);
}
