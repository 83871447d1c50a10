/**
 * Counts of what happened in a run: events, operations, faults, and operations × faults, so that a fault that
 * never fires, or never beside some operation, is visible. Counts of runs add up.
 */
export interface Counts {
  readonly events: number;
  readonly operations: number;
  readonly counts: Iterable<[string, number]>;
  /** Operations that were asked in a life in which the fault fired: "fault|operation". */
  readonly crosses: Iterable<[string, number]>;
}

const FAULT = "fault:";
const END_OF_LIFE = "life:";
const OPERATION = "op:";

export class Coverage implements Counts {
  readonly counts = new Map<string, number>();
  readonly crosses = new Map<string, number>();
  events = 0;
  operations = 0;
  /** The counts at the beginning of the life. */
  #before = new Map<string, number>();

  count(name: string, by = 1): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + by);
  }

  add(other: Counts): void {
    this.events += other.events;
    this.operations += other.operations;
    for (const [name, by] of other.counts) this.count(name, by);
    for (const [name, by] of other.crosses) this.crosses.set(name, (this.crosses.get(name) ?? 0) + by);
  }

  get(name: string): number {
    return this.counts.get(name) ?? 0;
  }

  lifeBegins(): void {
    this.#before = new Map(this.counts);
  }

  /** Crosses the faults of the life, and how it ended, with its operations. */
  lifeEnds(): void {
    const faults: string[] = [];
    const operations: [string, number][] = [];
    for (const [name, count] of this.counts) {
      const by = count - (this.#before.get(name) ?? 0);
      if (by === 0) continue;
      if (name.startsWith(OPERATION)) operations.push([kindOf(name), by]);
      else if (name.startsWith(FAULT)) faults.push(name.slice(FAULT.length));
      else if (name.startsWith(END_OF_LIFE)) faults.push(`(${name.slice(END_OF_LIFE.length)})`);
    }
    for (const fault of faults) {
      for (const [operation, by] of operations) {
        const key = `${fault}|${operation}`;
        this.crosses.set(key, (this.crosses.get(key) ?? 0) + by);
      }
    }
  }
}

/** "op:write+fua" is a write. */
function kindOf(name: string): string {
  const plus = name.indexOf("+");
  return name.slice(OPERATION.length, plus < 0 ? undefined : plus);
}
