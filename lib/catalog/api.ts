/** The mirror's face: where its content comes from, and what it says about itself. */
import type { VolumeRecord } from "../replica/record.js";

/** The truth that is mirrored. Everything is asked at the moment of writing; nothing is read back from Redis. */
export interface MirrorSource {
  /** Identity of the cluster, in hex: a Redis that mirrors another one is refused. */
  readonly storeId: string;
  /** Short name of the node that holds the extents; the value of the index. */
  readonly nodeId: string;
  /** With several nodes: the short names of those that hold an extent, in place of `nodeId`. */
  holders?(volume: number, layer: number, extent: number): string;
  /** Live records. */
  records(): readonly VolumeRecord[];
  /** Extents of one volume as of now, in no order. */
  inventory(volume: number, visit: (layer: number, extent: number) => void): void;
  /** Capacity of the node: flat, for `lamina:{store}:nodes`. */
  node(): Readonly<Record<string, string | number>>;
  /** With several nodes: the capacity of each by its short name, in place of `node`. */
  nodes?(): ReadonlyMap<string, Readonly<Record<string, string | number>>>;
  /** Further fields of a volume's record, flat. */
  fields?(record: VolumeRecord): readonly string[];
}

/**
 * off: `--redis none`. connecting: not reached yet. down: not answering. refused: it answers but is not to be
 * used. standby: another gateway writes. rebuilding: being written anew. behind: changes are on their way. mirrored:
 * equal to the truth.
 */
export type MirrorState =
  | "off"
  | "connecting"
  | "down"
  | "refused"
  | "standby"
  | "rebuilding"
  | "behind"
  | "mirrored";

export interface MirrorStatus {
  readonly state: MirrorState;
  /** The Redis without secrets; null when off. */
  readonly redis: string | null;
  /** Why, in one sentence, when the state is down or refused; else null. */
  readonly reason: string | null;
  /** Wall clock since when the state is what it is. */
  readonly since: number;
  /** Wall clock of the last moment at which it was known to be equal; 0 for never. */
  readonly mirroredAt: number;
  /** Extent changes that wait to be written. */
  readonly pending: number;
  /** Volumes that were written anew because Redis lacked them or had something else. */
  readonly rebuilds: number;
  /** Connections lost or refused. */
  readonly failures: number;
}
