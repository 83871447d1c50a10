/** A cluster of real processes on this machine: nodes, gateways, their key and their data. */
import { join } from "node:path";
import { check, Program, type RunResult, run } from "../../interop/support/process.js";
import { removeScratch, scratchDirectory } from "../../interop/support/scratch.js";
import { freePort, LAMINA } from "../../interop/support/server.js";

const HOST = "127.0.0.1";

/** Of `lamina cluster status --json`, as far as tests look. */
export interface ClusterStatus {
  readonly nodes: readonly {
    readonly address: string;
    readonly up: boolean;
    readonly config: boolean;
    readonly usedBytes: number;
  }[];
  readonly volumes: readonly {
    readonly name: string;
    readonly owned: boolean;
    readonly members: readonly { readonly address: string; readonly state: string }[];
  }[];
  readonly notices: readonly string[];
}

/** A process of the cluster, over its lives. */
export class Station {
  readonly host = HOST;
  readonly port: number;
  readonly data: string;
  readonly #args: readonly string[];
  #program: Program | null = null;
  isStopped = false;

  constructor(data: string, port: number, args: readonly string[]) {
    this.data = data;
    this.port = port;
    this.#args = args;
  }

  get address(): string {
    return `${this.host}:${this.port}`;
  }

  get program(): Program {
    if (this.#program === null) throw new Error("it was not started");
    return this.#program;
  }

  get isRunning(): boolean {
    return this.#program?.isRunning === true;
  }

  /** Without waiting for it to serve. */
  launch(): void {
    this.#program = new Program(LAMINA, [...this.#args, "--data", this.data]);
    this.isStopped = false;
  }

  async ready(): Promise<void> {
    await this.program.printed(/^lamina ready /m);
  }

  async kill(): Promise<void> {
    if (this.#program !== null) await this.#program.end("SIGKILL");
  }

  /** Stands still, and with it everything that it has under way. */
  pause(): void {
    this.program.child.kill("SIGSTOP");
    this.isStopped = true;
  }

  goOn(): void {
    this.program.child.kill("SIGCONT");
    this.isStopped = false;
  }

  async end(): Promise<RunResult> {
    return this.program.end("SIGTERM");
  }

  /** A command of the CLI at it; must succeed. */
  async lamina(...args: string[]): Promise<string> {
    return check(LAMINA, [...args, "--data", this.data]);
  }

  /** One that must be refused: what it says. */
  async refused(...args: string[]): Promise<string> {
    const { code, stderr } = await run(LAMINA, [...args, "--data", this.data]);
    if (code === 0) throw new Error(`not refused: lamina ${args.join(" ")}`);
    return stderr;
  }
}

export class Cluster {
  readonly directory: string;
  readonly nodes: Station[] = [];
  readonly gateways: Station[] = [];

  /** Arguments of every process. */
  #common: readonly string[] = [];

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** All of them serve when it resolves. */
  static async start(nodes: number, gateways: number, directory = scratchDirectory()): Promise<Cluster> {
    const cluster = new Cluster(directory);
    await check(LAMINA, ["cluster", "init", "--data", directory]);
    const ports: number[] = [];
    while (ports.length < nodes + gateways) {
      const port = await freePort();
      if (!ports.includes(port)) ports.push(port);
    }
    const addresses = ports.slice(0, nodes).map((port) => `${HOST}:${port}`);
    cluster.#common = ["--cluster", addresses.join(","), "--key", join(directory, "cluster.key")];
    for (const [i, port] of ports.entries()) {
      if (i < nodes) {
        cluster.nodes.push(new Station(join(directory, `n${i + 1}`), port, cluster.#nodeArgs(port)));
      } else {
        const args = ["gateway", ...cluster.#common, "--listen", `${HOST}:${port}`, "--pool", "64M"];
        cluster.gateways.push(new Station(join(directory, `g${i - nodes + 1}`), port, args));
      }
    }
    const all = [...cluster.nodes, ...cluster.gateways];
    for (const station of all) station.launch();
    await Promise.all(all.map((station) => station.ready()));
    return cluster;
  }

  #nodeArgs(port: number): readonly string[] {
    return ["node", ...this.#common, "--listen", `${HOST}:${port}`, "--capacity", "1G", "--pool", "32M"];
  }

  /** A further node, which is no config node. It serves when it resolves. */
  async join(): Promise<Station> {
    const port = await freePort();
    const name = `n${this.nodes.length + 1}`;
    const station = new Station(join(this.directory, name), port, this.#nodeArgs(port));
    this.nodes.push(station);
    station.launch();
    await station.ready();
    return station;
  }

  async status(): Promise<ClusterStatus> {
    const asked = this.gateways.find(({ isRunning, isStopped }) => isRunning && !isStopped)!;
    return JSON.parse(await asked.lamina("cluster", "status", "--json")) as ClusterStatus;
  }

  /** Checks the stopped store of a node. */
  async fsck(node: Station): Promise<RunResult> {
    return run(LAMINA, ["fsck", "--data", node.data]);
  }

  /** Gateways first: they let go of their volumes. The codes of those that did not end as they should. */
  async end(): Promise<string[]> {
    const problems: string[] = [];
    for (const group of [this.gateways, this.nodes]) {
      for (const station of group) if (station.isStopped) station.goOn();
      const results = await Promise.all(group.map((station) => station.end()));
      for (const { code, signal, stderr } of results) {
        if (code !== 0) problems.push(`a process ended with ${code ?? signal}:\n${stderr}`);
      }
    }
    return problems;
  }

  /** Kills what runs and removes what was made. */
  async dispose(): Promise<void> {
    await Promise.all([...this.nodes, ...this.gateways].map((station) => station.kill()));
    await removeScratch(this.directory);
  }
}
