/**
 * Programs that a test runs. Each is ended by its own pid, at the latest when the test process ends; a
 * program that fails is shown with everything it printed.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";

/** Characters of a program's output that are kept; the beginning is dropped. */
const OUTPUT_KEPT_MAX = 1 << 20;

const running = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});
// tap ends a file that takes too long with SIGTERM: what it started must not be left behind.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Text for its standard input. */
  readonly input?: string;
}

export interface RunResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, whatever that is. */
export async function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const program = new Program(command, args, options);
  if (options.input !== undefined) program.child.stdin?.end(options.input);
  else program.child.stdin?.end();
  return program.ended;
}

/** Runs a program that must succeed. Throws with its output otherwise. Returns its standard output. */
export async function check(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const result = await run(command, args, options);
  if (result.code !== 0) throw new Error(describe(command, args, result));
  return result.stdout;
}

export function describe(command: string, args: readonly string[], result: RunResult): string {
  const end = result.signal ?? `code ${result.code}`;
  return `${[command, ...args].join(" ")}\nended with ${end}\n${result.stdout}\n${result.stderr}`;
}

/** A program in the background. */
export class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<RunResult>;
  readonly command: string;
  stdout = "";
  stderr = "";
  /** Called on each piece of standard output, with all of it so far. */
  onStdout: (() => void) | null = null;

  constructor(command: string, args: readonly string[], options: RunOptions = {}) {
    this.command = [command, ...args].join(" ");
    // tap has itself loaded into every Node that a test starts; a server under test runs as it does in use.
    this.child = spawn("env", ["-u", "NODE_OPTIONS", command, ...args], {
      cwd: options.cwd,
      env: options.env === undefined ? process.env : { ...process.env, ...options.env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    // A program may end without reading what it was given.
    this.child.stdin?.on("error", () => {});
    running.add(this.child);
    this.ended = this.#watch();
  }

  get pid(): number {
    const { pid } = this.child;
    if (pid === undefined) throw new Error(`${this.command} did not start`);
    return pid;
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Sends a signal and waits for the end. */
  async end(signal: NodeJS.Signals): Promise<RunResult> {
    if (this.isRunning) this.child.kill(signal);
    return this.ended;
  }

  /** Resolves with the first match of `pattern` in standard output. Rejected when the program ends before. */
  async printed(pattern: RegExp): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const match = pattern.exec(this.stdout);
        if (match === null) return;
        this.onStdout = null;
        resolve(match);
      };
      this.onStdout = look;
      look();
      void this.ended.then((result) => {
        look();
        reject(new Error(`did not print ${pattern}: ${describe(this.command, [], result)}`));
      });
    });
  }

  async #watch(): Promise<RunResult> {
    collect(this.child.stdout, (text) => {
      this.stdout = keep(this.stdout + text);
      this.onStdout?.();
    });
    collect(this.child.stderr, (text) => {
      this.stderr = keep(this.stderr + text);
    });
    // "close", not "exit": its output has arrived then.
    const failed = once(this.child, "error").then(([error]) => {
      this.stderr += String(error);
    });
    const closed = once(this.child, "close");
    await Promise.race([closed, failed]).catch(() => {});
    running.delete(this.child);
    return {
      code: this.child.exitCode,
      signal: this.child.signalCode,
      stdout: this.stdout,
      stderr: this.stderr,
    };
  }
}

function collect(stream: Readable | null, take: (text: string) => void): void {
  stream?.setEncoding("utf8");
  stream?.on("data", take);
}

function keep(text: string): string {
  return text.length > OUTPUT_KEPT_MAX ? text.slice(-OUTPUT_KEPT_MAX) : text;
}

export function hasCommand(command: string): boolean {
  try {
    execFileSync("sh", ["-c", `command -v "$1"`, "sh", command], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

// Administrators' tools (mkfs, losetup) are not on every user's PATH.
process.env["PATH"] = `${process.env["PATH"] ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;
