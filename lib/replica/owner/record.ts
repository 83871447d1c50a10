/**
 * The volume record of a cluster (docs/architecture/replica.md "Records"): the record of one machine, who owns the
 * volume, and which member has everything.
 */
import type { NodeId, PeerId } from "../api.js";
import type { VolumeRecord } from "../record.js";
import { decodeRecord, encodeRecord } from "../record-codec.js";
import { DOMAIN_LEVELS, type DomainLevel } from "./placement.js";

/** History: 2 = owner and members; 1 = the record of one machine. A reader refuses what it does not know. */
export const CLUSTER_RECORD_FORMAT = 2;
/**
 * While a further seat joins: one that did not know it would take the seat for one that counts. When it has joined the
 * record is of the format before again.
 */
const JOINING_RECORD_FORMAT = 3;
/** Members of one volume. */
export const MEMBERS_MAX = 8;

export interface OwnerEntry {
  readonly peer: PeerId;
  /** Node whose process the owner lives in, and that device's incarnation; null: a gateway without a device. */
  readonly node: NodeId | null;
  readonly incarnation: number;
  /** It let go in order: everything it acknowledged is on all in-sync members, and it answers nothing any more. */
  readonly released: boolean;
  /**
   * Released while all in-sync members were equal in every extent: nothing was left to reconcile, and none of them was
   * LOSSY. Hot extents need no reconcile then, unless a member has lost power since. Absent: false; who does not know
   * the field leaves it out of the next record.
   */
  readonly settled?: boolean;
}

export interface MemberEntry {
  readonly node: NodeId;
  readonly state: "insync" | "stale";
  /** Stale: the first generation that it may have missed something of. In sync: 0. */
  readonly since: number;
}

export type SeatDomains = Readonly<Record<DomainLevel, string>>;

export interface ClusterRecord extends VolumeRecord {
  readonly owner: OwnerEntry;
  /** Each node once. The place in the list is the member's seat (holders.ts): it decides which extents it holds. */
  readonly members: readonly MemberEntry[];
  /**
   * Seats that R(e) is computed over, the first of the list; absent: all of them. One less than there are: the last one is
   * joining, and counts for nothing until it has everything.
   */
  readonly seats?: number;
  /** Failure domains of the seats; absent: each seat is on a host of its own. */
  readonly domains?: readonly SeatDomains[];
  /** The smallest replica count that the volume was ever allowed. */
  readonly replicasMin: number;
}

export function encodeClusterRecord(record: ClusterRecord): Uint8Array {
  const { owner, members, seats: _, domains, replicasMin, ...volume } = record;
  const base: unknown = JSON.parse(new TextDecoder().decode(encodeRecord(volume)));
  return new TextEncoder().encode(
    JSON.stringify({
      ...(base as object),
      ...(isJoining(record)
        ? { format: JOINING_RECORD_FORMAT, seats: record.seats }
        : { format: CLUSTER_RECORD_FORMAT }),
      owner,
      members,
      domains,
      replicasMin,
    }),
  );
}

/** Throws Error with the reason. */
export function decodeClusterRecord(bytes: Uint8Array): ClusterRecord {
  const raw: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (!isFields(raw)) throw new Error("record is not an object");
  const isLater = raw["format"] === JOINING_RECORD_FORMAT;
  if (raw["format"] !== CLUSTER_RECORD_FORMAT && !isLater)
    throw new Error(`record format ${raw["format"]} is unknown`);
  const volume = decodeRecord(new TextEncoder().encode(JSON.stringify({ ...raw, format: 1 })));
  const members = raw["members"];
  if (!Array.isArray(members) || members.length === 0 || members.length > MEMBERS_MAX)
    throw new Error("members is not a list of a possible length");
  const entries = members.map(memberEntry);
  if (new Set(entries.map(({ node }) => node)).size !== entries.length)
    throw new Error("a node is a member twice");
  const domains = raw["domains"];
  return {
    ...volume,
    ...(isLater ? { seats: countedSeats(raw["seats"], entries) } : {}),
    ...(domains === undefined ? {} : { domains: seatDomains(domains, entries.length) }),
    owner: ownerEntry(raw["owner"]),
    members: entries,
    replicasMin: whole(raw["replicasMin"], "replicasMin"),
  };
}

/** Seats that count: R(e) is computed over them. */
export function seatsOf({ seats, members }: ClusterRecord): number {
  return seats ?? members.length;
}

/** Whether the last seat is one that joins, and does not count yet. */
export function isJoining(record: ClusterRecord): boolean {
  return seatsOf(record) < record.members.length;
}

/** In-sync members of a record. */
export function inSyncOf(record: ClusterRecord): readonly MemberEntry[] {
  return record.members.filter(({ state }) => state === "insync");
}

/**
 * Whether an extent that none of `heard` lists is zeros. Every in-sync holder of an extent has it, and it has at
 * least `replicasMin` holders: so it is, while fewer members than that are missing or not valid.
 */
export function absenceMeansZeros(record: ClusterRecord, heard: ReadonlySet<NodeId>): boolean {
  const counted = record.members.slice(0, seatsOf(record));
  const missing = counted.filter(({ node, state }) => state !== "insync" || !heard.has(node));
  return missing.length < record.replicasMin;
}

type Fields = Readonly<Record<string, unknown>>;

function isFields(raw: unknown): raw is Fields {
  return typeof raw === "object" && raw !== null && !Array.isArray(raw);
}

function memberEntry(raw: unknown): MemberEntry {
  if (!isFields(raw)) throw new Error("a member is not an object");
  const state = raw["state"];
  if (state !== "insync" && state !== "stale") throw new Error(`member state '${state}' is unknown`);
  return { node: nodeId(raw["node"]), state, since: whole(raw["since"], "since") };
}

function countedSeats(raw: unknown, entries: readonly MemberEntry[]): number {
  const seats = whole(raw, "seats");
  if (seats === 0 || seats !== entries.length - 1)
    throw new Error("seats is not one less than there are members");
  if (entries[seats]!.state !== "stale") throw new Error("a seat that joins is in sync");
  return seats;
}

function seatDomains(raw: unknown, seats: number): readonly SeatDomains[] {
  if (!Array.isArray(raw) || raw.length !== seats)
    throw new Error("domains is not a list of one for each member");
  return raw.map((labels: unknown) => {
    if (!isFields(labels)) throw new Error("the domains of a seat are not an object");
    const [zone, rack, host] = DOMAIN_LEVELS.map((level) => labels[level]);
    if (typeof zone !== "string" || typeof rack !== "string" || typeof host !== "string")
      throw new Error("a seat lacks a failure domain");
    return { zone, rack, host };
  });
}

function ownerEntry(raw: unknown): OwnerEntry {
  if (!isFields(raw)) throw new Error("owner is not an object");
  const released = raw["released"];
  if (typeof released !== "boolean") throw new Error("released is not true or false");
  return {
    peer: whole(raw["peer"], "peer"),
    node: raw["node"] === null ? null : nodeId(raw["node"]),
    incarnation: whole(raw["incarnation"], "incarnation"),
    released,
    ...(released && raw["settled"] === true ? { settled: true } : {}),
  };
}

function nodeId(raw: unknown): NodeId {
  if (typeof raw !== "string" || !/^[0-9a-f]{32}$/.test(raw)) throw new Error("a node has no id");
  return raw;
}

function whole(raw: unknown, name: string): number {
  if (typeof raw !== "number" || !Number.isSafeInteger(raw) || raw < 0)
    throw new Error(`${name} is not a whole number`);
  return raw;
}
