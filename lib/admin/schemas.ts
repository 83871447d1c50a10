/** Shapes of what clients send. Values are checked by the registry; here it is types and unknown fields. */
import { z } from "zod";
import { EVENT_ID } from "../catalog/events.js";

/** Rules of one access list: each is looked at for every connection. */
const ACCESS_RULES_MAX = 64;

const accessRule = z.strictObject({
  kind: z.enum(["cert", "psk", "address"]),
  value: z.string().min(1).max(256),
  readOnly: z.boolean().default(false),
});

const access = z.array(accessRule).max(ACCESS_RULES_MAX);

/** What a policy may be the registry says. */
export const createVolumeBody = z.strictObject({
  name: z.string(),
  size: z.number(),
  description: z.string().optional(),
  readOnly: z.boolean().optional(),
  replicas: z.number().optional(),
  minReplicas: z.number().optional(),
  stripeCount: z.number().optional(),
  stripeUnit: z.number().optional(),
  onFull: z.enum(["wait", "enospc"]).optional(),
  access: access.optional(),
});

export const changeVolumeBody = z.strictObject({
  description: z.string().optional(),
  readOnly: z.boolean().optional(),
  onFull: z.enum(["wait", "enospc"]).optional(),
  access: access.optional(),
});

export const renameVolumeBody = z.strictObject({ name: z.string() });
export const resizeVolumeBody = z.strictObject({ size: z.number() });

/** Bytes per second that a scrub may read. */
export const scrubBody = z.strictObject({ pace: z.number().int().positive().optional() });

/** The process that takes over. */
export const replacementBody = z.strictObject({ pid: z.number().int().positive() });

export const drainNodeBody = z.strictObject({
  /** Only the seat in this volume; absent: all of them. */
  volume: z.string().min(1).optional(),
  /** The node that gets the seats; absent: for each the one with the most free space. */
  to: z.string().min(1).optional(),
});

export const rebalanceBody = z.strictObject({
  /** Only this volume; absent: all of them. */
  volume: z.string().min(1).optional(),
  /** Nothing is done: the answer says what would be. */
  dryRun: z.boolean().optional(),
});

export const replaceConfigBody = z.strictObject({
  /** The node that becomes a config node. */
  by: z.string().min(1),
});

export const EVENTS_LIMIT_MAX = 1000;

export const eventsQuery = z.strictObject({
  after: z.string().regex(EVENT_ID, "not an event id").optional(),
  limit: z.coerce.number().int().min(1).max(EVENTS_LIMIT_MAX).optional(),
});

/** Bodies by their name in openapi.yaml. */
export const BODIES = {
  CreateVolume: createVolumeBody,
  ChangeVolume: changeVolumeBody,
  RenameVolume: renameVolumeBody,
  ResizeVolume: resizeVolumeBody,
  Scrub: scrubBody,
  Replacement: replacementBody,
  DrainNode: drainNodeBody,
  Rebalance: rebalanceBody,
  ReplaceConfig: replaceConfigBody,
} as const;
