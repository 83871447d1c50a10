/** Many seeds: in this process, or dealt over worker processes. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Feature, Focus, FrontKind } from "./config.js";
import { type Counts, Coverage } from "./coverage.js";
import { run } from "./run.js";
import type { Subject } from "./subject.js";
import { INVARIANTS } from "./violation.js";

/** Seeds that a worker gets at a time. */
const CHUNK = 20;
/** Then a new one takes its place: whatever a long life gathers cannot end a run of hours. */
const CHUNKS_PER_WORKER = 100;

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
  /** Wall clock after which no seed is begun. */
  readonly end: number;
  readonly count: number;
  readonly operations?: number;
  readonly without?: readonly Feature[];
  readonly front?: FrontKind;
  readonly focus?: Focus;
  readonly plain?: boolean;
}

export interface ChunkResult extends Counts {
  readonly seeds: number;
  readonly counts: [string, number][];
  readonly crosses: [string, number][];
  readonly failures: Failure[];
}

export async function runChunk(subject: Subject, chunk: Chunk, clock: WallClock): Promise<ChunkResult> {
  const { coverage, seeds, failures } = await runSeeds(
    subject,
    { ...chunk, budgetMs: chunk.end - clock.now() },
    clock,
  );
  const { events, operations, counts, crosses } = coverage;
  return { seeds, events, operations, counts: [...counts], crosses: [...crosses], failures };
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
    const chunk = { ...rest, firstSeed: firstSeed + next, count, end };
    next += count;
    return chunk;
  };
  return Promise.all(Array.from({ length: processes }, () => workUntilDone(take, result, progress))).then(
    () => result,
  );
}

/** One worker after the other, as long as there are seeds: one that dies is a failure of the seeds it had. */
async function workUntilDone(
  take: () => Chunk | null,
  result: SeedsResult,
  progress: (result: SeedsResult) => void,
): Promise<void> {
  while (await oneWorker(take, result, progress));
}

const WORKER = fileURLToPath(new URL("worker.js", import.meta.url));

/** False when there were no seeds left. */
function oneWorker(
  take: () => Chunk | null,
  result: SeedsResult,
  progress: (result: SeedsResult) => void,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    let chunk = take();
    let chunks = 0;
    if (chunk === null) {
      resolve(false);
      return;
    }
    const child = fork(WORKER, [], { stdio: "inherit" });
    child.send(chunk);
    child.on("message", (answer: ChunkResult) => {
      result.coverage.add(answer);
      result.seeds += answer.seeds;
      result.failures.push(...answer.failures);
      progress(result);
      chunks++;
      chunk = chunks < CHUNKS_PER_WORKER ? take() : null;
      if (chunk === null) child.disconnect();
      else child.send(chunk);
    });
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      if (code !== 0 || chunk !== null) {
        const { firstSeed, count } = chunk ?? { firstSeed: 0, count: 0 };
        const message = `a worker ended (${signal ?? `code ${code}`}) in seeds ${firstSeed} to ${firstSeed + count - 1}`;
        result.failures.push({ seed: firstSeed, invariant: "ASSERT", words: INVARIANTS.ASSERT, message });
      }
      resolve(chunks > 0 || code !== 0);
    });
  });
}
