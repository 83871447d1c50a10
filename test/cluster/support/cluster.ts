/** A cluster of real processes on this machine: nodes, gateways, their key and their data. */
import { join } from "node:path";
import { check, type RunResult, run } from "../../interop/support/process.js";
import { OwnRedis } from "../../interop/support/redis.js";
import { removeScratch, scratchDirectory } from "../../interop/support/scratch.js";
import { freePort, LAMINA } from "../../interop/support/server.js";
import { MemoryDisk } from "./disk.js";
import { Network } from "./network.js";
import { Station, type StationPlace } from "./station.js";

export { Station } from "./station.js";

const HOST = "127.0.0.1";
/** In namespaces, where nobody else has ports. */
const NODE_PORT = 10811;
const CAPACITY_DEFAULT = "1G";

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

export interface ClusterOptions {
  readonly directory?: string;
  /** Every process in a network namespace of its own; needs root. NBD goes over unix sockets then. */
  readonly isolated?: boolean;
  /** MiB of a file system in memory of its own on which each node's data lies; needs root. */
  readonly diskMib?: number;
  /** Of each node's device. */
  readonly capacity?: string;
  /** Gateways mirror into a Redis of the cluster's own. */
  readonly redis?: boolean;
  /** Further arguments of every gateway, and of every node. */
  readonly gatewayArgs?: readonly string[];
  readonly nodeArgs?: readonly string[];
}

export class Cluster {
  readonly directory: string;
  readonly nodes: Station[] = [];
  readonly gateways: Station[] = [];
  readonly network: Network | null;
  readonly #options: ClusterOptions;
  /** By node, where nodes have disks of their own. */
  readonly disks: MemoryDisk[] = [];
  redis: OwnRedis | null = null;

  /** Arguments of every process. */
  #common: readonly string[] = [];

  private constructor(directory: string, network: Network | null, options: ClusterOptions) {
    this.directory = directory;
    this.network = network;
    this.#options = options;
  }

  /** All of them serve when it resolves. */
  static async start(nodes: number, gateways: number, options: ClusterOptions = {}): Promise<Cluster> {
    const network = options.isolated === true ? await Network.make(nodes + gateways) : null;
    const cluster = new Cluster(options.directory ?? scratchDirectory(), network, options);
    try {
      await cluster.#start(nodes, gateways);
    } catch (error) {
      // Nobody knows it yet who could clean up.
      await cluster.dispose();
      throw error;
    }
    return cluster;
  }

  async #start(nodes: number, gateways: number): Promise<void> {
    const { directory } = this;
    await check(LAMINA, ["cluster", "init", "--data", directory]);
    if (this.#options.redis === true) {
      this.redis = new OwnRedis(join(directory, "redis"));
      await this.redis.start();
    }
    const places: StationPlace[] = [];
    for (let i = 0; i < nodes + gateways; i++) places.push(await this.#place(places, i < nodes));
    const addresses = places.slice(0, nodes).map(({ host, port }) => `${host}:${port}`);
    this.#common = ["--cluster", addresses.join(","), "--key", join(directory, "cluster.key")];
    for (const place of places) {
      if (place.index < nodes) this.nodes.push(await this.#node(place));
      else this.gateways.push(this.#gateway(place, `g${place.index - nodes + 1}`));
    }
    const all = [...this.nodes, ...this.gateways];
    for (const station of all) station.launch();
    await Promise.all(all.map((station) => station.ready()));
  }

  async #place(others: readonly StationPlace[], isNode: boolean): Promise<StationPlace> {
    const index = others.length;
    const { network } = this;
    if (network !== null) {
      const path = isNode ? null : join(this.directory, `nbd${index}`);
      return { index, host: network.addressOf(index), port: NODE_PORT, path, prefix: network.prefix(index) };
    }
    let port = await freePort();
    while (others.some((other) => other.port === port)) port = await freePort();
    return { index, host: HOST, port, path: null, prefix: [] };
  }

  async #node(place: StationPlace): Promise<Station> {
    const name = `n${this.nodes.length + 1}`;
    const disk = join(this.directory, `disk-${name}`);
    const { diskMib } = this.#options;
    if (diskMib !== undefined) {
      this.disks.push(await MemoryDisk.mount(disk, diskMib));
    }
    const args = this.nodeArgs(`${place.host}:${place.port}`);
    return new Station(join(diskMib === undefined ? this.directory : disk, name), place, args);
  }

  /** Without its data directory. */
  nodeArgs(address: string): readonly string[] {
    const { capacity, nodeArgs } = this.#options;
    const own = ["--listen", address, "--capacity", capacity ?? CAPACITY_DEFAULT, "--pool", "32M"];
    const args = ["node", ...this.#common, ...own, ...(nodeArgs ?? [])];
    // A namespace is a network of its own; what is not loopback has to be asked for all the same.
    return this.network === null ? args : [...args, "--insecure"];
  }

  /** Another port for something on the host of `node`. */
  async freePortOf(node: Station): Promise<number> {
    return this.network === null ? freePort() : node.port + 1;
  }

  /** What `lamina status` says of the process that holds a data directory; empty while it says nothing. */
  async statusOf(data: string): Promise<string> {
    return (await run(LAMINA, ["status", "--data", data])).stdout;
  }

  #gateway(place: StationPlace, name: string): Station {
    const listen = place.path === null ? `${place.host}:${place.port}` : `unix:${place.path}`;
    const { gatewayArgs } = this.#options;
    const own = ["--listen", listen, "--pool", "64M", ...(gatewayArgs ?? [])];
    if (this.redis !== null) own.push("--redis", this.redis.url);
    const args = ["gateway", ...this.#common, ...own];
    return new Station(join(this.directory, name), place, args);
  }

  /** A further node, which is no config node. It serves when it resolves. Not where processes are isolated. */
  async join(): Promise<Station> {
    const place = { index: -1, host: HOST, port: await freePort(), path: null, prefix: [] };
    const station = await this.#node(place);
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

  /** Kills what runs, and leaves what was written for inspection. */
  async stop(): Promise<void> {
    await Promise.all([...this.nodes, ...this.gateways].map((station) => station.kill()));
    await this.redis?.kill();
    this.network?.dispose();
  }

  /** Kills what runs and removes what was made. */
  async dispose(): Promise<void> {
    await this.stop();
    for (const disk of this.disks.splice(0)) disk.unmount();
    await removeScratch(this.directory);
  }
}
