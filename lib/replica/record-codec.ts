/**
 * Bytes of a volume record: JSON with a version, because it is small, rarely written, and read by people
 * with a hex dump on bad days. Its integrity (sequence, checksum, two copies) is the store's.
 */
import { epoch, generation, volumeId } from "../core/ids.js";
import type { AccessRule, VolumePolicy, VolumeRecord } from "./record.js";

/** History: 1 = first. A reader refuses what it does not know. */
export const RECORD_FORMAT = 1;

export function encodeRecord(record: VolumeRecord): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ format: RECORD_FORMAT, ...record }));
}

/** Throws Error with the reason; the caller knows which record it is. */
export function decodeRecord(bytes: Uint8Array): VolumeRecord {
  const raw: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  const from = object(raw, "record");
  const format = number(from, "format");
  if (format !== RECORD_FORMAT) throw new Error(`record format ${format} is unknown`);
  return {
    id: volumeId(number(from, "id")),
    name: string(from, "name"),
    size: number(from, "size"),
    description: string(from, "description"),
    readOnly: boolean(from, "readOnly"),
    policy: policy(object(from["policy"], "policy")),
    access: array(from, "access").map(rule),
    epoch: epoch(number(from, "epoch")),
    generation: generation(number(from, "generation")),
    version: number(from, "version"),
    createdAt: number(from, "createdAt"),
    state: oneOf(from, "state", ["live", "removed"]),
  };
}

function policy(from: Fields): VolumePolicy {
  return {
    replicas: number(from, "replicas"),
    minReplicas: number(from, "minReplicas"),
    stripeCount: number(from, "stripeCount"),
    stripeUnit: number(from, "stripeUnit"),
    onFull: oneOf(from, "onFull", ["wait", "enospc"]),
  };
}

function rule(raw: unknown): AccessRule {
  const from = object(raw, "access rule");
  return {
    kind: oneOf(from, "kind", ["cert", "psk", "address"]),
    value: string(from, "value"),
    readOnly: boolean(from, "readOnly"),
  };
}

type Fields = Readonly<Record<string, unknown>>;

function object(raw: unknown, what: string): Fields {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new Error(`${what} is not an object`);
  return raw as Fields;
}

function number(from: Fields, name: string): number {
  const value = from[name];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new Error(`${name} is not a whole number`);
  }
  return value;
}

function string(from: Fields, name: string): string {
  const value = from[name];
  if (typeof value !== "string") throw new Error(`${name} is not a text`);
  return value;
}

function boolean(from: Fields, name: string): boolean {
  const value = from[name];
  if (typeof value !== "boolean") throw new Error(`${name} is not true or false`);
  return value;
}

function array(from: Fields, name: string): readonly unknown[] {
  const value = from[name];
  if (!Array.isArray(value)) throw new Error(`${name} is not a list`);
  return value;
}

function oneOf<T extends string>(from: Fields, name: string, values: readonly T[]): T {
  const value = string(from, name);
  const found = values.find((candidate) => candidate === value);
  if (found === undefined) throw new Error(`${name} is '${value}', which is unknown`);
  return found;
}
