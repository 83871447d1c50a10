/**
 * Counts of what happened in a run: events, operations, faults, and operations × faults, so that a fault that
 * never fires is visible. Counts of runs add up.
 */
export class Coverage {
  readonly counts = new Map<string, number>();
  events = 0;
  operations = 0;

  count(name: string, by = 1): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + by);
  }

  add(other: { events: number; operations: number; counts: Iterable<[string, number]> }): void {
    this.events += other.events;
    this.operations += other.operations;
    for (const [name, by] of other.counts) this.count(name, by);
  }

  get(name: string): number {
    return this.counts.get(name) ?? 0;
  }
}
