/** Many seeds: in this process, or dealt over worker processes. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Feature, Focus, FrontKind } from "./config.js";
import { Coverage } from "./coverage.js";
import { run } from "./run.js";
import type { Subject } from "./subject.js";

/** Seeds that a worker gets at a time. */
const CHUNK = 20;

export interface SeedsOptions {
  readonly firstSeed: number;
  /** Seeds to run; the budget may end sooner. */
  readonly count: number;
  /** Real milliseconds; no new seed begins after them, but for the first `least`. */
  readonly budgetMs: number;
  readonly least?: number;
  readonly operations?: number;
  readonly without?: readonly Feature[];
  readonly front?: FrontKind;
  readonly focus?: Focus;
  readonly plain?: boolean;
}

export interface Failure {
  readonly seed: number;
  readonly invariant: string;
  readonly words: string;
  readonly message: string;
}

export interface SeedsResult {
  readonly coverage: Coverage;
  seeds: number;
  /** The first failures, at most FAILURES_MAX. */
  readonly failures: Failure[];
}

const FAILURES_MAX = 5;

export interface WallClock {
  now(): number;
}

/** Runs seeds one after the other until one fails, the count is reached or the budget is spent. */
export async function runSeeds(
  subject: Subject,
  options: SeedsOptions,
  clock: WallClock,
): Promise<SeedsResult> {
  const result: SeedsResult = { coverage: new Coverage(), seeds: 0, failures: [] };
  const end = clock.now() + options.budgetMs;
  for (let i = 0; i < options.count && (i < (options.least ?? 0) || clock.now() < end); i++) {
    const seed = options.firstSeed + i;
    const { coverage, violation } = await run(subject, { ...options, seed });
    result.coverage.add(coverage);
    result.seeds++;
    if (violation === null) continue;
    const { invariant, words, message } = violation;
    result.failures.push({ seed, invariant, words, message });
    if (result.failures.length >= FAILURES_MAX) break;
  }
  return result;
}

/** What a worker is asked, and what it answers. */
export interface Chunk {
  readonly firstSeed: number;
  readonly count: number;
  readonly operations?: number;
  readonly without?: readonly Feature[];
  readonly front?: FrontKind;
  readonly focus?: Focus;
  readonly plain?: boolean;
}

export interface ChunkResult {
  readonly seeds: number;
  readonly events: number;
  readonly operations: number;
  readonly counts: [string, number][];
  readonly failures: Failure[];
}

export async function runChunk(subject: Subject, chunk: Chunk, clock: WallClock): Promise<ChunkResult> {
  const { coverage, seeds, failures } = await runSeeds(
    subject,
    { ...chunk, budgetMs: Number.POSITIVE_INFINITY },
    clock,
  );
  const { events, operations, counts } = coverage;
  return { seeds, events, operations, counts: [...counts], failures };
}

/** Deals the seeds over `processes` workers. */
export function runOnProcesses(
  options: SeedsOptions,
  processes: number,
  clock: WallClock,
  progress: (result: SeedsResult) => void,
): Promise<SeedsResult> {
  const result: SeedsResult = { coverage: new Coverage(), seeds: 0, failures: [] };
  const end = clock.now() + options.budgetMs;
  let next = 0;
  const take = (): Chunk | null => {
    const left = options.count - next;
    if (left <= 0 || clock.now() >= end || result.failures.length >= FAILURES_MAX) return null;
    const count = Math.min(CHUNK, left);
    const { firstSeed, budgetMs: _budget, count: _count, ...rest } = options;
    const chunk = { ...rest, firstSeed: firstSeed + next, count };
    next += count;
    return chunk;
  };
  const worker = fileURLToPath(new URL("worker.js", import.meta.url));
  const one = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const child = fork(worker, [], { stdio: "inherit" });
      const ask = (): void => {
        const chunk = take();
        if (chunk === null) child.disconnect();
        else child.send(chunk);
      };
      child.on("message", (answer: ChunkResult) => {
        result.coverage.add(answer);
        result.seeds += answer.seeds;
        result.failures.push(...answer.failures);
        progress(result);
        ask();
      });
      child.on("error", reject);
      child.on("exit", (code) => {
        if (code === 0) resolve();
        else reject(new Error(`a worker ended with code ${code}`));
      });
      ask();
    });
  return Promise.all(Array.from({ length: processes }, one)).then(() => result);
}
