/** Bodies of control messages (docs/architecture/replica.md "Wire format"). */
import { decodeState, encodeState } from "./acceptor.js";
import type { AcceptedRecord, Ballot, InventoryEntry } from "./api.js";
import type { ToldState } from "./config/copy.js";
import { getU64, type Message, putU64 } from "./wire.js";

/** layer 4 · extent 4 · generation 8 · created 8 · hot 4 · 0 4 */
export const INVENTORY_ENTRY_BYTES = 32;

export function getInventoryEntry(body: DataView, at: number): InventoryEntry {
  return {
    layer: body.getUint32(at, true),
    extent: body.getUint32(at + 4, true),
    generation: getU64(body, at + 8),
    created: getU64(body, at + 16),
    hot: body.getUint32(at + 24, true) !== 0,
  };
}

export function putInventoryEntry(view: DataView, at: number, entry: InventoryEntry): void {
  view.setUint32(at, entry.layer, true);
  view.setUint32(at + 4, entry.extent, true);
  putU64(view, at + 8, entry.generation);
  putU64(view, at + 16, entry.created);
  view.setUint32(at + 24, entry.hot ? 1 : 0, true);
  view.setUint32(at + 28, 0, true);
}

/** key 8 · length 4 · state */
const TOLD_FIXED_BYTES = 12;

/** As many of `told`, from the first on, as fit into `limit` bytes. */
export function encodeStates(
  told: readonly ToldState[],
  limit: number,
): { bytes: Uint8Array; count: number } {
  const parts: Uint8Array[] = [];
  let length = 0;
  for (const { key, state } of told) {
    const page = encodeState(state);
    if (length + TOLD_FIXED_BYTES + page.length > limit) break;
    const part = new Uint8Array(TOLD_FIXED_BYTES + page.length);
    const view = new DataView(part.buffer);
    putU64(view, 0, key);
    view.setUint32(8, page.length, true);
    part.set(page, TOLD_FIXED_BYTES);
    parts.push(part);
    length += part.length;
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return { bytes, count: parts.length };
}

/** Null: the body is no list of states. */
export function decodeStates(body: DataView): ToldState[] | null {
  const told: ToldState[] = [];
  for (let at = 0; at < body.byteLength; ) {
    if (at + TOLD_FIXED_BYTES > body.byteLength) return null;
    const length = body.getUint32(at + 8, true);
    const from = at + TOLD_FIXED_BYTES;
    if (from + length > body.byteLength) return null;
    const page = new Uint8Array(body.buffer, body.byteOffset + from, length);
    try {
      told.push({ key: getU64(body, at), state: decodeState(page) });
    } catch {
      return null;
    }
    at = from + length;
  }
  return told;
}

/** The promised ballot that a refusal names. */
export function getRefusal(m: Message, body: DataView): Ballot {
  return { epoch: m.epoch, owner: body.byteLength >= 8 ? getU64(body, 0) : 0 };
}

/** The record that a promise brings: the owner of its ballot, then its bytes. No body: none was accepted. */
export function getAccepted(m: Message, body: DataView): AcceptedRecord | null {
  if (body.byteLength < 8) return null;
  const bytes = new Uint8Array(body.buffer, body.byteOffset + 8, body.byteLength - 8).slice();
  return { ballot: { epoch: m.epoch, owner: getU64(body, 0) }, generation: m.generation, bytes };
}

/** The body of a refusal. */
export function putRefusal(view: DataView, at: number, promised: Ballot): number {
  putU64(view, at, promised.owner);
  return 8;
}

/** The body of a promise of a node that has accepted `record`. */
export function putAccepted(view: DataView, at: number, record: AcceptedRecord): number {
  putU64(view, at, record.ballot.owner);
  new Uint8Array(view.buffer, view.byteOffset + at + 8, record.bytes.length).set(record.bytes);
  return 8 + record.bytes.length;
}
