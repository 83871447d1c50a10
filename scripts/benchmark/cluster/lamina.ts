/** Lamina as a cluster: three nodes and one gateway, a process each, asked over NBD. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { NbdClient } from "../../../test/interop/support/nbd-client.js";
import { check, Program } from "../../../test/interop/support/process.js";
import { freePort } from "../../../test/interop/support/server.js";
import { type Outcome, prefill, runClient } from "../measure.js";
import type { Row } from "../rows.js";
import { type Contestant, type CpuByGroup, cpuOf } from "./contestant.js";

const HOST = "127.0.0.1";
const NODES = 3;
const VOLUME = "v";

export class LaminaCluster implements Contestant {
  readonly name: string;
  readonly about =
    "three nodes and one gateway, asked over NBD, the volume held open by a further client; checksums on; a write may be lost with the power of all three until the flush";
  readonly #program: string;
  readonly #arguments: readonly string[];
  readonly #nodes: Program[] = [];
  #gateway: Program | null = null;
  /** Has the volume open between rows: a row measures requests, not how a volume is taken over. */
  #holder: NbdClient | null = null;
  #uri = "";
  #sizeBytes = 0;

  /** `checkout`: folder of a built checkout; `args` go to the gateway and every node. */
  constructor(name: string, checkout: string, args: readonly string[] = []) {
    this.name = name;
    this.#program = join(checkout, "bin", "lamina");
    this.#arguments = args;
  }

  takes(): boolean {
    return true;
  }

  async start(folder: string, sizeBytes: number): Promise<void> {
    mkdirSync(folder, { recursive: true });
    this.#sizeBytes = sizeBytes;
    await check(this.#program, ["cluster", "init", "--data", folder]);
    const ports: number[] = [];
    while (ports.length <= NODES) {
      const port = await freePort();
      if (!ports.includes(port)) ports.push(port);
    }
    const at = (port: number): string => `${HOST}:${port}`;
    const cluster = ports.slice(0, NODES).map(at).join(",");
    const common = ["--cluster", cluster, "--key", join(folder, "cluster.key"), ...this.#arguments];
    // Room for the volume and the reserve of free slots.
    const capacity = ["--capacity", String(2 * sizeBytes)];
    for (let i = 0; i < NODES; i++) {
      const place = ["--data", join(folder, `n${i}`), "--listen", at(ports[i]!)];
      this.#nodes.push(new Program(this.#program, ["node", ...place, ...common, ...capacity]));
    }
    const data = join(folder, "g");
    const listen = ["--data", data, "--listen", at(ports[NODES]!)];
    this.#gateway = new Program(this.#program, ["gateway", ...listen, ...common]);
    await Promise.all([...this.#nodes, this.#gateway].map((one) => one.printed(/^lamina ready /m)));
    await check(this.#program, ["volume", "create", VOLUME, "--size", String(sizeBytes), "--data", data]);
    this.#uri = `nbd://${at(ports[NODES]!)}/${VOLUME}`;
    this.#holder = await NbdClient.connect(HOST, ports[NODES]!, VOLUME);
    await prefill({ uri: this.#uri }, sizeBytes);
  }

  run(row: Row, seconds: number): Promise<Outcome> {
    return runClient(this.#uri, row, seconds, this.#sizeBytes);
  }

  cpu(): CpuByGroup {
    return cpuOf({ nodes: this.#nodes.map(({ pid }) => pid), gateway: [this.#gateway!.pid] });
  }

  async stop(): Promise<void> {
    await this.#holder?.close();
    this.#holder = null;
    await this.#gateway?.end("SIGTERM");
    this.#gateway = null;
    await Promise.all(this.#nodes.splice(0).map((node) => node.end("SIGTERM")));
  }
}
