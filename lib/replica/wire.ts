/**
 * Messages between owners and nodes, as bytes (docs/architecture/replica.md "Wire format").
 *
 * Invariants
 *  1. `decode` accepts exactly what `encode` makes of a message within its bounds; no length that it accepts
 *     exceeds BODY_BYTES_MAX or PAYLOAD_BYTES_MAX.
 *  2. Header and body are covered by one crc32c, which is looked at before anything in the body is.
 *
 * Versions
 *  1  the first. What came later is agreed in Hello (greeting.ts, Feature)
 */
import type { Checksums } from "../core/checksum.js";
import { ENTRY_ABSENT } from "../core/checksum.js";
import { EXTENT_OP_BLOCKS_MAX } from "../core/extent-io.js";
import { VOLUME_ID_MAX } from "../core/ids.js";
import { BLOCK_BYTES } from "../core/limits.js";
import { BODY_BYTES_MAX, PAYLOAD_BYTES_MAX } from "./limits.js";

export const WIRE_VERSION = 1;
export const HEADER_BYTES = 80;
/** "Ln", as a little-endian u16. */
export const WIRE_MAGIC = 0x6e4c;

export const MessageKind = {
  Hello: 1,
  Promise: 2,
  Accept: 3,
  Renew: 4,
  Inventory: 5,
  Stable: 6,
  Reconciled: 7,
  Adopt: 8,
  States: 9,
  Rotten: 10,
  Read: 16,
  Write: 17,
  Zero: 18,
  Free: 19,
  Map: 20,
  Flush: 21,
  Stamp: 22,
} as const;
export type MessageKind = (typeof MessageKind)[keyof typeof MessageKind];

/** Of a Write: its payload is packed; `detail` says how many bytes of it count (packing.ts). No bit of ExtentFlag. */
export const FLAG_PACKED = 0x8000;

/** Bit of the kind that marks an answer. */
export const ANSWER = 0x80;
/** Flag of an answer to Inventory: nothing of the volume is missing that a power loss may have taken. */
export const INVENTORY_WHOLE = 1;

const KINDS: ReadonlySet<number> = new Set(Object.values(MessageKind));

const AT_CRC = 0;
const AT_MAGIC = 4;
const AT_VERSION = 6;
const AT_KIND = 7;
const AT_BODY = 8;
const AT_PAYLOAD = 12;
const AT_TARGET = 16;
const AT_TAG = 20;
const AT_FLAGS = 24;
const AT_STATUS = 26;
const AT_LAYER = 28;
const AT_VOLUME = 32;
const AT_EPOCH = 40;
const AT_GENERATION = 48;
const AT_SEQUENCE = 56;
const AT_EXTENT = 64;
const AT_BLOCK = 68;
const AT_BLOCKS = 70;
const AT_DETAIL = 72;
const AT_RESERVED = 76;

/** A header, decoded. One object is used again and again. */
export class Message {
  /** MessageKind, with ANSWER in an answer. */
  kind = 0;
  bodyBytes = 0;
  payloadBytes = 0;
  target = 0;
  tag = 0;
  flags = 0;
  status = 0;
  layer = 0;
  volume = 0;
  epoch = 0;
  generation = 0;
  sequence = 0;
  extent = 0;
  block = 0;
  blocks = 0;
  detail = 0;

  clear(): this {
    this.kind = 0;
    this.bodyBytes = 0;
    this.payloadBytes = 0;
    this.target = 0;
    this.tag = 0;
    this.flags = 0;
    this.status = 0;
    this.layer = 0;
    this.volume = 0;
    this.epoch = 0;
    this.generation = 0;
    this.sequence = 0;
    this.extent = 0;
    this.block = 0;
    this.blocks = 0;
    this.detail = 0;
    return this;
  }
}

/** Why bytes are no message; for people. Null: they are. */
export type WireFault = string | null;

/** Writes the header of `m` at `at`; the body is in place behind it. Seals both. */
export function encode(view: DataView, checksums: Checksums, at: number, m: Message): void {
  view.setUint16(at + AT_MAGIC, WIRE_MAGIC, true);
  view.setUint8(at + AT_VERSION, WIRE_VERSION);
  view.setUint8(at + AT_KIND, m.kind);
  view.setUint32(at + AT_BODY, m.bodyBytes, true);
  view.setUint32(at + AT_PAYLOAD, m.payloadBytes, true);
  view.setUint32(at + AT_TARGET, m.target, true);
  view.setUint32(at + AT_TAG, m.tag, true);
  view.setUint16(at + AT_FLAGS, m.flags, true);
  view.setUint16(at + AT_STATUS, m.status, true);
  view.setUint32(at + AT_LAYER, m.layer, true);
  putU64(view, at + AT_VOLUME, m.volume);
  putU64(view, at + AT_EPOCH, m.epoch);
  putU64(view, at + AT_GENERATION, m.generation);
  putU64(view, at + AT_SEQUENCE, m.sequence);
  view.setUint32(at + AT_EXTENT, m.extent, true);
  view.setUint16(at + AT_BLOCK, m.block, true);
  view.setUint16(at + AT_BLOCKS, m.blocks, true);
  view.setUint32(at + AT_DETAIL, m.detail, true);
  view.setUint32(at + AT_RESERVED, 0, true);
  view.setUint32(at + AT_CRC, crcOf(checksums, at, m.bodyBytes), true);
}

/**
 * Reads the header at `at` into `m`: HEADER_BYTES are there, the body need not be. The crc is not looked at
 * (`verify`), but every length is in bounds afterwards.
 */
export function decode(view: DataView, at: number, m: Message): WireFault {
  if (view.getUint16(at + AT_MAGIC, true) !== WIRE_MAGIC) return "no message begins here";
  const version = view.getUint8(at + AT_VERSION);
  if (version !== WIRE_VERSION) return `protocol version ${version} is unknown`;
  m.kind = view.getUint8(at + AT_KIND);
  if (!KINDS.has(m.kind & ~ANSWER)) return `message kind ${m.kind} is unknown`;
  m.bodyBytes = view.getUint32(at + AT_BODY, true);
  m.payloadBytes = view.getUint32(at + AT_PAYLOAD, true);
  if (m.bodyBytes > BODY_BYTES_MAX) return `a body of ${m.bodyBytes} bytes`;
  if (m.payloadBytes > PAYLOAD_BYTES_MAX || m.payloadBytes % BLOCK_BYTES !== 0)
    return `a payload of ${m.payloadBytes} bytes`;
  m.target = view.getUint32(at + AT_TARGET, true);
  m.tag = view.getUint32(at + AT_TAG, true);
  m.flags = view.getUint16(at + AT_FLAGS, true);
  m.status = view.getUint16(at + AT_STATUS, true);
  m.layer = view.getUint32(at + AT_LAYER, true);
  m.volume = getU64(view, at + AT_VOLUME);
  m.epoch = getU64(view, at + AT_EPOCH);
  m.generation = getU64(view, at + AT_GENERATION);
  m.sequence = getU64(view, at + AT_SEQUENCE);
  m.extent = view.getUint32(at + AT_EXTENT, true);
  m.block = view.getUint16(at + AT_BLOCK, true);
  m.blocks = view.getUint16(at + AT_BLOCKS, true);
  m.detail = view.getUint32(at + AT_DETAIL, true);
  const exact = Number.MAX_SAFE_INTEGER;
  if (m.volume > (isAboutRecord(m.kind) ? exact : VOLUME_ID_MAX)) return "a volume number out of range";
  if (m.epoch > exact || m.generation > exact || m.sequence > exact) return "a number out of range";
  if (view.getUint32(at + AT_RESERVED, true) !== 0) return "a reserved field is not zero";
  return shapeFault(m);
}

/** Devices, and the config nodes, have records beside volumes, under higher numbers. */
function isAboutRecord(kind: number): boolean {
  const asked = kind & ~ANSWER;
  return asked === MessageKind.Promise || asked === MessageKind.Accept || asked === MessageKind.States;
}

/** Behind the entries of a packed write: crc32c of the bytes that count. */
export const PACKED_CRC_BYTES = 4;

/** Only writes bring a payload, and answers to reads; both with the entries of their blocks. */
function shapeFault(m: Message): WireFault {
  const data = m.blocks * BLOCK_BYTES;
  if (m.kind === MessageKind.Write) {
    const isPacked = (m.flags & FLAG_PACKED) !== 0;
    if (m.blocks === 0 || (isPacked ? !isPackedShape(m, data) : m.payloadBytes !== data))
      return `a write of ${m.blocks} blocks with ${m.payloadBytes} bytes`;
    if (m.bodyBytes !== m.blocks * 4 + (isPacked ? PACKED_CRC_BYTES : 0))
      return "a write without the checksums of its blocks";
  } else if (m.payloadBytes !== 0 && (m.kind !== (MessageKind.Read | ANSWER) || m.payloadBytes !== data)) {
    return `a payload of ${m.payloadBytes} bytes where none belongs`;
  }
  return null;
}

/** Fewer blocks than they are of, and the last of them begun. */
function isPackedShape({ blocks, payloadBytes, detail }: Message, data: number): boolean {
  const isBegun = detail <= payloadBytes && detail > payloadBytes - BLOCK_BYTES;
  return blocks <= EXTENT_OP_BLOCKS_MAX && payloadBytes < data && isBegun;
}

/** Whether header and body at `at` are what was sent. */
export function verify(view: DataView, checksums: Checksums, at: number, bodyBytes: number): boolean {
  return view.getUint32(at + AT_CRC, true) === crcOf(checksums, at, bodyBytes);
}

function crcOf(checksums: Checksums, at: number, bodyBytes: number): number {
  return checksums.crc32c(at + AT_MAGIC, HEADER_BYTES - AT_MAGIC + bodyBytes, 0);
}

export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

/** More than 2^53 is rounded, and so still greater than every number that is allowed. */
export function getU64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

/** Entries as the body of a message at `at`. */
export function putEntries(view: DataView, at: number, entries: Uint32Array, count: number): void {
  for (let i = 0; i < count; i++) view.setUint32(at + 4 * i, entries[i]!, true);
}

export function getEntries(view: DataView, at: number, entries: Uint32Array, count: number): void {
  for (let i = 0; i < count; i++) entries[i] = view.getUint32(at + 4 * i, true);
}

/** Whether the blocks at `memory` are what `entries` say; those that are absent are not looked at. */
export function blocksMatch(
  checksums: Checksums,
  memory: number,
  count: number,
  seed: number,
  firstBlock: number,
  entries: Uint32Array,
  scratch: Uint32Array,
): boolean {
  checksums.blockEntries(memory, count, seed, firstBlock, scratch, 0);
  for (let i = 0; i < count; i++) {
    if (entries[i] !== ENTRY_ABSENT && entries[i] !== scratch[i]) return false;
  }
  return true;
}
