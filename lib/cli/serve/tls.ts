/** TLS of one server: its files are looked at before anything is written. */
import { statSync } from "node:fs";
import { join } from "node:path";
import type { Logger } from "pino";
import type { TlsSettings } from "../../gateway/tls.js";
import { readTlsCredentials } from "../../gateway/tls-credentials.js";

const SECRET_FILES: readonly string[] = ["server-key.pem", "keys.psk"];
const READABLE_BY_OTHERS = 0o004;

/** Throws TLS_FILES. Warns of what is legal and yet unwise. */
export function checkTls({ directory }: TlsSettings, log: Logger): void {
  const { verifiesClients, keys } = readTlsCredentials(directory);
  if (!verifiesClients && keys.size === 0) {
    log.warn({ directory }, "clients are not asked who they are: there is neither ca-cert.pem nor keys.psk");
  }
  for (const name of SECRET_FILES) {
    const path = join(directory, name);
    const mode = statSync(path, { throwIfNoEntry: false })?.mode ?? 0;
    if ((mode & READABLE_BY_OTHERS) !== 0)
      log.warn({ path }, "everyone on this machine can read this secret");
  }
}
