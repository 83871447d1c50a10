/** The servers that are compared, each with a backing of its own in one folder, all on loopback: TCP, unix sockets, TLS. */
import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { connect, type NetConnectOpts } from "node:net";
import { join } from "node:path";
import { metrics } from "../../test/interop/support/metrics.js";
import { check, Program } from "../../test/interop/support/process.js";
import { freePort, pause } from "../../test/interop/support/server.js";
import { makeAuthority } from "../../test/interop/support/tls.js";
import { nbdEngine, type Outcome, runClient, runFio } from "./measure.js";
import type { Medium, Row, Transport } from "./rows.js";

const HOST = "127.0.0.1";
const EXPORT = "v";
/** Steps of 50 ms that a server may take until it takes connections. */
const READY_STEPS_MAX = 600;

/** What rows are measured against. */
export interface Measured {
  readonly name: string;
  /** Whether the row can be asked of it, and says something on this medium. */
  takes(row: Row, medium: Medium): boolean;
  /** Starts it over a backing of `sizeBytes` in `folder`, reached by `transport`. */
  start(folder: string, sizeBytes: number, transport?: Transport): Promise<void>;
  /** fio's engine, and what it needs to reach it. */
  readonly engine: readonly string[];
  ask(row: Row, seconds: number, sizeBytes: number, rate?: number): Promise<Outcome>;
  readonly pid: number;
  /** Requests that each of its connection threads has answered so far; empty when it has none, or cannot tell. */
  threadRequests(): Promise<readonly number[]>;
  stop(): Promise<void>;
}

export interface BenchServer extends Measured {
  readonly uri: string;
}

abstract class ServerBase implements BenchServer {
  abstract readonly name: string;
  /** Answers from the page cache: its disk rows say nothing about the disk. */
  protected readonly cached: boolean = false;
  protected readonly speaksTls: boolean = true;
  /** Folder with its certificate and key under TLS, else null. */
  protected keys: string | null = null;
  /** Where it listens: a path, or null for the port. */
  protected socket: string | null = null;
  protected port = 0;
  protected program: Program | null = null;

  get uri(): string {
    if (this.socket !== null) return `nbd+unix:///${EXPORT}?socket=${this.socket}`;
    if (this.keys === null) return `nbd://${HOST}:${this.port}/${EXPORT}`;
    return `nbds://${HOST}:${this.port}/${EXPORT}`;
  }

  takes(row: Row, medium: Medium): boolean {
    return (medium === "ram" || !this.cached) && (row.transport !== "tls" || this.speaksTls);
  }

  get engine(): readonly string[] {
    return nbdEngine(this.uri);
  }

  ask(row: Row, seconds: number, sizeBytes: number, rate?: number): Promise<Outcome> {
    return runClient(this.uri, row, seconds, sizeBytes, rate);
  }

  get pid(): number {
    if (this.program === null) throw new Error(`${this.name} does not run`);
    return this.program.pid;
  }

  async start(folder: string, sizeBytes: number, transport: Transport = "tcp"): Promise<void> {
    const own = join(folder, this.name.replaceAll(/[^a-z0-9-]/g, "_"));
    rmSync(own, { recursive: true, force: true });
    mkdirSync(own, { recursive: true });
    this.socket = transport === "unix" ? join(own, "nbd.sock") : null;
    this.keys = null;
    if (transport === "tls") this.keys = await (await makeAuthority(own, "tls")).issue("server", "localhost");
    this.port = await freePort();
    await this.launch(own, sizeBytes);
  }

  threadRequests(): Promise<readonly number[]> {
    return Promise.resolve([]);
  }

  async stop(): Promise<void> {
    await this.program?.end("SIGTERM");
    this.program = null;
  }

  protected abstract launch(folder: string, sizeBytes: number): Promise<void>;

  protected async listening(): Promise<void> {
    for (let i = 0; i < READY_STEPS_MAX; i++) {
      if (this.program !== null && !this.program.isRunning) {
        throw new Error(`${this.program.command} ended: ${this.program.stderr}`);
      }
      if (await accepts(this.socket === null ? { host: HOST, port: this.port } : { path: this.socket }))
        return;
      await pause(50);
    }
    throw new Error(`${this.name} does not take connections`);
  }
}

async function accepts(address: NetConnectOpts): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(address);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

function sparseFile(folder: string, sizeBytes: number): string {
  const path = join(folder, "disk");
  writeFileSync(path, "");
  truncateSync(path, sizeBytes);
  return path;
}

export class Lamina extends ServerBase {
  readonly name: string;
  readonly #program: string;
  readonly #arguments: readonly string[];
  #data = "";

  /** `checkout`: folder of a built checkout. */
  constructor(name: string, checkout: string, args: readonly string[] = []) {
    super();
    this.name = name;
    this.#program = join(checkout, "bin", "lamina");
    this.#arguments = args;
  }

  protected async launch(folder: string, sizeBytes: number): Promise<void> {
    const data = join(folder, "data");
    this.#data = data;
    const at = this.socket === null ? `${HOST}:${this.port}` : `unix:${this.socket}`;
    const tls = this.keys === null ? [] : ["--tls", "require", "--tls-dir", this.keys];
    // With an authority it asks for certificates of its clients.
    if (this.keys !== null) rmSync(join(this.keys, "ca-cert.pem"));
    const listen = ["--listen", at, "--admin", `${HOST}:0`, ...tls];
    // Room for the volume and the reserve of free slots.
    const capacity = ["--capacity", String(2 * sizeBytes)];
    this.program = new Program(this.#program, [
      "serve",
      "--data",
      data,
      ...listen,
      ...capacity,
      ...this.#arguments,
    ]);
    await this.program.printed(/^lamina ready /m);
    await check(this.#program, ["volume", "create", EXPORT, "--size", String(sizeBytes), "--data", data]);
  }

  override async threadRequests(): Promise<readonly number[]> {
    if (!this.#arguments.includes("--threads")) return [];
    const text = await metrics(this.#data);
    return [...text.matchAll(/^lamina_thread_requests_total\{thread="\d+"\} (\S+)/gm)].map(([, n]) =>
      Number(n),
    );
  }
}

export class Nbdkit extends ServerBase {
  readonly name: string;
  protected override readonly cached = true;
  readonly #plugin: "file" | "memory";

  constructor(plugin: "file" | "memory") {
    super();
    this.name = `nbdkit ${plugin}`;
    this.#plugin = plugin;
  }

  protected async launch(folder: string, sizeBytes: number): Promise<void> {
    const backing = this.#plugin === "memory" ? `${sizeBytes}` : `file=${sparseFile(folder, sizeBytes)}`;
    const at = this.socket === null ? ["-i", HOST, "-p", String(this.port)] : ["-U", this.socket];
    const tls = this.keys === null ? [] : ["--tls=require", `--tls-certificates=${this.keys}`];
    this.program = new Program("nbdkit", ["-f", ...at, ...tls, "-e", EXPORT, this.#plugin, backing]);
    await this.listening();
  }
}

export class QemuNbd extends ServerBase {
  readonly name = "qemu-nbd";

  protected async launch(folder: string, sizeBytes: number): Promise<void> {
    const file = sparseFile(folder, sizeBytes);
    const io = ["--cache=none", "--aio=io_uring", "--discard=unmap"];
    const at = this.socket === null ? ["-b", HOST, "-p", String(this.port)] : ["-k", this.socket];
    const credentials = `tls-creds-x509,id=keys,endpoint=server,verify-peer=no,dir=${this.keys}`;
    const tls = this.keys === null ? [] : ["--object", credentials, "--tls-creds", "keys"];
    const common = ["-t", "-e", "16", "-f", "raw", ...io, ...at, ...tls];
    this.program = new Program("qemu-nbd", [...common, "-x", EXPORT, file]);
    await this.listening();
  }
}

/** It always becomes a daemon; `program` is the path of the binary, which need not be installed. */
export class NbdServer extends ServerBase {
  readonly name = "nbd-server";
  protected override readonly cached = true;
  protected override readonly speaksTls = false;
  readonly #binary: string;
  #daemon = 0;

  constructor(binary: string) {
    super();
    this.#binary = binary;
    // A daemon does not end with us by itself.
    process.on("exit", () => {
      if (this.#daemon !== 0) process.kill(this.#daemon, "SIGKILL");
    });
  }

  override get pid(): number {
    return this.#daemon;
  }

  protected async launch(folder: string, sizeBytes: number): Promise<void> {
    const file = sparseFile(folder, sizeBytes);
    const config = join(folder, "config");
    const pidFile = join(folder, "pid");
    const socket = this.socket === null ? "" : `unixsock = ${this.socket}\n`;
    const generic = `[generic]\nlistenaddr = ${HOST}\nport = ${this.port}\nallowlist = true\n${socket}`;
    writeFileSync(
      config,
      `${generic}[${EXPORT}]\nexportname = ${file}\nflush = true\nfua = true\ntrim = true\n`,
    );
    await check(this.#binary, ["-C", config, "-p", pidFile]);
    await this.listening();
    while (!existsSync(pidFile)) await pause(20);
    this.#daemon = Number(readFileSync(pidFile, "utf8"));
  }

  override async stop(): Promise<void> {
    if (this.#daemon === 0) return;
    process.kill(this.#daemon, "SIGTERM");
    while (existsSync(`/proc/${this.#daemon}`)) await pause(20);
    this.#daemon = 0;
  }
}

/** No server: fio's own io_uring engine on a file like those of the servers, the most that any of them could reach. */
export class Backing implements Measured {
  readonly name = "fio on the backing";
  #file = "";

  takes(row: Row): boolean {
    return row.client === "fio" && row.transport === "tcp";
  }

  start(folder: string, sizeBytes: number): Promise<void> {
    const own = join(folder, "backing");
    rmSync(own, { recursive: true, force: true });
    mkdirSync(own);
    this.#file = sparseFile(own, sizeBytes);
    return Promise.resolve();
  }

  get engine(): readonly string[] {
    return ["--ioengine=io_uring", "--direct=1", `--filename=${this.#file}`];
  }

  ask(row: Row, seconds: number, sizeBytes: number, rate?: number): Promise<Outcome> {
    return runFio(this.engine, row, seconds, sizeBytes, rate === undefined ? {} : { rate });
  }

  /** Nothing but the client works. */
  readonly pid = 0;

  threadRequests(): Promise<readonly number[]> {
    return Promise.resolve([]);
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }
}
