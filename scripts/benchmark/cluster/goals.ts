/** What Lamina is measured against: Vitastor 3.0.8 with three OSDs in memory, its native client, on the same kind of machine. */

export const VITASTOR = {
  /** The three-file floor of that machine on that day, 4K writes in memory, requests/s. */
  floorDepth1: 20_300,
  floorDepth32: 205_000,
} as const;

export interface Goal {
  readonly row: string;
  readonly what: string;
  readonly depth: number;
  readonly unit: "requests/s" | "MB/s" | "µs";
  readonly figure: number;
}

export const GOALS: readonly Goal[] = [
  { row: "4K write, depth 32", what: "4K write, depth 32", depth: 32, unit: "requests/s", figure: 18_000 },
  { row: "4K read, depth 32", what: "4K read, depth 32", depth: 32, unit: "requests/s", figure: 60_000 },
  { row: "4K write, depth 1", what: "4K write, depth 1, mean latency", depth: 1, unit: "µs", figure: 166 },
  {
    row: "4K write + flush, depth 1",
    what: "4K write + flush, depth 1",
    depth: 1,
    unit: "requests/s",
    figure: 2900,
  },
  { row: "128K write, depth 16", what: "128K write, depth 16", depth: 16, unit: "MB/s", figure: 577 },
  { row: "128K read, depth 16", what: "128K read, depth 16", depth: 16, unit: "MB/s", figure: 1950 },
];

/** Lamina's writes are to be so many times those of the peers that run beside it. */
export const PEER_FACTOR = 5;
