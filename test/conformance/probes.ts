/**
 * Questions with one-word answers, for comparing servers: each probe says something on connections of its own and
 * tells how the server took it. Nothing here knows which server it asks.
 */
import {
  errorName,
  NBD_CMD_BLOCK_STATUS,
  NBD_CMD_CACHE,
  NBD_CMD_FLAG_FUA,
  NBD_CMD_FLAG_NO_HOLE,
  NBD_CMD_FLUSH,
  NBD_CMD_READ,
  NBD_CMD_TRIM,
  NBD_CMD_WRITE_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_OPT_ABORT,
  NBD_OPT_EXPORT_NAME,
  NBD_OPT_GO,
  NBD_OPT_INFO,
  NBD_OPT_LIST,
  NBD_OPT_LIST_META_CONTEXT,
  NBD_OPT_SET_META_CONTEXT,
  NBD_OPT_STARTTLS,
  NBD_OPT_STRUCTURED_REPLY,
  ReplyMode,
} from "nbd-protocol-ts";
import { contextData, infoData, option, request, u16, u32 } from "./encode.js";
import { type Asked, Haggling, openSession, type Session } from "./raw-client.js";
import { PeerClosed, type Place } from "./raw-socket.js";
import { pattern } from "./support/live.js";

export const PROBE_EXPORT = "v";
export const PROBE_BYTES: number = 16 << 20;

/** A server that says nothing for so long has its answer called "silence": where that is known, and elsewhere. */
const KNOWN_SILENCE_MS = 3000;
const SILENCE_MS = 30_000;

export interface Probe {
  readonly name: string;
  ask(place: Place): Promise<string>;
}

const BLOCK = 4096;

/**
 * What `probe` comes to: its own word, "closed", "silence", or the rule that the server broke. `silent`: silence is
 * what is expected, and not waited for as long as an answer that is only late.
 */
export async function answerOf(probe: Probe, place: Place, silent: boolean): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve("silence"), silent ? KNOWN_SILENCE_MS : SILENCE_MS);
  });
  const asked = probe.ask(place).catch((error: unknown) => {
    if (error instanceof PeerClosed) return "closed";
    return error instanceof Error ? error.message : String(error);
  });
  const word = await Promise.race([asked, silence]);
  clearTimeout(timer);
  return word;
}

function haggling(name: string, ask: (client: Haggling) => Promise<string>, flags = 3): Probe {
  return {
    name,
    async ask(place) {
      const client = await Haggling.begin(place, flags);
      try {
        return await ask(client);
      } finally {
        client.socket.destroy();
      }
    },
  };
}

function final(name: string, number: number, data?: Uint8Array): Probe {
  return haggling(name, async (client) => (await client.outcome(number, data)).replace("NBD_REP_", ""));
}

function transmission(name: string, ask: (session: Session) => Promise<string>): Probe {
  return {
    name,
    async ask(place) {
      const session = await openSession(place, PROBE_EXPORT);
      try {
        return await ask(session);
      } finally {
        session.destroy();
      }
    },
  };
}

/** The error of one request over simple replies, and whether the connection is good for another one. */
function errorOf(name: string, type: number, asked: Asked): Probe {
  return transmission(name, async (session) => {
    const { errno } = await session.request(type, asked);
    await session.read(0, 512);
    return errno === 0 ? "success" : errorName(errno);
  });
}

const EXPORT = Buffer.from(PROBE_EXPORT);
const LONG = Buffer.alloc(PROBE_BYTES + 512);

export const PROBES: readonly Probe[] = [
  haggling("handshake flags", async (client) => String(client.flags)),
  haggling("unknown client flag", async (client) => client.outcome(NBD_OPT_ABORT), 7),
  final("unknown option", 99, Buffer.alloc(100)),
  final("ABORT", NBD_OPT_ABORT),
  final("LIST", NBD_OPT_LIST),
  final("LIST with data", NBD_OPT_LIST, u32(0)),
  final("STARTTLS without TLS", NBD_OPT_STARTTLS),
  final("STRUCTURED_REPLY with data", NBD_OPT_STRUCTURED_REPLY, u32(0)),
  final("INFO", NBD_OPT_INFO, infoData(PROBE_EXPORT)),
  final("INFO with unknown requests", NBD_OPT_INFO, infoData(PROBE_EXPORT, [4711])),
  final("GO with a name beyond its data", NBD_OPT_GO, Buffer.concat([u32(0xffffffff), EXPORT, u16(0)])),
  final("GO with fewer requests than it says", NBD_OPT_GO, Buffer.concat([u32(1), EXPORT, u16(3)])),
  final("GO without data", NBD_OPT_GO),
  final("contexts before STRUCTURED_REPLY", NBD_OPT_SET_META_CONTEXT, contextData(PROBE_EXPORT, [])),
  haggling("STRUCTURED_REPLY twice", async (client) => {
    const first = await client.outcome(NBD_OPT_STRUCTURED_REPLY);
    return `${first} ${await client.outcome(NBD_OPT_STRUCTURED_REPLY)}`.replaceAll("NBD_REP_", "");
  }),
  haggling("two queries for one context", async (client) => {
    await client.ask(NBD_OPT_STRUCTURED_REPLY);
    const queries = contextData(PROBE_EXPORT, ["base:allocation", "base:allocation"]);
    const answers = await client.ask(NBD_OPT_SET_META_CONTEXT, queries);
    return answers.map(({ type }) => type.replace("NBD_REP_", "")).join(" ");
  }),
  haggling("list of contexts", async (client) => {
    await client.ask(NBD_OPT_STRUCTURED_REPLY);
    const answers = await client.ask(NBD_OPT_LIST_META_CONTEXT, contextData(PROBE_EXPORT, ["base:"]));
    return answers.map(({ type }) => type.replace("NBD_REP_", "")).join(" ");
  }),
  haggling("INFO and GO agree", async (client) => {
    const sizes = [];
    for (const number of [NBD_OPT_INFO, NBD_OPT_GO]) {
      const answers = await client.ask(number, infoData(PROBE_EXPORT, [NBD_INFO_BLOCK_SIZE]));
      sizes.push(answers.map(({ type, data }) => `${type}${data.toString("hex")}`).join());
    }
    return sizes[0] === sizes[1] ? "yes" : "no";
  }),
  haggling("an option of 4 GiB", async (client) => {
    client.send(option(99, Buffer.alloc(0), 0xffffffff));
    await client.socket.rest();
    return "closed";
  }),
  haggling(
    "EXPORT_NAME with padding",
    async (client) => {
      client.send(option(NBD_OPT_EXPORT_NAME, EXPORT), request(NBD_CMD_READ, { length: 512 }));
      await client.socket.exactly(10 + 124);
      return (await client.socket.exactly(4)).toString("hex");
    },
    1,
  ),
  errorOf("read past the end", NBD_CMD_READ, { offset: PROBE_BYTES - 512, length: 1024 }),
  errorOf("trim past the end", NBD_CMD_TRIM, { offset: PROBE_BYTES, length: 512 }),
  errorOf("zero past the end", NBD_CMD_WRITE_ZEROES, { offset: PROBE_BYTES, length: 512 }),
  errorOf("write past the end", 1, { offset: PROBE_BYTES, payload: Buffer.alloc(512) }),
  errorOf("write longer than the export", 1, { offset: 0, payload: LONG }),
  errorOf("offset near 2^64", NBD_CMD_READ, {
    length: 512,
    patch: (header) => void header.writeBigUInt64BE(2n ** 64n - 512n, 16),
  }),
  errorOf("unknown command", 77, { length: 512 }),
  errorOf("unknown flag on READ", NBD_CMD_READ, { length: 512, flags: 1 << 9 }),
  errorOf("NO_HOLE on READ", NBD_CMD_READ, { length: 512, flags: NBD_CMD_FLAG_NO_HOLE }),
  errorOf("FUA on READ", NBD_CMD_READ, { length: 512, flags: NBD_CMD_FLAG_FUA }),
  errorOf("FUA on FLUSH", NBD_CMD_FLUSH, { flags: NBD_CMD_FLAG_FUA }),
  errorOf("FLUSH with a range", NBD_CMD_FLUSH, { offset: 512, length: 512 }),
  errorOf("read of nothing", NBD_CMD_READ, { length: 0 }),
  errorOf("write of nothing", 1, { payload: Buffer.alloc(0) }),
  errorOf("CACHE", NBD_CMD_CACHE, { length: BLOCK }),
  errorOf("BLOCK_STATUS without contexts", NBD_CMD_BLOCK_STATUS, { length: BLOCK }),
  transmission("wrong request magic", async (session) => {
    session.send(Buffer.alloc(28, 0xaa));
    await session.ended();
    return "closed";
  }),
  transmission("DISC", async (session) => {
    await session.leave();
    return "closed";
  }),
  {
    name: "data after writes, zeroes and trims",
    async ask(place) {
      const session = await openSession(place, PROBE_EXPORT);
      const model = Buffer.alloc(PROBE_BYTES);
      for (let i = 0; i < 64; i++) {
        const [offset, length] = [(i * 7_654_321) % (PROBE_BYTES - 70_000), 512 + ((i * 4099) % 65_000)];
        if (i % 4 === 3) {
          await session.zero(offset, length);
          model.fill(0, offset, offset + length);
        } else {
          const bytes = pattern(i, length);
          await session.write(offset, bytes, i % 2);
          bytes.copy(model, offset);
        }
      }
      await session.flush();
      const same = (await session.read(0, PROBE_BYTES)).equals(model);
      session.destroy();
      return same ? "as written" : "something else";
    },
  },
  {
    name: "structured read over data and holes",
    async ask(place) {
      const client = await Haggling.begin(place);
      if ((await client.outcome(NBD_OPT_STRUCTURED_REPLY)) !== "NBD_REP_ACK") return "unsupported";
      client.socket.destroy();
      const session = await openSession(place, PROBE_EXPORT, { mode: ReplyMode.Structured });
      await session.write(BLOCK, pattern(1, BLOCK));
      const data = await session.read(0, 1 << 20);
      session.destroy();
      return data.subarray(BLOCK, 2 * BLOCK).equals(pattern(1, BLOCK)) ? "as written" : "something else";
    },
  },
];
