/** Bodies of control messages (docs/architecture/replica.md "Wire format"). */
import type { AcceptedRecord, Ballot, InventoryEntry } from "./api.js";
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
