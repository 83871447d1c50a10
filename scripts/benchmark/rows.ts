/** What is measured: the rows of the table. */

export type Medium = "ram" | "disk";

export interface Row {
  readonly name: string;
  readonly rw: "randread" | "randwrite" | "randrw" | "read" | "write";
  readonly blockBytes: number;
  /** Requests in flight per connection. */
  readonly depth: number;
  readonly connections: number;
  /** A FLUSH after so many writes. */
  readonly flushEvery?: number;
  /** Part of the short run. */
  readonly quick?: boolean;
}

const KIB = 1024;

function random(rw: "randread" | "randwrite", depth: number, quick: boolean, connections = 1): Row {
  const what = rw === "randread" ? "read" : "write";
  const clients = connections === 1 ? "" : `, ${connections} connections`;
  return { name: `4K ${what}, depth ${depth}${clients}`, rw, blockBytes: 4 * KIB, depth, connections, quick };
}

export const ROWS: readonly Row[] = [
  random("randread", 1, true),
  random("randwrite", 1, true),
  random("randread", 16, false),
  random("randwrite", 16, false),
  random("randread", 32, true),
  random("randwrite", 32, true),
  random("randread", 16, true, 4),
  random("randwrite", 16, true, 4),
  { name: "128K read, depth 16", rw: "read", blockBytes: 128 * KIB, depth: 16, connections: 1, quick: true },
  {
    name: "128K write, depth 16",
    rw: "write",
    blockBytes: 128 * KIB,
    depth: 16,
    connections: 1,
    quick: true,
  },
  {
    name: "4K write + flush, depth 1",
    rw: "randwrite",
    blockBytes: 4 * KIB,
    depth: 1,
    connections: 1,
    flushEvery: 1,
  },
  {
    name: "4K write, flush every 32, depth 32",
    rw: "randwrite",
    blockBytes: 4 * KIB,
    depth: 32,
    connections: 1,
    flushEvery: 32,
  },
];
