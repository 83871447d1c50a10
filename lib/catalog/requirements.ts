/** What a Redis must be before the mirror writes into it. */
import { LaminaError } from "../core/errors.js";

/** Debian 12's. Scripts and packed hashes are used as it has them. */
export const REDIS_VERSION_MIN = "7.0.0";

/** Reads "key:value" lines of INFO. */
export function parseInfo(text: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of text.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    if (colon > 0 && !line.startsWith("#")) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
  return fields;
}

/**
 * Throws REDIS_TOO_OLD, REDIS_EVICTS or REDIS_READ_ONLY. `info` holds the sections server, memory and
 * replication; some proxies leave fields out, and what is not said is not held against them.
 */
export function checkRequirements(info: ReadonlyMap<string, string>, redis: string): void {
  const version = info.get("redis_version");
  if (version !== undefined && isOlder(version, REDIS_VERSION_MIN)) {
    throw new LaminaError("REDIS_TOO_OLD", { redis, found: version, least: REDIS_VERSION_MIN });
  }
  const policy = info.get("maxmemory_policy");
  if (policy !== undefined && policy !== "noeviction") {
    throw new LaminaError("REDIS_EVICTS", { redis, policy });
  }
  if (info.get("role") === "slave") throw new LaminaError("REDIS_READ_ONLY", { redis });
}

function isOlder(found: string, least: string): boolean {
  const a = found.split(".").map(Number);
  const b = least.split(".").map(Number);
  for (let i = 0; i < b.length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
