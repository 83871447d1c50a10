/** What the nodes of a cluster say of themselves and of the records they have, as text. */
import { z } from "zod";
import type { AcceptedRecord, NodeId } from "../replica/api.js";
import { configSetOf, rawConfigSet } from "../replica/config/set.js";

const nodeId = z.string().regex(/^[0-9a-f]{32}$/);
const whole = z.number().int().nonnegative();

export const placeSchema = z.object({
  node: nodeId,
  address: z.object({ kind: z.literal("tcp"), host: z.string(), port: whole }),
});

/** A set of config nodes (lib/replica/config). */
export const setSchema = z.unknown().transform((raw, context) => {
  const set = configSetOf(raw);
  if (set !== null) return set;
  context.addIssue({ code: "custom", message: "no set of config nodes" });
  return z.NEVER;
});

/** Unknown fields are left out, so that another version may say more. */
const descriptionSchema = z.object({
  version: z.string(),
  startedAt: whole,
  /** The config nodes as this node has written them down; null: it is new. */
  set: setSchema.nullable(),
  /** It is one of them, and its vote counts: it has copied what was decided before it joined. */
  votes: z.boolean(),
  standing: z.enum(["unknown", "registered", "quarantined"]),
  sessions: whole,
  capacityBytes: whole,
  usedBytes: whole,
  lossy: z.boolean(),
  failed: z.string().nullable(),
  /** What fails its checksum there. Versions before the field do not say. */
  rot: z.array(z.object({ volume: whole, blocks: whole, extents: whole })).default([]),
  /** Volumes in which it may lack what a power loss took. Versions before the field do not say. */
  losses: z.array(whole).default([]),
});
export type NodeDescription = z.infer<typeof descriptionSchema>;

export function encodeDescription(said: NodeDescription): string {
  return JSON.stringify({ ...said, set: said.set === null ? null : rawConfigSet(said.set) });
}

const devicesSchema = z.array(
  z.object({ node: nodeId, epoch: whole, generation: whole, place: z.string(), retired: z.boolean() }),
);
/** What a config node has accepted of a device. */
export type DeviceAnswer = z.infer<typeof devicesSchema>[number];

/** Throws Error. */
export function parseDevices(text: string): DeviceAnswer[] {
  return devicesSchema.parse(JSON.parse(text));
}

const recordsSchema = z.array(
  z.object({
    volume: whole,
    epoch: whole,
    owner: whole,
    generation: whole,
    record: z.string(),
  }),
);

/** Throws Error. */
export function parseDescription(text: string): NodeDescription {
  return descriptionSchema.parse(JSON.parse(text));
}

export interface StoredRecord {
  readonly volume: number;
  readonly accepted: AcceptedRecord;
}

export function encodeRecords(records: readonly StoredRecord[]): string {
  return JSON.stringify(
    records.map(({ volume, accepted: { ballot, generation, bytes } }) => ({
      volume,
      epoch: ballot.epoch,
      owner: ballot.owner,
      generation,
      record: new TextDecoder().decode(bytes),
    })),
  );
}

/** Throws Error. */
export function parseRecords(text: string): StoredRecord[] {
  return recordsSchema.parse(JSON.parse(text)).map(({ volume, epoch, owner, generation, record }) => ({
    volume,
    accepted: { ballot: { epoch, owner }, generation, bytes: new TextEncoder().encode(record) },
  }));
}

/** How people call a node: the beginning of its id tells a few from one another. */
export function shortId(node: NodeId): string {
  return node.slice(0, 8);
}
