/** What is measured: the rows of the table. */

export type Medium = "ram" | "disk";
/** "tls": over TCP, with a certificate of the server alone: fio cannot name one of its own. */
export const TRANSPORTS = ["tcp", "unix", "tls"] as const;
export type Transport = (typeof TRANSPORTS)[number];
const TRANSPORT_NAMES: Readonly<Record<Transport, string>> = { tcp: "", unix: ", unix socket", tls: ", TLS" };

export type Client = "fio" | "own";
const CLIENT_NAMES: Readonly<Record<Client, string>> = { fio: "", own: ", own client" };

/** Which run a row belongs to; a longer one has the rows of the shorter ones too. */
export const RowSet = { Quick: 0, Usual: 1, Full: 2 } as const;
export type RowSet = (typeof RowSet)[keyof typeof RowSet];

export interface Row {
  readonly name: string;
  readonly rw: "randread" | "randwrite" | "randrw" | "read" | "write";
  readonly blockBytes: number;
  /** Requests in flight per connection. */
  readonly depth: number;
  readonly connections: number;
  readonly transport: Transport;
  /** Who asks: fio's nbd engine, or the load generator of this repository, which takes a third of its CPU time. */
  readonly client: Client;
  /** A FLUSH after so many writes. */
  readonly flushEvery?: number;
  /** Share of what the same server answers of this row in the same round when it is asked as fast as it can; absent: 1. */
  readonly load?: number;
  readonly set: RowSet;
}

const KIB = 1024;
const MIB = 1024 * KIB;
/** Share of reads in the mixed rows, in percent. */
export const MIX_READ_PERCENT = 70;

type Kind = "read" | "write" | "70/30";
const RANDOM = { read: "randread", write: "randwrite", "70/30": "randrw" } as const;

interface Extra {
  readonly connections?: number;
  readonly transport?: Transport;
  readonly client?: Client;
}

function random(kind: Kind, depth: number, set: RowSet, extra: Extra = {}): Row {
  const { connections = 1, transport = "tcp", client = "fio" } = extra;
  const clients = connections === 1 ? "" : `, ${connections} connections`;
  return {
    name: `4K ${kind}, depth ${depth}${clients}${TRANSPORT_NAMES[transport]}${CLIENT_NAMES[client]}`,
    rw: RANDOM[kind],
    blockBytes: 4 * KIB,
    depth,
    connections,
    transport,
    client,
    set,
  };
}

function sequential(
  kind: "read" | "write",
  blockBytes: number,
  depth: number,
  set: RowSet,
  extra: Extra = {},
): Row {
  const size = blockBytes < MIB ? `${blockBytes / KIB}K` : `${blockBytes / MIB}M`;
  const { transport = "tcp", client = "fio" } = extra;
  return {
    name: `${size} ${kind}, depth ${depth}${TRANSPORT_NAMES[transport]}${CLIENT_NAMES[client]}`,
    rw: kind,
    blockBytes,
    depth,
    connections: 1,
    transport,
    client,
    set,
  };
}

/**
 * fio 3.33 goes on sending FLUSH until the first of them is answered (axboe/fio pull request 1754): at depth 32 one for each
 * write instead of one for 32. So it is asked at depth 1 only.
 */
function flushing(every: number, depth: number, set: RowSet): Row {
  const often = every === 1 ? " + flush" : `, flush every ${every}`;
  const client = depth === 1 ? "fio" : "own";
  return {
    name: `4K write${often}, depth ${depth}${CLIENT_NAMES[client]}`,
    rw: "randwrite",
    blockBytes: 4 * KIB,
    depth,
    connections: 1,
    transport: "tcp",
    client,
    flushEvery: every,
    set,
  };
}

/** Requests come at random moments, half as many as the server can answer: how long do the unlucky ones take? */
function atHalfLoad(row: Row): Row {
  return { ...row, name: `${row.name}, half load`, load: 0.5 };
}

const { Quick, Usual, Full } = RowSet;

export const ROWS: readonly Row[] = [
  random("read", 1, Quick),
  random("write", 1, Quick),
  random("70/30", 1, Full),
  random("read", 16, Usual),
  random("write", 16, Usual),
  random("70/30", 16, Full),
  random("read", 32, Quick),
  random("write", 32, Quick),
  random("70/30", 32, Usual),
  random("read", 128, Full),
  random("write", 128, Full),
  random("read", 16, Quick, { connections: 4 }),
  random("write", 16, Quick, { connections: 4 }),
  random("read", 16, Full, { connections: 8 }),
  random("write", 16, Full, { connections: 8 }),
  random("read", 32, Usual, { client: "own" }),
  random("write", 32, Usual, { client: "own" }),
  random("read", 128, Full, { client: "own" }),
  random("write", 128, Full, { client: "own" }),
  random("read", 16, Usual, { connections: 4, client: "own" }),
  random("write", 16, Usual, { connections: 4, client: "own" }),
  random("read", 16, Full, { connections: 8, client: "own" }),
  random("write", 16, Full, { connections: 8, client: "own" }),
  sequential("read", 128 * KIB, 16, Quick),
  sequential("write", 128 * KIB, 16, Quick),
  sequential("read", 128 * KIB, 16, Full, { client: "own" }),
  sequential("write", 128 * KIB, 16, Full, { client: "own" }),
  sequential("read", MIB, 4, Full),
  sequential("write", MIB, 4, Full),
  atHalfLoad(random("read", 32, Usual)),
  atHalfLoad(random("write", 32, Usual)),
  atHalfLoad(random("read", 16, Full, { connections: 4 })),
  atHalfLoad(random("write", 16, Full, { connections: 4 })),
  flushing(1, 1, Usual),
  flushing(32, 32, Usual),
  random("read", 1, Full, { transport: "unix" }),
  random("read", 32, Full, { transport: "unix" }),
  random("write", 32, Full, { transport: "unix" }),
  sequential("read", 128 * KIB, 16, Full, { transport: "unix" }),
  sequential("write", 128 * KIB, 16, Full, { transport: "unix" }),
  random("read", 32, Full, { transport: "tls" }),
  random("write", 32, Full, { transport: "tls" }),
  sequential("read", 128 * KIB, 16, Usual, { transport: "tls" }),
  sequential("write", 128 * KIB, 16, Usual, { transport: "tls" }),
];
