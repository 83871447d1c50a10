/**
 * Who may use a volume. A volume without rules is open to everyone who can connect; with the first rule
 * everyone else is shut out, and does not see that it exists. Of several rules that fit, the one that allows
 * most decides.
 */
import type { AccessRule, VolumeRecord } from "../replica/record.js";
import { Access, type ClientIdentity } from "./exports.js";

export function accessOf(record: VolumeRecord, client: ClientIdentity): Access {
  if (record.access.length === 0) return Access.ReadWrite;
  let best: Access = Access.None;
  for (const rule of record.access) {
    if (!ruleFits(rule, client)) continue;
    if (!rule.readOnly) return Access.ReadWrite;
    best = Access.ReadOnly;
  }
  return best;
}

function ruleFits(rule: AccessRule, client: ClientIdentity): boolean {
  switch (rule.kind) {
    case "cert":
      return client.certificate !== null && client.certificate === rule.value;
    case "psk":
      return client.psk !== null && client.psk === rule.value;
    case "address":
      return addressFits(rule.value, client.peer.host);
  }
}

/**
 * Whether the address `host` lies in `prefix`: an address, or an address and a prefix length ("10.0.0.0/8",
 * "fd00::/8"). Whole bits are compared, never text (CVE-2013-6410). Anything malformed fits nothing.
 */
export function addressFits(prefix: string, host: string): boolean {
  const slash = prefix.indexOf("/");
  const network = parseAddress(slash < 0 ? prefix : prefix.slice(0, slash));
  const address = parseAddress(host);
  if (network === null || address === null || network.length !== address.length) return false;
  let bits = network.length * 8;
  if (slash >= 0) {
    const text = prefix.slice(slash + 1);
    if (!/^\d{1,3}$/.test(text) || Number(text) > bits) return false;
    bits = Number(text);
  }
  for (let i = 0; i < network.length; i++) {
    const kept = Math.min(8, Math.max(0, bits - 8 * i));
    const mask = (0xff00 >>> kept) & 0xff;
    if ((network[i]! & mask) !== (address[i]! & mask)) return false;
  }
  return true;
}

/** The 4 or 16 bytes of an address, an IPv4-mapped one as IPv4; null when it is none. */
export function parseAddress(text: string): Uint8Array | null {
  const bytes = text.includes(":") ? parseIpv6(text) : parseIpv4(text);
  if (bytes === null || bytes.length === 4) return bytes;
  const mapped =
    bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  return mapped ? bytes.slice(12) : bytes;
}

function parseIpv4(text: string): Uint8Array | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  const bytes = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const part = parts[i]!;
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return null;
    bytes[i] = Number(part);
  }
  return bytes;
}

function parseIpv6(text: string): Uint8Array | null {
  const zone = text.indexOf("%");
  const halves = (zone < 0 ? text : text.slice(0, zone)).split("::");
  if (halves.length > 2) return null;
  const head = parseGroups(halves[0]!);
  const tail = halves.length === 2 ? parseGroups(halves[1]!) : [];
  if (head === null || tail === null) return null;
  const missing = 16 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 2) return null;
  return Uint8Array.from([...head, ...new Array<number>(missing).fill(0), ...tail]);
}

/** Bytes of groups of four hexadecimal digits; the last may be an IPv4 address. */
function parseGroups(text: string): number[] | null {
  if (text === "") return [];
  const bytes: number[] = [];
  const groups = text.split(":");
  for (const [i, group] of groups.entries()) {
    if (i === groups.length - 1 && group.includes(".")) {
      const ipv4 = parseIpv4(group);
      if (ipv4 === null) return null;
      bytes.push(...ipv4);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return null;
      const value = Number.parseInt(group, 16);
      bytes.push(value >>> 8, value & 0xff);
    }
  }
  return bytes;
}
