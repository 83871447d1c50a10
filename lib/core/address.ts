/**
 * IP addresses and prefixes, as the bytes they are. Whole bits are compared, never text (CVE-2013-6410).
 */

const IPV4_BYTES = 4;
const IPV6_BYTES = 16;

/** Addresses whose first `bits` bits are those of `bytes`. */
export interface AddressPrefix {
  /** 4 or 16 of them. */
  readonly bytes: Uint8Array;
  readonly bits: number;
}

/**
 * "10.0.0.1", "10.0.0.0/8", "fd00::/8"; null when it is neither an address nor one with a prefix length. A
 * zone ("fe80::1%eth0") belongs to a machine and is no part of a prefix.
 */
export function parsePrefix(text: string): AddressPrefix | null {
  const slash = text.indexOf("/");
  const address = slash < 0 ? text : text.slice(0, slash);
  const bytes = address.includes("%") ? null : parseAddress(address);
  if (bytes === null) return null;
  const most = bytes.length * 8;
  if (slash < 0) return { bytes, bits: most };
  const length = text.slice(slash + 1);
  if (!/^\d{1,3}$/.test(length) || Number(length) > most) return null;
  return { bytes, bits: Number(length) };
}

/** Whether the address `host` lies in `prefix`. Anything malformed fits nothing. */
export function addressFits(prefix: string, host: string): boolean {
  const network = parsePrefix(prefix);
  const address = parseAddress(host);
  if (network === null || address === null || network.bytes.length !== address.length) return false;
  for (let i = 0; i < address.length; i++) {
    const kept = Math.min(8, Math.max(0, network.bits - 8 * i));
    const mask = (0xff00 >>> kept) & 0xff;
    if ((network.bytes[i]! & mask) !== (address[i]! & mask)) return false;
  }
  return true;
}

/** The 4 or 16 bytes of an address, an IPv4-mapped one as IPv4; null when it is none. */
export function parseAddress(text: string): Uint8Array | null {
  const bytes = text.includes(":") ? parseIpv6(text) : parseIpv4(text);
  if (bytes === null || bytes.length === IPV4_BYTES) return bytes;
  const mapped =
    bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  return mapped ? bytes.slice(IPV6_BYTES - IPV4_BYTES) : bytes;
}

function parseIpv4(text: string): Uint8Array | null {
  const parts = text.split(".");
  if (parts.length !== IPV4_BYTES) return null;
  const bytes = new Uint8Array(IPV4_BYTES);
  for (let i = 0; i < IPV4_BYTES; i++) {
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
  const missing = IPV6_BYTES - head.length - tail.length;
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
