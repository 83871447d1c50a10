/** Allocation maps as two clients tell them, brought to one form: neighbouring runs of one kind merged. */
import { check } from "./process.js";

export interface Run {
  readonly offset: number;
  readonly length: number;
  readonly hole: boolean;
}

interface NbdinfoRun {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

interface QemuRun {
  readonly start: number;
  readonly length: number;
  readonly data: boolean;
}

/** Type 3 of base:allocation: a hole that reads as zeros. */
const HOLE_AND_ZERO = 3;

export async function nbdinfoMap(uri: string): Promise<Run[]> {
  const runs = JSON.parse(await check("nbdinfo", ["--map", "--json", uri])) as NbdinfoRun[];
  return merged(runs.map(({ offset, length, type }) => ({ offset, length, hole: type === HOLE_AND_ZERO })));
}

export async function qemuMap(uri: string): Promise<Run[]> {
  const text = await check("qemu-img", ["map", "--output=json", "-f", "raw", uri]);
  const runs = JSON.parse(text) as QemuRun[];
  return merged(runs.map(({ start, length, data }) => ({ offset: start, length, hole: !data })));
}

function merged(runs: readonly Run[]): Run[] {
  const out: Run[] = [];
  for (const run of runs) {
    const last = out.at(-1);
    if (last !== undefined && last.hole === run.hole) {
      out[out.length - 1] = { ...last, length: last.length + run.length };
    } else {
      out.push(run);
    }
  }
  return out;
}

/** Bytes of the map that are not holes. */
export function dataBytes(runs: readonly Run[]): number {
  return runs.reduce((sum, run) => (run.hole ? sum : sum + run.length), 0);
}
