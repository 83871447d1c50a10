/**
 * What the simulator reports: the invariant (DESIGN §10 and the house's own), in words, and what was seen.
 */
import { InvariantError } from "../../lib/core/assert.js";

export const INVARIANTS = {
  I1: "A flushed sector returns that value or a later write's after any faults that leave one valid copy's disk intact.",
  I2: "An acknowledged write survives kill -9 of any set of processes.",
  I3: "Each sector is a register: a read returns the last acknowledged write or a concurrent one; two reads with no write between agree.",
  I4: "After power loss a sector holds a value that no flushed write superseded; the first read settles it.",
  I5: "Non-overlapping sub-block writes never lose each other.",
  I6: "A FLUSH reply implies that every write acknowledged before it was received is stable.",
  I7: "At rest absent blocks are zeros on the device and every present block matches its checksum.",
  I8: "A read never returns bytes that fail their checksum; what cannot be read is an error, and only where a fault was.",
  I9: "A node's promised epoch never falls; nothing older is applied after a promise was answered.",
  I10: "Who begins to serve knows the newest record that a majority has chosen, and every in-sync member has promised to it.",
  I11: "Generations strictly rise; no two records share (epoch, generation).",
  I12: "In sync only after a finished, flushed resync; only valid copies are sources.",
  I13: "An acknowledged write is on every in-sync member; a member that is whole stays one as long as it is needed.",
  I14: "A message with the wrong cluster, node, volume, epoch or generation changes nothing.",
  I15: "Resync covers whatever a member may have missed; a reconcile stamps all it looked at.",
  FENCE: "Nobody answers for an epoch after a newer one has begun to serve.",
  I17: "A slot belongs to at most one live extent; free + live + freeing = all; a free slot is durably zero.",
  I18: "Bytes written by one volume are never readable from another.",
  I19: "At most one write is in flight per block; memory handed to the disk is left alone until it answers.",
  I20: "Redis, once mirrored, equals the records and the inventory of the device; it is never an input.",
  I21: "Every state that a crash can leave recovers to a legal one.",
  I22: "After a failed fsync a device acknowledges nothing.",
  I23: "When faults stop, all pending I/O completes in bounded time; memory stays bounded.",
  ASSERT: "The program's own assertions hold.",
  NBD: "The server keeps the rules of the NBD protocol towards a client that keeps them.",
  CONTRACT: "Disk and streams are asked only for what their interfaces allow.",
} as const;

export type Invariant = keyof typeof INVARIANTS;

export class Violation extends Error {
  override readonly name = "Violation";
  /** The first one of the run: it counts even where the program under test has caught it on its way. */
  static raised: Violation | null = null;
  readonly invariant: Invariant;

  constructor(invariant: Invariant, seen: string, cause?: unknown) {
    super(`${invariant}: ${seen}`, cause === undefined ? undefined : { cause });
    this.invariant = invariant;
    Violation.raised ??= this;
  }

  get words(): string {
    return INVARIANTS[this.invariant];
  }
}

/** Whatever a run has thrown. */
export function asViolation(error: unknown): Violation {
  if (error instanceof Violation) return error;
  const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return new Violation("ASSERT", error instanceof InvariantError ? error.message : what, error);
}
