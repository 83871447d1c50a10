/**
 * The volume record: the small versioned truth about a volume (DESIGN "volume record"). On one machine it
 * lives on the one device; in a cluster on a majority of the config nodes. Redis holds a copy.
 */
import type { Epoch, Generation, VolumeId } from "../core/ids.js";

export interface VolumePolicy {
  readonly replicas: number;
  readonly minReplicas: number;
  /** Extents that a sequential stream is dealt over; 1 is linear. */
  readonly stripeCount: number;
  /** Bytes of one stripe unit; a multiple of 4096 that divides the extent. */
  readonly stripeUnit: number;
  /** What a write to a full device gets: it waits, or ENOSPC. */
  readonly onFull: "wait" | "enospc";
}

/** Who may use a volume, and how. An empty list grants everyone who can connect; once it has a rule, default deny. */
export interface AccessRule {
  /** certificate common name, PSK identity, or an address or prefix ("10.0.0.0/8"). */
  readonly kind: "cert" | "psk" | "address";
  readonly value: string;
  readonly readOnly: boolean;
}

export interface VolumeRecord {
  readonly id: VolumeId;
  readonly name: string;
  /** Bytes, a multiple of 4096. */
  readonly size: number;
  readonly description: string;
  readonly readOnly: boolean;
  readonly policy: VolumePolicy;
  readonly access: readonly AccessRule[];
  readonly epoch: Epoch;
  readonly generation: Generation;
  /** Rises with every change of this record; the mirror in Redis follows the highest. */
  readonly version: number;
  /** Wall clock, for people. */
  readonly createdAt: number;
  /** A removed volume leaves a tombstone until all of its extents are gone. */
  readonly state: "live" | "removed";
}
