/** Options of commands that run a server: of one machine, of a node, of a gateway. */
import { LISTEN_DEFAULT } from "./serve/options.js";

export function text(describe: string) {
  return { describe, type: "string", requiresArg: true } as const;
}

export const LISTEN = {
  describe: `NBD address HOST:PORT or unix:PATH; may be repeated (default ${LISTEN_DEFAULT})`,
  type: "string",
  array: true,
  requiresArg: true,
  nargs: 1,
} as const;

export const IO_ENGINE = {
  describe: "how to do I/O (default auto)",
  type: "string",
  choices: ["auto", "ring", "threads"],
  requiresArg: true,
} as const;

export const TLS = {
  describe: "encryption of NBD: none, for those who ask for it, or for everyone (default off)",
  type: "string",
  choices: ["off", "allow", "require"],
  requiresArg: true,
} as const;
export const TLS_DIR = text("directory of server-cert.pem, server-key.pem and ca-cert.pem, or keys.psk");

export const CAPACITY = text("size of a new store file, for example 100G (default 80 % of the free space)");
export const DEVICE = text("raw device to use instead of a file; formatted only when blank");
export const DEFAULT_EXPORT = text("volume that the empty export name means (default: the only one)");
