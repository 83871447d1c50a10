/** Sizes as people write and read them: G is GiB. */
import { LaminaError } from "../core/errors.js";
import { VOLUME_BYTES_MAX, VOLUME_SIZE_GRAIN } from "../core/limits.js";

const UNITS = ["", "K", "M", "G", "T", "P", "E"] as const;
const SIZE = /^(\d+(?:\.\d+)?)\s*([KMGTPE]?)(?:i?B)?$/i;

/** Bytes of "10G", "256K", "1.5T", "4096". Throws SIZE_INVALID, SIZE_TOO_LARGE. */
export function parseBytes(text: string): number {
  const match = SIZE.exec(text.trim());
  const power = UNITS.indexOf((match?.[2] ?? "").toUpperCase() as (typeof UNITS)[number]);
  const bytes = match === null ? Number.NaN : Number(match[1]) * 1024 ** power;
  if (Number.isNaN(bytes) || bytes <= 0) throw new LaminaError("SIZE_INVALID", { size: text });
  if (bytes > Number.MAX_SAFE_INTEGER) {
    throw new LaminaError("SIZE_TOO_LARGE", { size: text, limit: VOLUME_BYTES_MAX });
  }
  if (!Number.isInteger(bytes)) throw new LaminaError("SIZE_INVALID", { size: text });
  return bytes;
}

/** The same for the size of a volume. Throws SIZE_UNALIGNED with the next valid size, too. */
export function parseVolumeSize(text: string): number {
  const bytes = parseBytes(text);
  if (bytes > VOLUME_BYTES_MAX) {
    throw new LaminaError("SIZE_TOO_LARGE", { size: text, limit: VOLUME_BYTES_MAX });
  }
  if (bytes % VOLUME_SIZE_GRAIN !== 0) {
    const next = Math.ceil(bytes / VOLUME_SIZE_GRAIN) * VOLUME_SIZE_GRAIN;
    throw new LaminaError("SIZE_UNALIGNED", { size: text, next });
  }
  return bytes;
}

/** "10 GiB", "1.5 TiB", "512 B": at most one decimal, rounded down. */
export function formatBytes(bytes: number): string {
  let power = 0;
  let value = bytes;
  while (value >= 1024 && power < UNITS.length - 1) {
    value /= 1024;
    power++;
  }
  const shown = Math.floor(value * 10) / 10;
  return `${shown} ${UNITS[power]}${power === 0 ? "" : "i"}B`;
}
