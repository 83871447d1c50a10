/**
 * SIGUSR2: starts the program anew, as it is installed now, with the same command line, to take over from us.
 *
 * systemd waits only for its own children. It calls a main process "alien" that was somebody else's child when it was
 * named, and on `systemctl stop` follows SIGTERM with SIGKILL at once. So under a service manager a shell starts the
 * new server and ends: long before it takes over, it has become the manager's child.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import type { Logger } from "pino";

const REPLACE = "--replace";

/** Tells the pid over descriptor 3, which the program then holds open for as long as it lives. */
const ADOPTED = '"$@" & echo $! >&3';

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
    const command = [process.execPath, ...process.execArgv, ...given, REPLACE];
    const child = process.env["NOTIFY_SOCKET"] === undefined ? this.#own(command) : this.#adopted(command);
    child.unref();
    child.once("error", (error) => this.#failed(error.message));
  }

  // It outlives us: it has our output, and nothing else of us.
  #own([program, ...args]: readonly string[]): ChildProcess {
    const child = spawn(program!, args, { stdio: ["ignore", "inherit", "inherit"] });
    this.#started(child.pid);
    child.once("exit", (code, signal) => this.#failed(signal ?? `exit code ${code}`));
    return child;
  }

  #adopted(command: readonly string[]): ChildProcess {
    const stdio = ["ignore", "inherit", "inherit", "pipe"] as const;
    const child = spawn("/bin/sh", ["-c", ADOPTED, "sh", ...command], { stdio: [...stdio] });
    const pipe = child.stdio[3] as Readable & { unref(): void };
    pipe.unref();
    pipe.on("data", (pid: Buffer) => this.#started(Number(pid.toString("utf8"))));
    pipe.once("close", () => this.#failed("it gave no reason"));
    return child;
  }

  #started(pid: number | undefined): void {
    this.#log.info({ new: pid }, "a new server is started to take over from this one");
  }

  #failed(reason: string): void {
    this.#running = false;
    this.#log.error({ reason }, "the new server has ended without taking over; this one goes on serving");
  }
}
