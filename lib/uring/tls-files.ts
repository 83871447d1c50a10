/** Certificates and keys in files: what everyone who speaks TLS here reads alike. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import type { LaminaError } from "../core/errors.js";

export const TLS13_CIPHERS = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/** The catalogue's error of whoever reads, about one thing that is wrong. */
export type Refuse = (what: string, cause?: unknown) => LaminaError;

/** Undefined: there is no such file. Throws what `refuse` makes of a file that cannot be read. */
export function readTlsFile(directory: string, name: string, refuse: Refuse): Buffer | undefined {
  try {
    return readFileSync(join(directory, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw refuse(`${name} cannot be read: ${(error as Error).message}`, error);
  }
}

/** Throws what `refuse` makes of a malformed file, or of a key that does not belong to its certificate. */
export function checkTlsFiles(options: SecureContextOptions, refuse: Refuse): void {
  try {
    createSecureContext(options);
  } catch (error) {
    throw refuse(error instanceof Error ? error.message : String(error), error);
  }
}
