/**
 * Names of the protocol's numbers, for logs and error texts: NBD_CMD_WRITE_ZEROES, never 6.
 */
import * as constants from "./constants.js";

type Names = ReadonlyMap<number, string>;

function names(prefix: RegExp, exclude?: RegExp): Names {
  const table = new Map<number, string>();
  for (const [name, value] of Object.entries(constants)) {
    if (typeof value !== "number" || !prefix.test(name) || exclude?.test(name)) continue;
    table.set(value, name);
  }
  return table;
}

function nameIn(table: Names, prefix: string, value: number): string {
  return table.get(value) ?? `${prefix}${value > 0xffff ? `0x${value.toString(16)}` : String(value)}`;
}

const OPTIONS = names(/^NBD_OPT_/);
const REPLIES = names(/^NBD_REP_/, /MAGIC|FLAG/);
const INFOS = names(/^NBD_INFO_/, /_BYTES$/);
const COMMANDS = names(/^NBD_CMD_/, /FLAG/);
const CHUNKS = names(/^NBD_REPLY_TYPE_/, /_BIT$/);
const ERRORS = names(/^NBD_E[A-Z]+$/);
const TRANSMISSION_FLAGS = names(/^NBD_FLAG_/, /^NBD_FLAG_(C_\w+|FIXED_NEWSTYLE|NO_ZEROES)$/);
const COMMAND_FLAGS = names(/^NBD_CMD_FLAG_/);

/** "NBD_OPT_GO"; "NBD_OPT_77" for a number without a name. The other functions likewise. */
export function optionName(option: number): string {
  return nameIn(OPTIONS, "NBD_OPT_", option);
}

export function optionReplyName(type: number): string {
  return nameIn(REPLIES, "NBD_REP_", type);
}

export function infoName(type: number): string {
  return nameIn(INFOS, "NBD_INFO_", type);
}

export function commandName(type: number): string {
  return nameIn(COMMANDS, "NBD_CMD_", type);
}

export function chunkName(type: number): string {
  return nameIn(CHUNKS, "NBD_REPLY_TYPE_", type);
}

/** "NBD_EINVAL"; "NBD_SUCCESS" for 0. */
export function errorName(errno: number): string {
  return errno === constants.NBD_SUCCESS ? "NBD_SUCCESS" : nameIn(ERRORS, "NBD_E", errno);
}

/** "NBD_FLAG_HAS_FLAGS|NBD_FLAG_SEND_FLUSH"; bits without a name as "0x8000"; "0" for none. */
export function transmissionFlagNames(flags: number): string {
  return flagNames(TRANSMISSION_FLAGS, flags);
}

export function commandFlagNames(flags: number): string {
  return flagNames(COMMAND_FLAGS, flags);
}

function flagNames(table: Names, flags: number): string {
  const found: string[] = [];
  for (let bit = 1; bit <= 0x8000; bit *= 2) {
    if ((flags & bit) !== 0) found.push(table.get(bit) ?? `0x${bit.toString(16)}`);
  }
  return found.length === 0 ? "0" : found.join("|");
}
