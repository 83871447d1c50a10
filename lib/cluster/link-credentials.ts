/**
 * What a process of a cluster shows on its links, and whom it believes there, from one directory:
 *
 *     link-cert.pem  link-key.pem   its certificate (chain) and key, for both ends of a link
 *     ca-cert.pem                   who may have signed the others'
 *     ca-crl.pem                    certificates that are revoked (optional)
 */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { LaminaError } from "../core/errors.js";

const CIPHERS = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
const KEY_FILE = "link-key.pem";
const OTHERS = 0o007;

/** Throws LINK_TLS_FILES: a file that is missing or cannot be read, a key that is not the certificate's. */
export function readLinkCredentials(directory: string): SecureContextOptions {
  const cert = required(directory, "link-cert.pem");
  const key = required(directory, KEY_FILE);
  const ca = required(directory, "ca-cert.pem");
  const crl = optional(directory, "ca-crl.pem");
  if ((statSync(join(directory, KEY_FILE)).mode & OTHERS) !== 0)
    throw refused(directory, `everyone on this machine may read ${KEY_FILE}`);
  const options: SecureContextOptions = {
    minVersion: "TLSv1.3",
    ciphers: CIPHERS,
    cert,
    key,
    ca,
    ...(crl === undefined ? {} : { crl }),
  };
  try {
    createSecureContext(options);
  } catch (error) {
    throw refused(directory, error instanceof Error ? error.message : String(error), error);
  }
  return options;
}

function required(directory: string, name: string): Buffer {
  const file = optional(directory, name);
  if (file === undefined) throw refused(directory, `there is no ${name}`);
  return file;
}

function optional(directory: string, name: string): Buffer | undefined {
  try {
    return readFileSync(join(directory, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw refused(directory, `${name} cannot be read: ${(error as Error).message}`, error);
  }
}

function refused(directory: string, what: string, cause?: unknown): LaminaError {
  return new LaminaError("LINK_TLS_FILES", { directory, what }, cause);
}
