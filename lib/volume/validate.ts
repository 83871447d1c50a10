/** What a control operation may ask for. Every refusal is one LaminaError; nothing was changed then. */
import { parsePrefix } from "../core/address.js";
import { LaminaError } from "../core/errors.js";
import { BLOCK_BYTES, VOLUME_BYTES_MAX, VOLUME_NAME, VOLUME_SIZE_GRAIN } from "../core/limits.js";
import type { AccessRule, VolumePolicy } from "../replica/record.js";
import { STRIPE_COUNT_MAX } from "./layout.js";

/** Bytes of UTF-8. */
export const DESCRIPTION_BYTES_MAX = 1024;

export const STRIPE_UNIT_DEFAULT = 256 * 1024;

export function checkName(name: string): void {
  if (!VOLUME_NAME.test(name)) throw new LaminaError("NAME_INVALID", { name });
}

export function checkSize(size: number): void {
  if (!Number.isSafeInteger(size) || size <= 0) throw new LaminaError("SIZE_INVALID", { size });
  if (size > VOLUME_BYTES_MAX) throw new LaminaError("SIZE_TOO_LARGE", { size, limit: VOLUME_BYTES_MAX });
  if (size % VOLUME_SIZE_GRAIN !== 0) {
    throw new LaminaError("SIZE_UNALIGNED", {
      size,
      next: Math.ceil(size / VOLUME_SIZE_GRAIN) * VOLUME_SIZE_GRAIN,
    });
  }
}

export function checkDescription(text: string): void {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > DESCRIPTION_BYTES_MAX) {
    throw new LaminaError("DESCRIPTION_TOO_LONG", { bytes, limit: DESCRIPTION_BYTES_MAX });
  }
}

/** A rule that can never fit, or fits other than its writer thinks, is refused when it is made. */
export function checkAccess(rules: readonly AccessRule[]): void {
  for (const rule of rules) {
    const what = faultOf(rule);
    if (what !== null)
      throw new LaminaError("ACCESS_RULE_INVALID", { rule: `${rule.kind}:${rule.value}`, what });
  }
}

function faultOf({ kind, value }: AccessRule): string | null {
  // Names are shown to people, and compared with what a certificate or a line of keys.psk can hold.
  if (value === "") return `there is nothing behind '${kind}:'`;
  if (!/^\P{Cc}*$/u.test(value)) return "it has control characters";
  if (kind === "address" && parsePrefix(value) === null)
    return `'${value}' is neither an address nor a prefix`;
  if (kind === "psk" && value.includes(":")) return "an identity has no ':'";
  return null;
}

/** Fills in the defaults of a cluster of `nodes` nodes whose extents are `extentBytes` long. */
export function completePolicy(
  wanted: Partial<VolumePolicy> | undefined,
  nodes: number,
  extentBytes: number,
): VolumePolicy {
  const replicas = wanted?.replicas ?? (nodes >= 3 ? 3 : 1);
  if (!Number.isSafeInteger(replicas) || replicas < 1) {
    throw new LaminaError("ARGUMENT_INVALID", {
      what: `${replicas} is not a number of replicas`,
      hint: "use 1 or more",
    });
  }
  if (replicas > nodes) throw new LaminaError("REPLICAS_TOO_MANY", { replicas, nodes });
  const minReplicas = wanted?.minReplicas ?? Math.floor(replicas / 2) + 1;
  if (!Number.isSafeInteger(minReplicas) || minReplicas < 1 || minReplicas > replicas) {
    throw new LaminaError("ARGUMENT_INVALID", {
      what: `'minReplicas' is ${minReplicas}: writes cannot need that many copies`,
      hint: `use 1 to ${replicas}, which is how many there are`,
    });
  }
  const stripeCount = wanted?.stripeCount ?? 1;
  const stripeUnit = wanted?.stripeUnit ?? Math.min(STRIPE_UNIT_DEFAULT, extentBytes);
  const unitFits =
    Number.isSafeInteger(stripeUnit) &&
    stripeUnit >= BLOCK_BYTES &&
    stripeUnit <= extentBytes &&
    Number.isInteger(Math.log2(stripeUnit));
  const countFits = Number.isSafeInteger(stripeCount) && stripeCount >= 1 && stripeCount <= STRIPE_COUNT_MAX;
  if (!unitFits || !countFits) {
    throw new LaminaError("STRIPE_INVALID", {
      count: stripeCount,
      unit: stripeUnit,
      countMax: STRIPE_COUNT_MAX,
      unitMax: extentBytes,
    });
  }
  return {
    replicas,
    minReplicas,
    stripeCount,
    stripeUnit,
    onFull: wanted?.onFull ?? "wait",
  };
}
