/**
 * What a process of a cluster shows on its links, and whom it believes there, from one directory:
 *
 *     link-cert.pem  link-key.pem   its certificate (chain) and key, for both ends of a link
 *     ca-cert.pem                   who may have signed the others'
 *     ca-crl.pem                    certificates that are revoked (optional)
 */
import { statSync } from "node:fs";
import { join } from "node:path";
import type { SecureContextOptions } from "node:tls";
import { LaminaError } from "../core/errors.js";
import { checkTlsFiles, type Refuse, readTlsFile, TLS13_CIPHERS } from "../uring/tls-files.js";

const KEY_FILE = "link-key.pem";
const OTHERS = 0o007;

/** Throws LINK_TLS_FILES: a file that is missing or cannot be read, a key that is not the certificate's. */
export function readLinkCredentials(directory: string): SecureContextOptions {
  const refuse: Refuse = (what, cause) => new LaminaError("LINK_TLS_FILES", { directory, what }, cause);
  const optional = (name: string): Buffer | undefined => readTlsFile(directory, name, refuse);
  const required = (name: string): Buffer => {
    const file = optional(name);
    if (file === undefined) throw refuse(`there is no ${name}`);
    return file;
  };
  const cert = required("link-cert.pem");
  const key = required(KEY_FILE);
  const ca = required("ca-cert.pem");
  const crl = optional("ca-crl.pem");
  if ((statSync(join(directory, KEY_FILE)).mode & OTHERS) !== 0)
    throw refuse(`everyone on this machine may read ${KEY_FILE}`);
  const options: SecureContextOptions = {
    minVersion: "TLSv1.3",
    ciphers: TLS13_CIPHERS,
    cert,
    key,
    ca,
    ...(crl === undefined ? {} : { crl }),
  };
  checkTlsFiles(options, refuse);
  return options;
}
