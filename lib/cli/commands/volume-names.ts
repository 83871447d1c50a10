/** Names and paths of volumes, as commands take them. */
import { LaminaError } from "../../core/errors.js";
import { VOLUME_NAME } from "../../core/limits.js";

/** Checked before the server is asked, so that a mistake is told whether or not one runs. */
export function checkName(name: string): string {
  if (!VOLUME_NAME.test(name)) throw new LaminaError("NAME_INVALID", { name });
  return name;
}

export function volumePath(name: string, action = ""): string {
  return `/v1/volumes/${encodeURIComponent(checkName(name))}${action}`;
}

/** A positive whole number; undefined when the option was not given. Throws USAGE. */
export function parseCount(value: string | undefined, option: string): number | undefined {
  if (value === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(value)) {
    throw new LaminaError("USAGE", {
      what: `${option} '${value}' is not a positive number`,
      help: "lamina --help",
    });
  }
  return Number(value);
}
