/**
 * One operation in the store, between its validation and its answer. Pooled; its number is the tag of its
 * disk requests, so that a completion costs one array access.
 */
import type { ExtentOp } from "../core/extent-io.js";
import type { Table } from "./table.js";

export class Job {
  readonly id: number;
  op: ExtentOp | null = null;
  table: Table | null = null;
  /** Sequence of its record. */
  sequence = 0;
  /** Disk requests that have not completed. */
  parts = 0;
  /** Worst result of those that have. */
  result = 0;
  retries = 0;
  /** Reads: submitted before the table was there to say which blocks have bytes. */
  early = false;
  /** Reads: the blocks of the one disk read, inside the extent. */
  firstBlock = 0;
  blocks = 0;
  /** Links of the table's jobs in flight. */
  nextInFlight: Job | null = null;
  previousInFlight: Job | null = null;
  /** Link of the list that the job is in: free, to be submitted at the end of the batch, or early reads. */
  next: Job | null = null;

  constructor(id: number) {
    this.id = id;
  }
}

export class JobPool {
  readonly #jobs: Job[] = [];
  #free: Job | null = null;
  /** Jobs in use. */
  count = 0;

  byId(id: number): Job {
    return this.#jobs[id]!;
  }

  take(op: ExtentOp, table: Table): Job {
    let job = this.#free;
    if (job === null) {
      job = new Job(this.#jobs.length);
      this.#jobs.push(job);
    } else {
      this.#free = job.next;
    }
    job.next = null;
    job.op = op;
    job.table = table;
    job.parts = 0;
    job.result = 0;
    job.retries = 0;
    job.early = false;
    table.pins++;
    this.count++;
    return job;
  }

  /** The caller unpins the table. */
  give(job: Job): void {
    job.op = null;
    job.table = null;
    job.next = this.#free;
    this.#free = job;
    this.count--;
  }
}

/** Puts the job into its table's list of writes in flight. */
export function enlist(table: Table, job: Job): void {
  job.previousInFlight = null;
  job.nextInFlight = table.inFlight;
  if (table.inFlight !== null) table.inFlight.previousInFlight = job;
  table.inFlight = job;
}

export function delist(table: Table, job: Job): void {
  if (job.previousInFlight === null) table.inFlight = job.nextInFlight;
  else job.previousInFlight.nextInFlight = job.nextInFlight;
  if (job.nextInFlight !== null) job.nextInFlight.previousInFlight = job.previousInFlight;
  job.nextInFlight = null;
  job.previousInFlight = null;
}
