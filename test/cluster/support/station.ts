/** A process of a cluster, over its lives. What each life printed is added to a file beside its data when it ends. */
import { appendFileSync } from "node:fs";
import { check, Program, type RunResult, run } from "../../interop/support/process.js";
import { LAMINA } from "../../interop/support/server.js";

export interface StationPlace {
  readonly host: string;
  readonly port: number;
  /** Unix socket for NBD, in place of an address. */
  readonly path: string | null;
  /** What a command line begins with to run where the process runs. */
  readonly prefix: readonly string[];
  /** Which one of the network's hosts it is. */
  readonly index: number;
}

export class Station implements StationPlace {
  readonly host: string;
  readonly port: number;
  readonly path: string | null;
  readonly prefix: readonly string[];
  readonly index: number;
  /** Directory; tests put others in its place. */
  data: string;
  readonly #args: readonly string[];
  #program: Program | null = null;
  isStopped = false;

  constructor(data: string, place: StationPlace, args: readonly string[]) {
    this.data = data;
    this.host = place.host;
    this.port = place.port;
    this.path = place.path;
    this.prefix = place.prefix;
    this.index = place.index;
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
    const { data } = this;
    this.#program = this.startBeside([...this.#args, "--data", data]);
    this.isStopped = false;
    const life = `${new Date().toISOString()} started as ${this.#program.pid}\n`;
    void this.#program.ended.then(({ stdout, stderr }) => {
      try {
        appendFileSync(`${data}.log`, life + stdout + stderr);
      } catch {
        // The data was removed meanwhile.
      }
    });
  }

  /** Another program in the same place. */
  startBeside(args: readonly string[], command: string = LAMINA): Program {
    const [first, ...others] = [...this.prefix, command, ...args];
    return new Program(first!, others);
  }

  async ready(): Promise<void> {
    await this.program.printed(/^lamina ready /m);
  }

  /** Starts it on what must not be served: what it says, when it has ended. */
  async refusedToStart(): Promise<string> {
    this.launch();
    const { code, stderr, stdout } = await this.program.ended;
    if (code === 0) throw new Error(`it ended as if nothing were wrong: ${stdout}`);
    return stderr;
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
