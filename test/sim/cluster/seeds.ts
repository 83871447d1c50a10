/** Many seeds of the simulated cluster: in this process, or in several, each with every so-many-th seed. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type ClusterRunOptions, runCluster } from "./run.js";

/** What every seed is run with. */
export type Common = Omit<ClusterRunOptions, "seed" | "trace">;

/** Seeds after which a worker tells what it has done. */
const TOLD_SEEDS = 10;
/** Then a new process takes its place: whatever a long life gathers cannot end a run of hours. */
const SEEDS_PER_WORKER = 5000;

/** Seeds `from`, `from + step` and so on. */
export interface Share {
  readonly from: number;
  readonly step: number;
  readonly count: number;
  /** Wall clock after which no seed is begun. */
  readonly end: number;
  readonly common: Common;
}

export interface Failure {
  readonly seed: number;
  readonly message: string;
  readonly words: string;
}

export interface ShareResult {
  seeds: number;
  events: number;
  quarantines: number;
  replaced: number;
  grown: number;
  configChanges: number;
  decisions: number;
  readonly failures: Failure[];
}

export interface WallClock {
  now(): number;
}

export function noResult(): ShareResult {
  return {
    seeds: 0,
    events: 0,
    quarantines: 0,
    replaced: 0,
    grown: 0,
    configChanges: 0,
    decisions: 0,
    failures: [],
  };
}

function add(to: ShareResult, more: ShareResult): void {
  to.seeds += more.seeds;
  to.events += more.events;
  to.quarantines += more.quarantines;
  to.replaced += more.replaced;
  to.grown += more.grown;
  to.configChanges += more.configChanges;
  to.decisions += more.decisions;
  to.failures.push(...more.failures);
}

/** Runs the seeds one after the other; `tell` with what was done since it was called last. */
export function runShare(share: Share, clock: WallClock, tell: (result: ShareResult) => void): void {
  let result = noResult();
  for (let i = 0; i < share.count && clock.now() < share.end; i++) {
    const seed = share.from + i * share.step;
    const { violation, ...counts } = runCluster({ seed, ...share.common });
    const failures = violation === null ? [] : [{ seed, message: violation.message, words: violation.words }];
    add(result, { ...counts, seeds: 1, failures });
    if (result.seeds < TOLD_SEEDS && failures.length === 0) continue;
    tell(result);
    result = noResult();
  }
  if (result.seeds > 0) tell(result);
}

/** There is a worker for each core: V8's helper threads would only take time from the other workers. */
const WORKER_FLAGS = ["--single-threaded"];
const WORKER = fileURLToPath(new URL("worker.js", import.meta.url));

/** The same on several processes, until all seeds are run, the time is over or one has failed. */
export async function runOnProcesses(
  share: Share,
  processes: number,
  clock: WallClock,
  progress: (result: ShareResult) => void,
): Promise<ShareResult> {
  const result = noResult();
  const work = async (first: number): Promise<void> => {
    const step = share.step * processes;
    let left = Math.ceil((share.count - first) / processes);
    let from = share.from + first * share.step;
    while (left > 0 && clock.now() < share.end && result.failures.length === 0) {
      const count = Math.min(left, SEEDS_PER_WORKER);
      await oneWorker({ ...share, from, step, count }, (more) => {
        add(result, more);
        progress(result);
      });
      from += count * step;
      left -= count;
    }
  };
  await Promise.all(Array.from({ length: processes }, (_, first) => work(first)));
  return result;
}

function oneWorker(share: Share, tell: (result: ShareResult) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = fork(WORKER, [], { stdio: "inherit", execArgv: [...process.execArgv, ...WORKER_FLAGS] });
    child.on("message", (result: ShareResult | null) => {
      if (result !== null) tell(result);
    });
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      if (code !== 0) {
        const message = `a worker ended (${signal ?? `code ${code}`}) in its share from ${share.from} on`;
        const failure = { seed: share.from, message, words: "The program's own assertions hold." };
        tell({ ...noResult(), failures: [failure] });
      }
      resolve();
    });
    child.send(share);
  });
}
