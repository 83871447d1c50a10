/**
 * Result of one data-path operation. Values below 1000 are the error numbers that NBD puts on the wire
 * (proto.md, "Error values"), so no table stands between a store's answer and a client's. Zero is success.
 */
export const Status = {
  Ok: 0,
  /** Operation not permitted: read-only volume, or the owner was fenced. */
  Perm: 1,
  /** The bytes cannot be had: bit rot without a second copy, or a failed device. */
  Io: 5,
  NoMem: 12,
  Inval: 22,
  /** Only under `--on-full enospc`; otherwise a write to a full device waits. */
  NoSpace: 28,
  Overflow: 75,
  NotSup: 95,
  Shutdown: 108,
  /**
   * Between the owner of a volume and its nodes (lib/replica/api.ts); never a client's. The owner was fenced;
   * the node has no serving lease; the generation is older than the node's; the connection ended unanswered; the
   * node answers for another set of config nodes.
   */
  Fenced: 1001,
  NoLease: 1002,
  Outdated: 1003,
  LinkLost: 1004,
  OtherSet: 1005,
} as const;

export type Status = (typeof Status)[keyof typeof Status];
