/** Bodies of Hello and of its answer. */

import { mix32 } from "../core/checksum.js";
import type { LinkEnvironment, NodeGreeting, NodeId, PeerId } from "./api.js";
import { getU64, putU64 } from "./wire.js";

const ID_BYTES = 16;
/** cluster 16 · node 16 · peer 8 */
export const HELLO_BYTES = 2 * ID_BYTES + 8;
/** incarnation 4 · extent blocks 4 · window requests 4 · window bytes 4 · lossy 4 · length of boot id 4 · boot id */
const WELCOME_FIXED_BYTES = 24;
const BOOT_ID_BYTES_MAX = 255;
export const WELCOME_BYTES_MAX = WELCOME_FIXED_BYTES + BOOT_ID_BYTES_MAX;

/**
 * What came after the first form of version 1, a bit each. An asker names what it knows in field `detail` of Hello; the
 * answer names what both know. Who does not know the field leaves it 0, and is never sent anything of this.
 */
export const Feature = {
  /** MessageKind.Rotten. */
  Rotten: 1,
  /** FLAG_PACKED. */
  Packed: 2,
} as const;

/** What this process knows: it unpacks if it was given what with. */
export function featuresOf({ packing }: LinkEnvironment): number {
  return packing === undefined ? Feature.Rotten : Feature.Rotten | Feature.Packed;
}

export interface Hello {
  /** 16 bytes. */
  readonly cluster: Uint8Array;
  readonly node: NodeId;
  readonly peer: PeerId;
}

export function nodeIdOf(deviceId: Uint8Array): NodeId {
  return Array.from(deviceId, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function deviceIdOf(node: NodeId): Uint8Array {
  return Uint8Array.from({ length: ID_BYTES }, (_, i) => Number.parseInt(node.slice(2 * i, 2 * i + 2), 16));
}

/** What every message of a session carries: wrong in another cluster, on another node, in another life of it. */
export function targetOf(cluster: Uint8Array, node: NodeId, incarnation: number): number {
  let hash = mix32(incarnation);
  for (const id of [cluster, deviceIdOf(node)]) {
    for (const byte of id) hash = mix32((hash + byte) | 0);
  }
  // 0 is what Hello carries.
  return hash === 0 ? 1 : hash;
}

export function putHello(view: DataView, at: number, hello: Hello): void {
  const device = deviceIdOf(hello.node);
  for (let i = 0; i < ID_BYTES; i++) {
    view.setUint8(at + i, hello.cluster[i]!);
    view.setUint8(at + ID_BYTES + i, device[i]!);
  }
  putU64(view, at + 2 * ID_BYTES, hello.peer);
}

export function getHello(view: DataView, at: number): Hello {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, 2 * ID_BYTES).slice();
  return {
    cluster: bytes.subarray(0, ID_BYTES),
    node: nodeIdOf(bytes.subarray(ID_BYTES)),
    peer: getU64(view, at + 2 * ID_BYTES),
  };
}

/** Writes the greeting, without the node's id, which Hello has named; returns its length. */
export function putWelcome(view: DataView, at: number, greeting: NodeGreeting): number {
  const boot = new TextEncoder().encode(greeting.bootId).subarray(0, BOOT_ID_BYTES_MAX);
  view.setUint32(at, greeting.incarnation, true);
  view.setUint32(at + 4, greeting.extentBlocks, true);
  view.setUint32(at + 8, greeting.windowRequests, true);
  view.setUint32(at + 12, greeting.windowBytes, true);
  view.setUint32(at + 16, greeting.lossy ? 1 : 0, true);
  view.setUint32(at + 20, boot.length, true);
  boot.forEach((byte, i) => {
    view.setUint8(at + WELCOME_FIXED_BYTES + i, byte);
  });
  return WELCOME_FIXED_BYTES + boot.length;
}

/** Null when the bytes are no greeting. */
export function getWelcome(view: DataView, at: number, length: number, node: NodeId): NodeGreeting | null {
  if (length < WELCOME_FIXED_BYTES) return null;
  const bootLength = view.getUint32(at + 20, true);
  if (length !== WELCOME_FIXED_BYTES + bootLength) return null;
  const boot = new Uint8Array(view.buffer, view.byteOffset + at + WELCOME_FIXED_BYTES, bootLength);
  return {
    node,
    incarnation: view.getUint32(at, true),
    extentBlocks: view.getUint32(at + 4, true),
    windowRequests: view.getUint32(at + 8, true),
    windowBytes: view.getUint32(at + 12, true),
    lossy: view.getUint32(at + 16, true) !== 0,
    bootId: new TextDecoder().decode(boot.slice()),
  };
}

/** Whether two ids of 16 bytes are the same. */
export function sameId(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
