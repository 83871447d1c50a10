/** Bytes of records as texts, of which the equal ones are told at once. */

/** One character for each byte. */
export function textOf({ buffer, byteOffset, byteLength }: Uint8Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString("latin1");
}

/** Names that are kept in mind, at most. */
const NAMES_MAX = 64;

/**
 * The same as `nameOf`, which decodes the whole record: acceptors ask again and again for the names of the same few.
 * What throws is asked anew.
 */
export function rememberedNames(
  nameOf: (bytes: Uint8Array) => string | null,
): (bytes: Uint8Array) => string | null {
  const names = new Map<string, string | null>();
  return (bytes) => {
    const text = textOf(bytes);
    let name = names.get(text);
    if (name !== undefined) return name;
    name = nameOf(bytes);
    if (names.size >= NAMES_MAX) names.clear();
    names.set(text, name);
    return name;
  };
}
