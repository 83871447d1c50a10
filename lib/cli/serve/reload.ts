/** SIGHUP: certificates and keys are read anew. */
import type { Logger } from "pino";
import { LaminaError } from "../../core/errors.js";

export interface Reloadable {
  /** False: there is nothing to read. Throws LaminaError: what was read before stays. */
  reloadTls(): boolean;
}

/** For connections to come. What cannot be used changes nothing. */
export function reloadTls(server: Reloadable, log: Logger): void {
  try {
    const done = server.reloadTls();
    log.info(done ? "the TLS files were read anew" : "there is nothing to read anew: TLS is off");
  } catch (error) {
    if (!(error instanceof LaminaError)) throw error;
    log.error(`the old TLS files stay in use: ${error.message}; ${error.next}`);
  }
}
