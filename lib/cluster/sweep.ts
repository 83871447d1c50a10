/**
 * The space of what a node holds for nothing: extents of removed volumes, and of volumes that have no seat on it any more.
 *
 * Invariants
 *  1. Only a record that a majority was just heard to have accepted is a reason. What nobody knows stays: it may be
 *     another majority's.
 *  2. Copies of a live volume go only while all of its members are in sync, and while no owner was let in here since
 *     before the record was asked for: one that gives the seat back asks for a promise first, finds what is left then, and
 *     copies what is not.
 *  3. They go in one step, before anything else happens at the node.
 */
import type { Ballot, NodeId, PromiseAnswer } from "../replica/api.js";
import type { Store } from "../store/index.js";
import type { KnownVolume } from "./catalogue.js";

/** Most bytes of the log that giving one extent back takes, with much to spare. */
const FREE_BYTES_MAX = 64;
/** Share of the log's room that one step may take. */
const LOG_SHARE = 4;

export interface SweptNode {
  readonly node: NodeId;
  readonly store: Pick<Store, "volumesWithSlots" | "slotsOf" | "dropVolume" | "stats">;
  /** The device is registered: only then is anything of it given up. */
  mayVote(): boolean;
  /** Volumes whose gates are open. */
  watched(): readonly number[];
  /** How many gates were opened so far. */
  openings(): number;
  promise(volume: number, ballot: Ballot, done: (answer: PromiseAnswer) => void): void;
  /** The volumes as a majority has them, asked after the call. */
  volumes(): Promise<ReadonlyMap<number, KnownVolume>>;
  isStopped(): boolean;
}

/** One look. Returns the volumes whose extents were given back. */
export async function sweep(of: SweptNode): Promise<number[]> {
  const held = of.store.volumesWithSlots();
  const swept: number[] = [];
  // Nobody is asked while there is nothing that could go.
  if (held.length === 0) return swept;
  const openings = of.openings();
  const volumes = await of.volumes();
  for (const volume of held) {
    const known = volumes.get(volume);
    if (known === undefined || !known.chosen || of.isStopped()) continue;
    const isDropped =
      known.record.state === "removed"
        ? await dropRemoved(of, volume, known.accepted.ballot)
        : of.openings() === openings && (await dropUnseated(of, volume, known));
    if (isDropped) swept.push(volume);
  }
  return swept;
}

/** A volume is removed for good. The promise ends whatever an owner may still have under way. */
function dropRemoved(of: SweptNode, volume: number, ballot: Ballot): Promise<boolean> {
  return new Promise((resolve) => {
    of.promise(volume, ballot, (answer) => {
      if (answer.kind !== "promised" || of.isStopped()) resolve(false);
      else of.store.dropVolume(volume, (error) => resolve(error === null));
    });
  });
}

function dropUnseated(of: SweptNode, volume: number, { record }: KnownVolume): Promise<boolean> {
  const { store } = of;
  const isNeeded = record.members.some(({ node, state }) => node === of.node || state !== "insync");
  if (isNeeded || !of.mayVote() || of.watched().includes(volume)) return Promise.resolve(false);
  // With room for all of it in the log it is one step: nobody can be let in before its end.
  const { logBytes, logUsedBytes } = store.stats();
  if (store.slotsOf(volume) * FREE_BYTES_MAX > (logBytes - logUsedBytes) / LOG_SHARE)
    return Promise.resolve(false);
  return new Promise((resolve) => {
    store.dropVolume(volume, (error) => resolve(error === null));
  });
}
