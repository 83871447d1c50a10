/**
 * R(e): which members of a volume hold an extent, and how many members that makes necessary.
 *
 * A member's place in the record's list is its seat. Which seats hold an extent is computed from its number, by the
 * placement function over the seats with equal weights, and never changes: a node that replaces another takes its
 * seat, and with it the extents. So an owner knows R(e) without having heard of anybody, and "this member does not
 * have the extent" is never mistaken for "it is not meant to".
 */
import { type PlacementNode, place } from "./placement.js";
import type { ClusterRecord } from "./record.js";

/** Extents whose seats are kept in mind, 16 TiB of them; of those behind, they are computed each time. */
const CACHED_MAX = 2 ** 22;
const CACHED_MIN = 1024;

export class Holders {
  readonly #volume: number;
  readonly #replicas: number;
  readonly #seats: readonly PlacementNode[];
  readonly #all: number;
  /** By extent, a bit for each seat; 0: not computed yet. */
  #masks = new Uint8Array(CACHED_MIN);

  constructor(record: ClusterRecord) {
    const { members, domains } = record;
    this.#volume = record.id;
    this.#replicas = copiesOf(record);
    this.#all = 2 ** members.length - 1;
    this.#seats = members.map((_, seat) => ({
      node: `seat ${seat}`,
      weight: 1,
      domains: domains?.[seat] ?? { zone: "", rack: "", host: `${seat}` },
    }));
  }

  holds(seat: number, extent: number): boolean {
    return ((this.mask(extent) >>> seat) & 1) === 1;
  }

  /** Bit i: the member in seat i holds the extent. */
  mask(extent: number): number {
    if (this.#replicas === this.#seats.length) return this.#all;
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
    const { nodes } = place(this.#volume, extent, this.#replicas, this.#seats)!;
    let mask = 0;
    this.#seats.forEach(({ node }, seat) => {
      if (nodes.includes(node)) mask |= 1 << seat;
    });
    return mask;
  }
}

/** Copies of each extent. */
function copiesOf({ members, policy }: ClusterRecord): number {
  return Math.min(members.length, Math.max(1, policy.replicas));
}

/** In-sync members with which every extent has at least `minReplicas` in-sync copies, whichever they are. */
export function membersForChanges(record: ClusterRecord): number {
  return (
    record.members.length -
    copiesOf(record) +
    Math.min(copiesOf(record), Math.max(1, record.policy.minReplicas))
  );
}

/** Members with which every extent has at least one copy among them, whichever they are. */
export function membersForAll(record: ClusterRecord): number {
  return record.members.length - copiesOf(record) + 1;
}
