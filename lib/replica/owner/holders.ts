/**
 * R(e): which members of a volume hold an extent, and how many members that makes necessary.
 *
 * A member's place in the record's list is its seat. Which seats hold an extent is computed from its number, by the
 * placement function over the seats with equal weights: a node that replaces another takes its seat, and with it the
 * extents. So an owner knows R(e) without having heard of anybody, and "this member does not have the extent" is never
 * mistaken for "it is not meant to".
 *
 * R(e) changes in one way: a further seat joins. It is to hold the extents of which R(e) over all seats has it, and R(e)
 * stays what it is over the others until a record is chosen that has the seat count. Invariant: R(e) over one seat
 * more is R(e), or R(e) with the further seat, or that with one seat less. Nobody else has to get anything.
 */
import { type PlacementNode, place } from "./placement.js";
import { type ClusterRecord, isJoining, seatsOf } from "./record.js";

/** Extents whose seats are kept in mind, 16 TiB of them; of those behind, they are computed each time. */
const CACHED_MAX = 2 ** 22;
const CACHED_MIN = 1024;

export class Holders {
  readonly #volume: number;
  #seats: readonly PlacementNode[] = [];
  /** Copies over the seats that count, and how many of them there are. */
  #replicas = 0;
  #counted = 0;
  /** Copies over all seats, one of which is joining; 0: none is. */
  #joinedReplicas = 0;
  /** By extent, a bit for each seat; 0: not computed yet. */
  #masks = new Uint8Array(CACHED_MIN);

  constructor(record: ClusterRecord) {
    this.#volume = record.id;
    this.follow(record);
  }

  /** Another record counts from now on. */
  follow(record: ClusterRecord): void {
    const { members, domains } = record;
    this.#replicas = copiesOf(record, seatsOf(record));
    this.#counted = seatsOf(record);
    this.#joinedReplicas = isJoining(record) ? copiesOf(record, members.length) : 0;
    this.#seats = members.map((_, seat) => ({
      node: `seat ${seat}`,
      weight: 1,
      domains: domains?.[seat] ?? { zone: "", rack: "", host: `${seat}` },
    }));
    this.#masks = new Uint8Array(CACHED_MIN);
  }

  /** Whether the seat holds the extent, or is to hold it when it has joined. */
  holds(seat: number, extent: number): boolean {
    return ((this.mask(extent) >>> seat) & 1) === 1;
  }

  /** Bit i: the member in seat i holds the extent, or is to hold it when it has joined. */
  mask(extent: number): number {
    if (this.#replicas === this.#seats.length) return 2 ** this.#replicas - 1;
    if (extent >= CACHED_MAX) return this.#compute(extent);
    if (extent >= this.#masks.length) {
      const longer = new Uint8Array(Math.min(CACHED_MAX, 2 * (extent + 1)));
      longer.set(this.#masks);
      this.#masks = longer;
    }
    const known = this.#masks[extent]!;
    if (known !== 0) return known;
    const mask = this.#compute(extent);
    this.#masks[extent] = mask;
    return mask;
  }

  #compute(extent: number): number {
    const seats = this.#seats;
    const mask = this.#placed(extent, this.#replicas, seats.slice(0, this.#counted));
    if (this.#joinedReplicas === 0) return mask;
    const joining = 1 << this.#counted;
    return mask | (this.#placed(extent, this.#joinedReplicas, seats) & joining);
  }

  #placed(extent: number, replicas: number, seats: readonly PlacementNode[]): number {
    const { nodes } = place(this.#volume, extent, replicas, seats)!;
    let mask = 0;
    seats.forEach(({ node }, seat) => {
      if (nodes.includes(node)) mask |= 1 << seat;
    });
    return mask;
  }
}

/** Copies of each extent over so many seats. */
function copiesOf({ policy }: ClusterRecord, seats: number): number {
  return Math.min(seats, Math.max(1, policy.replicas));
}

/** In-sync members with which every extent has at least `minReplicas` in-sync copies, whichever they are. */
export function membersForChanges(record: ClusterRecord): number {
  const seats = seatsOf(record);
  const copies = copiesOf(record, seats);
  return seats - copies + Math.min(copies, Math.max(1, record.policy.minReplicas));
}

/** Members with which every extent has at least one copy among them, whichever they are. */
export function membersForAll(record: ClusterRecord): number {
  const seats = seatsOf(record);
  return seats - copiesOf(record, seats) + 1;
}
