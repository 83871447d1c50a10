/**
 * Names of the keys in Redis. All keys of one volume carry the hash tag of that volume and all keys of the
 * catalogue the tag `{store}`, so that a script never needs two slots of a Redis Cluster.
 *
 *     lamina:{store}:identity   hash    store, schema, session, serial: whose mirror this is, and its version; beat: of
 *                                       several gateways the one that writes goes on
 *     lamina:{store}:volumes    hash    volume id → name
 *     lamina:{store}:names      hash    name → volume id
 *     lamina:{store}:nodes      hash    node id → JSON of its capacity
 *     lamina:{store}:events     stream  what happened, newest last, capped
 *     lamina:{store}:cursors    hash    gateway → its last event that is in the stream
 *     lamina:{v<id>}:stamp      string  session:number, changed by every change of the keys below
 *     lamina:{v<id>}:record     hash    the volume record
 *     lamina:{v<id>}:buckets    set     <layer>:<bucket> of every index bucket that exists
 *     lamina:{v<id>}:x:<layer>:<bucket>  hash  extent → nodes that hold it
 *
 * The extent index lies in buckets of 512 extents (2 GiB): Redis keeps such a small hash as one packed list,
 * about 8 bytes an extent instead of about 70 in one big hash.
 */
export const SCHEMA_VERSION = "1";

/** Extents of one bucket; Redis's default bound for packed hashes. */
export const BUCKET_EXTENTS = 512;
const BUCKET_SHIFT = 9;

/** Entries of the event stream that are kept, about. */
export const EVENTS_KEPT = 10_000;

export const IDENTITY_KEY = "lamina:{store}:identity";
export const VOLUMES_KEY = "lamina:{store}:volumes";
export const NAMES_KEY = "lamina:{store}:names";
export const NODES_KEY = "lamina:{store}:nodes";
export const EVENTS_KEY = "lamina:{store}:events";
export const CURSORS_KEY = "lamina:{store}:cursors";

export function stampKey(volume: number): string {
  return `lamina:{v${volume}}:stamp`;
}

export function recordKey(volume: number): string {
  return `lamina:{v${volume}}:record`;
}

export function bucketsKey(volume: number): string {
  return `lamina:{v${volume}}:buckets`;
}

export function bucketKey(volume: number, bucket: string): string {
  return `lamina:{v${volume}}:x:${bucket}`;
}

/** The layer in the name of a bucket. */
export function layerOfBucket(name: string): number {
  return Number(name.slice(0, name.indexOf(":")));
}

/** Name of the bucket that lists an extent, as it stands in the set of buckets. */
export function bucketOf(layer: number, extent: number): string {
  return `${layer}:${extent >>> BUCKET_SHIFT}`;
}
