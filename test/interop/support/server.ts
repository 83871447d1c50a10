/**
 * The server under test, as a process of its own. Lamina by default; LAMINA_TEST_SERVER=nbdkit puts nbdkit's
 * file plugin in its place, which shows whether a test asks for something that is Lamina's fault or its own.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { check, Program, type RunResult, run } from "./process.js";
import { removeScratch, scratchDirectory } from "./scratch.js";

const ROOT = new URL("../../../", import.meta.url).pathname.replace(/dist\/$/, "");

export const SERVER_KIND: string = process.env["LAMINA_TEST_SERVER"] ?? "lamina";

/** LAMINA_TEST_THREADS=2 runs any test against a server with so many connection threads. */
const THREADS: readonly string[] =
  process.env["LAMINA_TEST_THREADS"] === undefined ? [] : ["--threads", process.env["LAMINA_TEST_THREADS"]];

/** Enough for every test; the file is sparse and its tables are in proportion. */
const CAPACITY_DEFAULT = "16G";

export interface ServerOptions {
  /** An existing data directory; without it a new one, removed by `dispose`. */
  readonly data?: string;
  /** Size of the backing file, as the command line writes it. */
  readonly capacity?: string;
  /** A block device in place of a backing file. */
  readonly device?: string;
  /** Further arguments of `lamina serve`. */
  readonly args?: readonly string[];
  /** Arguments of Node itself, a bound of its heap or a module that does harm. */
  readonly nodeArgs?: readonly string[];
}

export interface TestServer {
  readonly host: string;
  readonly port: number;
  readonly pid: number;
  readonly data: string;
  /** The program as it runs now; another one after `start`. */
  readonly program: Program;
  uri(volume: string): string;
  createVolume(name: string, size: string): Promise<void>;
  /** The file that holds the data. */
  backingFile(volume: string): string;
  start(): Promise<void>;
  /** Another process takes over; the old one must end with exit code 0. On failure it goes on. */
  replace(): Promise<void>;
  /** Ends cleanly; its exit code must be 0. */
  stop(): Promise<void>;
  /** Also while `start` waits, which is then rejected. */
  kill(): Promise<void>;
  /** Kills what runs and removes what was made. */
  dispose(): Promise<void>;
}

/** Starts a server with an empty store, or on `options.data`. */
export async function startServer(options: ServerOptions = {}): Promise<TestServer> {
  const server = SERVER_KIND === "nbdkit" ? new NbdkitServer(options) : new LaminaServer(options);
  try {
    await server.start();
  } catch (error) {
    // Nobody knows it yet who could clean up.
    await server.dispose();
    throw error;
  }
  return server;
}

abstract class ServerBase implements TestServer {
  readonly host = "127.0.0.1";
  readonly data: string;
  port = 0;
  #program: Program | null = null;
  readonly #ownsData: boolean;

  constructor(options: ServerOptions) {
    this.#ownsData = options.data === undefined;
    this.data = options.data ?? scratchDirectory();
  }

  get program(): Program {
    if (this.#program === null) throw new Error("the server was not started");
    return this.#program;
  }

  get pid(): number {
    return this.program.pid;
  }

  uri(volume: string): string {
    return `nbd://${this.host}:${this.port}/${volume}`;
  }

  async start(): Promise<void> {
    this.#program = this.launch(false);
    await this.untilReady(this.#program);
  }

  async replace(): Promise<void> {
    const old = this.program;
    const successor = this.launch(true);
    await this.untilReady(successor);
    this.#program = successor;
    this.stopped(await old.ended);
  }

  async stop(): Promise<void> {
    const result = await this.program.end("SIGTERM");
    this.stopped(result);
  }

  async kill(): Promise<void> {
    await this.program.end("SIGKILL");
  }

  async dispose(): Promise<void> {
    if (this.#program !== null) await this.kill();
    if (this.#ownsData) await removeScratch(this.data);
  }

  protected abstract launch(replace: boolean): Program;
  /** Waits until it serves, and sets `port`; rejected when it ends before. */
  protected abstract untilReady(program: Program): Promise<void>;
  protected stopped(_result: RunResult): void {}
  abstract createVolume(name: string, size: string): Promise<void>;
  abstract backingFile(volume: string): string;
}

export class LaminaServer extends ServerBase {
  readonly #storage: readonly string[];
  readonly #args: readonly string[];
  readonly #nodeArgs: readonly string[];

  constructor(options: ServerOptions = {}) {
    super(options);
    this.#nodeArgs = options.nodeArgs ?? [];
    this.#storage =
      options.device === undefined
        ? ["--capacity", options.capacity ?? CAPACITY_DEFAULT]
        : ["--device", options.device];
    this.#args = options.args ?? [];
  }

  async createVolume(name: string, size: string): Promise<void> {
    await this.lamina("volume", "create", name, "--size", size);
  }

  backingFile(): string {
    return join(this.data, "store.0");
  }

  /** Runs a command of the CLI against this server; it must succeed. */
  async lamina(...args: string[]): Promise<string> {
    return check(LAMINA, [...args, "--data", this.data]);
  }

  /** The same, parsed. */
  async json(...args: string[]): Promise<unknown> {
    return JSON.parse(await this.lamina(...args, "--json")) as unknown;
  }

  /** Checks the stopped store. */
  async fsck(): Promise<RunResult> {
    return run(LAMINA, ["fsck", "--data", this.data]);
  }

  /** Once given, the port stays: clients that reconnect expect it. */
  protected launch(replace: boolean): Program {
    const args = [
      "serve",
      ...(replace ? ["--replace"] : []),
      "--data",
      this.data,
      "--listen",
      `${this.host}:${this.port}`,
      "--admin",
      "127.0.0.1:0",
    ];
    // What the test says itself takes precedence.
    const threads = this.#args.includes("--threads") ? [] : THREADS;
    const all = [...args, ...this.#storage, ...threads, ...this.#args];
    if (this.#nodeArgs.length === 0) return new Program(LAMINA, all);
    return new Program(process.execPath, [...this.#nodeArgs, LAMINA, ...all]);
  }

  protected async untilReady(program: Program): Promise<void> {
    const ready = await program.printed(/^lamina ready nbds?:\/\/[^\s]*:(\d+)/m);
    this.port = Number(ready[1]);
  }

  protected override stopped(result: RunResult): void {
    if (result.code !== 0)
      throw new Error(`the server did not end cleanly: ${result.code ?? result.signal}\n${result.stderr}`);
  }
}

/** The program under test; LAMINA_BIN names another build of it. */
export const LAMINA: string = process.env["LAMINA_BIN"] ?? join(ROOT, "bin", "lamina");

/** nbdkit serves a folder: a volume is a sparse file in it. It has no checksums and no fsck. */
export class NbdkitServer extends ServerBase {
  readonly #filters: readonly string[];

  constructor(options: ServerOptions = {}, filters: readonly string[] = []) {
    super(options);
    this.#filters = filters;
    mkdirSync(join(this.data, "exports"), { recursive: true });
  }

  createVolume(name: string, size: string): Promise<void> {
    const path = this.backingFile(name);
    writeFileSync(path, "");
    truncateSync(path, bytesOf(size));
    return Promise.resolve();
  }

  backingFile(volume: string): string {
    return join(this.data, "exports", volume);
  }

  override async start(): Promise<void> {
    if (this.port === 0) this.port = await freePort();
    await super.start();
  }

  protected launch(replace: boolean): Program {
    if (replace) throw new Error("nbdkit cannot be replaced");
    rmSync(this.#pidFile, { force: true });
    const address = ["-f", "-i", this.host, "-p", String(this.port), "-P", this.#pidFile];
    const filters = this.#filters.map((filter) => `--filter=${filter}`);
    return new Program("nbdkit", [...address, ...filters, "file", `dir=${join(this.data, "exports")}`]);
  }

  protected async untilReady(program: Program): Promise<void> {
    while (!existsSync(this.#pidFile)) {
      if (!program.isRunning) throw new Error(`nbdkit ended: ${program.stderr}`);
      await pause(10);
    }
  }

  get #pidFile(): string {
    return join(this.data, "pid");
  }
}

/** A TCP port that nobody listens on at the moment. */
export async function freePort(): Promise<number> {
  const { createServer } = await import("node:net");
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

export async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

const UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

export function bytesOf(size: string): number {
  const match = /^(\d+)([KMGT]?)$/.exec(size);
  const unit = UNITS[match?.[2] ?? "?"];
  if (match === null || unit === undefined) throw new Error(`not a size: ${size}`);
  return Number(match[1]) * unit;
}

/** Bytes that a file really takes (st_blocks), as `du` counts. */
export function allocatedBytes(path: string): number {
  return statSync(path).blocks * 512;
}

/** Bytes that everything below a folder takes. */
export function allocatedBytesBelow(folder: string): number {
  let sum = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) sum += allocatedBytes(join(entry.parentPath ?? entry.path, entry.name));
  }
  return sum;
}

/** A field of /proc/PID/status in bytes, for example VmHWM. */
export function processMemory(pid: number, field: "VmHWM" | "VmRSS" | "RssAnon"): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status);
  if (match === null) throw new Error(`no ${field} of ${pid}`);
  return Number(match[1]) * 1024;
}
