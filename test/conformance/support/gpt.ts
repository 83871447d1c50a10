/** Images with a GUID Partition Table: headers and entries at both ends, each with its checksum (UEFI, chapter 5). */
import { crc32 } from "node:zlib";
import type { Test } from "tap";
import { MIB, pattern } from "./live.js";

const SIGNATURE = "EFI PART";
const REVISION = 0x00010000;
const HEADER_BYTES = 92;
const HEADER_CRC_AT = 16;
const ENTRIES = 128;
const ENTRY_BYTES = 128;
const TABLE_BYTES = ENTRIES * ENTRY_BYTES;
/** The type GUID of Linux file system data, as it lies on the disk. */
const LINUX_DATA = "af3dc60f838472478e793d69d8477de4";

/** `bytes` long, with one partition "data" of 8 MiB behind the first MiB. */
export function gptImage(bytes: number, sector: number): Buffer {
  const image = Buffer.alloc(bytes);
  const last = bytes / sector - 1;
  const tableSectors = TABLE_BYTES / sector;
  image[446 + 4] = 0xee;
  image.writeUInt32LE(1, 446 + 8);
  image.writeUInt32LE(last, 446 + 12);
  image.writeUInt16BE(0x55aa, 510);

  const table = Buffer.alloc(TABLE_BYTES);
  table.write(LINUX_DATA, "hex");
  pattern(3, 16).copy(table, 16);
  table.writeBigUInt64LE(BigInt(MIB / sector), 32);
  table.writeBigUInt64LE(BigInt((9 * MIB) / sector - 1), 40);
  table.write("data", 56, "utf16le");
  for (const [own, other, at] of [
    [1, last, 2],
    [last, 1, last - tableSectors],
  ] as const) {
    const header = Buffer.alloc(HEADER_BYTES);
    header.write(SIGNATURE);
    header.writeUInt32LE(REVISION, 8);
    header.writeUInt32LE(HEADER_BYTES, 12);
    const usable = [2 + tableSectors, last - tableSectors - 1] as const;
    for (const [i, lba] of [own, other, ...usable].entries())
      header.writeBigUInt64LE(BigInt(lba), 24 + 8 * i);
    pattern(4, 16).copy(header, 56);
    header.writeBigUInt64LE(BigInt(at), 72);
    header.writeUInt32LE(ENTRIES, 80);
    header.writeUInt32LE(ENTRY_BYTES, 84);
    header.writeUInt32LE(crc32(table), 88);
    header.writeUInt32LE(crc32(header), HEADER_CRC_AT);
    header.copy(image, own * sector);
    table.copy(image, at * sector);
  }
  pattern(5, MIB).copy(image, MIB);
  return image;
}

/** Both headers are where they say, point at each other, and their checksums and those of their entries are right. */
export function checkGpt(t: Test, image: Buffer, sector: number): void {
  const last = image.length / sector - 1;
  for (const [own, other] of [
    [1, last],
    [last, 1],
  ] as const) {
    const header = Buffer.from(image.subarray(own * sector, own * sector + HEADER_BYTES));
    t.equal(header.toString("latin1", 0, 8), SIGNATURE, `sector ${own} has a header`);
    t.same([header.readBigUInt64LE(24), header.readBigUInt64LE(32)], [own, other].map(BigInt), "it says so");
    const sum = header.readUInt32LE(HEADER_CRC_AT);
    header.writeUInt32LE(0, HEADER_CRC_AT);
    t.equal(crc32(header), sum, "its checksum is right");
    const at = Number(header.readBigUInt64LE(72)) * sector;
    t.equal(
      crc32(image.subarray(at, at + TABLE_BYTES)),
      header.readUInt32LE(88),
      "so is that of its entries",
    );
  }
}
