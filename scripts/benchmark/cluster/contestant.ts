/** What is compared: three copies of a volume on one machine, each with its daemons, and the clients that ask them. */
import { cpuTime } from "../cpu-time.js";
import { type FioCommand, type Outcome, PREFILL_DEPTH, prefillBy, runFio } from "../measure.js";
import type { Row } from "../rows.js";

/** CPU time that each group of daemons has used so far, in microseconds. */
export type CpuByGroup = Readonly<Record<string, number>>;

export interface Contestant {
  readonly name: string;
  /** One sentence for the report: what acknowledges a write, and how it is asked. */
  readonly about: string;
  /** Whether it can be asked by this row's client. */
  takes(row: Row): boolean;
  /** Brings it up over files of `sizeBytes` in `folder`, which is its own, with every block written. */
  start(folder: string, sizeBytes: number): Promise<void>;
  run(row: Row, seconds: number): Promise<Outcome>;
  cpu(): CpuByGroup;
  stop(): Promise<void>;
}

/** Processes by what they are. */
export type Daemons = Readonly<Record<string, readonly number[]>>;

export function cpuOf(daemons: Daemons): CpuByGroup {
  const used: Record<string, number> = {};
  for (const [group, pids] of Object.entries(daemons)) {
    used[group] = pids.reduce((sum, pid) => {
      const { userUs, systemUs } = cpuTime(pid);
      return sum + userUs + systemUs;
    }, 0);
  }
  return used;
}

/** One that is asked by fio with an engine of its own. */
export abstract class FioContestant implements Contestant {
  abstract readonly name: string;
  abstract readonly about: string;
  protected sizeBytes = 0;

  takes(row: Row): boolean {
    return row.client === "fio";
  }

  async start(folder: string, sizeBytes: number): Promise<void> {
    this.sizeBytes = sizeBytes;
    await this.launch(folder, sizeBytes);
    await prefillBy(this.engine(PREFILL_DEPTH), sizeBytes, this.command());
  }

  run(row: Row, seconds: number): Promise<Outcome> {
    return runFio(this.engine(row.depth), row, seconds, this.sizeBytes, this.command());
  }

  cpu(): CpuByGroup {
    return cpuOf(this.daemons());
  }

  abstract stop(): Promise<void>;
  protected abstract launch(folder: string, sizeBytes: number): Promise<void>;
  protected abstract daemons(): Daemons;
  /** fio's engine, which may depend on the depth. */
  protected abstract engine(depth: number): readonly string[];

  protected command(): FioCommand {
    return {};
  }
}
