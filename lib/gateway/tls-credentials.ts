/**
 * What a server shows and asks for in TLS: an X.509 certificate, pre-shared keys, or both, from one directory
 * laid out as QEMU's `tls-creds-x509` and `tls-creds-psk` and libnbd's `tls-certificates` have it:
 *
 *     server-cert.pem  server-key.pem   certificate (chain) and key
 *     ca-cert.pem                       with it, clients must show a certificate that it signed
 *     ca-crl.pem                        certificates that are revoked (optional)
 *     keys.psk                          lines of IDENTITY:HEXKEY, as psktool writes them
 */
import type { TlsOptions } from "node:tls";
import { LaminaError } from "../core/errors.js";
import { checkTlsFiles, type Refuse, readTlsFile, TLS13_CIPHERS } from "../uring/tls-files.js";

/** Suites for pre-shared keys: Node's own list has none of TLS 1.2, and none of TLS 1.3 that GnuTLS agrees to. */
export const PSK_CIPHERS = "DHE-PSK-AES128-GCM-SHA256:DHE-PSK-CHACHA20-POLY1305:PSK-AES128-GCM-SHA256";
export const CERTIFICATE_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM";
/** A shorter key is no secret. */
const PSK_BYTES_MIN = 16;

export interface TlsCredentials {
  /** For `tls.createServer`. */
  readonly options: TlsOptions;
  /** Clients must show a certificate (unless they use a key). */
  readonly verifiesClients: boolean;
  readonly keys: ReadonlyMap<string, Buffer>;
}

/**
 * Reads the directory. Throws LaminaError TLS_FILES: nothing to show, a file that cannot be read, a key that
 * does not belong to its certificate, a malformed line.
 */
export function readTlsCredentials(directory: string): TlsCredentials {
  const refuse: Refuse = (what, cause) => new LaminaError("TLS_FILES", { directory, what }, cause);
  const file = (name: string): Buffer | undefined => readTlsFile(directory, name, refuse);
  const cert = file("server-cert.pem");
  const key = file("server-key.pem");
  const ca = file("ca-cert.pem");
  const crl = file("ca-crl.pem");
  const keys = parseKeys("keys.psk", file("keys.psk"), refuse);
  if ((cert === undefined) !== (key === undefined)) {
    throw refuse("server-cert.pem and server-key.pem belong together and one is missing");
  }
  if (cert === undefined && keys.size === 0) {
    throw refuse("there is neither server-cert.pem with server-key.pem nor keys.psk");
  }
  const ciphers = [TLS13_CIPHERS];
  if (cert !== undefined) ciphers.push(CERTIFICATE_CIPHERS);
  if (keys.size > 0) ciphers.push(PSK_CIPHERS);
  const options: TlsOptions = {
    minVersion: "TLSv1.2",
    ciphers: ciphers.join(":"),
    ...(cert === undefined ? {} : { cert, key }),
    ...(ca === undefined ? {} : { ca, requestCert: true, rejectUnauthorized: true }),
    ...(crl === undefined ? {} : { crl }),
  };
  checkTlsFiles(options, refuse);
  return { options, verifiesClients: ca !== undefined, keys };
}

/** By identity. Throws what `refuse` makes of one sentence about the first bad line of the file `name`. */
export function parseKeys(name: string, file: Buffer | undefined, refuse: Refuse): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  if (file === undefined) return keys;
  for (const [i, line] of file.toString("utf8").split("\n").entries()) {
    const text = line.trim();
    if (text === "" || text.startsWith("#")) continue;
    const match = /^([^:]+):((?:[0-9a-fA-F]{2})+)$/.exec(text);
    if (match === null) throw refuse(`line ${i + 1} of ${name} is not IDENTITY:HEXKEY`);
    const key = Buffer.from(match[2]!, "hex");
    if (key.length < PSK_BYTES_MIN) {
      throw refuse(`the key in line ${i + 1} of ${name} has fewer than ${PSK_BYTES_MIN} bytes`);
    }
    keys.set(match[1]!, key);
  }
  return keys;
}
