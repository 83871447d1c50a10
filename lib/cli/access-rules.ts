/**
 * Access rules as people write them: KIND:VALUE, with ":ro" behind it to allow reading only.
 *
 *     cert:alice    psk:backup:ro    address:10.0.0.0/8    address:fd00::/8:ro
 *
 * A name that itself ends in ":ro" is written with ":rw" behind it.
 */
import { LaminaError } from "../core/errors.js";
import type { AccessRule } from "../replica/record.js";
import { checkAccess } from "../volume/validate.js";

const KINDS: readonly AccessRule["kind"][] = ["cert", "psk", "address"];
const RULE = /^([^:]*):(.*?)(:ro|:rw)?$/s;

/** Throws ACCESS_RULE_INVALID. */
export function parseAccessRule(text: string): AccessRule {
  const [, word, value = "", suffix] = RULE.exec(text) ?? [];
  const kind = KINDS.find((each) => each === word);
  if (kind === undefined) {
    const what = word === undefined ? "it is not KIND:VALUE" : `there is no kind '${word}'`;
    throw new LaminaError("ACCESS_RULE_INVALID", { rule: text, what });
  }
  const rule: AccessRule = { kind, value, readOnly: suffix === ":ro" };
  checkAccess([rule]);
  return rule;
}

/** What `parseAccessRule` reads as the same rule. */
export function formatAccessRule({ kind, value, readOnly }: AccessRule): string {
  const suffix = readOnly ? ":ro" : /:r[ow]$/.test(value) ? ":rw" : "";
  return `${kind}:${value}${suffix}`;
}

/**
 * The values of `--allow`, as yargs gives them: undefined when it was not given, false for `--no-allow`.
 * Throws ACCESS_RULE_INVALID, or USAGE when both were given.
 */
export function accessOption(
  given: readonly (string | boolean)[] | undefined,
): readonly AccessRule[] | undefined {
  if (given === undefined) return undefined;
  const rules = given.filter((each) => typeof each === "string");
  if (rules.length === given.length) return rules.map(parseAccessRule);
  if (rules.length === 0) return [];
  throw new LaminaError("USAGE", {
    what: "--allow and --no-allow contradict each other",
    help: "lamina volume set --help",
  });
}
