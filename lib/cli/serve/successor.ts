/** SIGUSR2: starts the program anew, as it is installed now, with the same command line, to take over from us. */
import { spawn } from "node:child_process";
import type { Logger } from "pino";

const REPLACE = "--replace";

export class Successor {
  readonly #log: Logger;
  #running = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Does nothing while one is on its way. If it fails, this server goes on. */
  start(): void {
    if (this.#running) return;
    this.#running = true;
    const given = process.argv.slice(1).filter((argument) => argument !== REPLACE);
    // It outlives us: it has our output, and nothing else of us.
    const child = spawn(process.execPath, [...process.execArgv, ...given, REPLACE], {
      stdio: ["ignore", "inherit", "inherit"],
    });
    child.unref();
    this.#log.info({ new: child.pid }, "a new server is started to take over from this one");
    child.once("error", (error) => this.#failed(error.message));
    child.once("exit", (code, signal) => this.#failed(signal ?? `exit code ${code}`));
  }

  #failed(reason: string): void {
    this.#running = false;
    this.#log.error({ reason }, "the new server has ended without taking over; this one goes on serving");
  }
}
