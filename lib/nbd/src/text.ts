/**
 * Strings of the protocol: UTF-8, without NUL, at most NBD_MAX_STRING bytes.
 *
 * Text that a peer only shows to a person (error messages) is kept shorter than the specification allows:
 * QEMU drops a connection whose error chunk is longer than 1000 bytes.
 */
import { NBD_MAX_STRING } from "./constants.js";

/** Longest error message that is ever sent, in bytes. */
export const ERROR_TEXT_BYTES_MAX = 880;

// Both are globals of every JavaScript runtime; this package depends on the types of none.
declare const TextEncoder: new () => { encode(text: string): Uint8Array };
declare const TextDecoder: new (
  label: string,
  options: { readonly fatal: boolean; readonly ignoreBOM: boolean },
) => { decode(bytes: Uint8Array): string };

const encoder = new TextEncoder();
// ignoreBOM: a name that begins with U+FEFF is another name than the one without.
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenient = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

export const NO_BYTES: Uint8Array = new Uint8Array(0);

export function encodeText(text: string): Uint8Array {
  return encoder.encode(text);
}

/** The string in `bytes[start … end − 1]`, or null where the specification forbids it. */
export function decodeString(bytes: Uint8Array, start: number, end: number): string | null {
  if (end - start > NBD_MAX_STRING) return null;
  const part = bytes.subarray(start, end);
  if (part.includes(0)) return null;
  try {
    return strict.decode(part);
  } catch {
    return null;
  }
}

/** Text for people; what is not UTF-8 becomes U+FFFD. */
export function decodeDisplayText(bytes: Uint8Array, start: number, end: number): string {
  return lenient.decode(bytes.subarray(start, Math.min(end, start + NBD_MAX_STRING)));
}

/** Whether a peer may be sent `text` as a string of the protocol. */
export function isProtocolString(text: string): boolean {
  return text.length <= NBD_MAX_STRING && !text.includes("\0") && encodeText(text).length <= NBD_MAX_STRING;
}

/** `text` for an error reply: cut to ERROR_TEXT_BYTES_MAX between two characters. */
export function encodeErrorText(text: string): Uint8Array {
  const bytes = encodeText(text);
  if (bytes.length <= ERROR_TEXT_BYTES_MAX) return bytes;
  let end = ERROR_TEXT_BYTES_MAX;
  // 10xxxxxx continues a character.
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.slice(0, end);
}

/** A name from outside as it may appear in an error message: quoted, and never most of the message. */
export function quoted(name: string): string {
  const QUOTED_CHARACTERS_MAX = 128;
  if (name.length <= QUOTED_CHARACTERS_MAX) return `'${name}'`;
  return `'${name.slice(0, QUOTED_CHARACTERS_MAX).replace(/[\ud800-\udbff]$/, "")}…'`;
}
