/**
 * Byte streams worth keeping, one file each in test/fuzz/corpus: conversations of real clients, attacks that broke
 * other servers, and every input on which this one once failed. Hexadecimal, spaces and lines as one likes; a line
 * that begins with # says what it is.
 */
import { readdirSync, readFileSync } from "node:fs";

const FOLDER = new URL("../../test/fuzz/corpus/", new URL(import.meta.url.replace("/dist/", "/")));

export interface CorpusEntry {
  readonly name: string;
  readonly bytes: Buffer;
}

export function corpus(): CorpusEntry[] {
  const names = readdirSync(FOLDER).filter((name) => name.endsWith(".hex"));
  return names.sort().map((name) => {
    const lines = readFileSync(new URL(name, FOLDER), "utf8").split("\n");
    const hex = lines
      .filter((line) => !line.startsWith("#"))
      .join("")
      .replaceAll(" ", "");
    if (!/^([0-9a-f]{2})+$/.test(hex)) throw new Error(`${name} is not hexadecimal`);
    return { name, bytes: Buffer.from(hex, "hex") };
  });
}
